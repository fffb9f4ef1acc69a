"""One thread, no network, and models that are loaded once for all tests."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

from pathlib import Path

import jaxtyping
import pytest
import torch
from checkpoints import random_qwen3

torch.set_num_threads(1)

# saelens_steer is imported inside the fixtures: earlier, its shapes would go unchecked.


LONGEST = (
    *("test_notebooks", "test_kills", "test_faults", "test_run_folder", "test_setups"),
    *("test_mistakes", "test_docs_code", "test_metrics_linear", "test_sweeps_killed"),
    *("test_offline", "test_releases", "test_doctor", "test_cli", "test_report_names"),
)
"""Files of tests that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so that workers that take whole files end at about one time."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parity proofs of the tests go to a temporary folder."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of four layers in Hugging Face format."""
    return random_qwen3(tmp_path_factory.mktemp("random-qwen3"))


@pytest.fixture(scope="session")
def random_model(random_folder: Path):
    """The random Qwen3 as a HookedTransformer in float32; leave no hooks on it."""
    from saelens_steer.model import load_model

    return load_model(str(random_folder))


@pytest.fixture(scope="session")
def random_bridge(random_folder: Path):
    """The same as a TransformerBridge."""
    from saelens_steer.model import load_model

    return load_model(str(random_folder), model_class="TransformerBridge")


@pytest.fixture(scope="session")
def tiny_model():
    """The shipped model as a HookedTransformer in float32; leave no hooks on it."""
    from saelens_steer.model import load_model

    return load_model("tiny-qwen3")


@pytest.fixture
def unchecked():
    """Types are checked in the tests alone; a user meets the messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
