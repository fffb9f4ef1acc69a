"""A small corpus for small SAEs, and their shared settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saelens_steer.config import TrainSpec

HOOK = "blocks.2.hook_resid_pre"
PIECES = [
    "def add{i}(a, b):\n    return a + {i} * b",
    "Write a Python function that returns the sum of {i} numbers and show your work.",
    "```python\nprint('hello {i}')\n```",
    "Let $x$ be a real number with $$x^2 = {i}$$, so \\(x\\) is \\[\\sqrt{i}\\].",
]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """About 8,000 tokens of code, prose and mathematics."""
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    texts = (piece.replace("{i}", str(i)) for i in range(60) for piece in PIECES)
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small(corpus) -> Callable[..., TrainSpec]:
    """Build a TrainSpec of 32 features and 16 steps; any field may be overridden."""

    def spec(**given: Any) -> TrainSpec:
        settings = {
            "d_sae": 32,
            "corpus": str(corpus),
            "training_tokens": 4096,
            "batch_tokens": 256,
            "context_size": 32,
            "options": {"k": 4},
        }
        return TrainSpec.model_validate(settings | given)

    return spec
