"""Run commands in the process of the test; finished runs to copy; a vector and two prompts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prompt_files import small_run

Run = Callable[..., Path]
"""Runs a config in a folder, which it returns."""


@pytest.fixture(scope="module")
def small_config(tmp_path_factory, random_folder) -> dict[str, Any]:
    """A config with a sweep and compared edits, of a random model and a loaded SAE."""
    home = tmp_path_factory.mktemp("parts")
    return small_run(home, random_folder, "blocks.2.hook_resid_pre", 3) | {
        "features": {"topic": None},
        "sweep": {
            **{"features": [5], "alphas": [-2, 2], "n_controls": 4},
            "completions": {"max_new_tokens": 2, "files": True},
        },
        "metrics": ["kl", "distinct_words"],
        "compare_edits": {"max_new_tokens": 2, "limit": 2, "variants": {"b": ["reconstruct"]}},
    }


@pytest.fixture(scope="session")
def carried_out() -> Run:
    """Run a config in a folder; sections given as None are left out."""
    from saelens_steer.config import parse_config
    from saelens_steer.pipeline import run

    def call(config: dict[str, Any], out: Path, until: str = "report", **sections: Any) -> Path:
        given = {key: own for key, own in {**config, **sections}.items() if own is not None}
        run.run(parse_config(given, []), out, until=until)
        return out

    return call


@pytest.fixture(scope="module")
def whole(config: dict[str, Any], carried_out: Run, tmp_path_factory) -> Path:
    """The finished run of a module's `config`; copy it to change it."""
    return carried_out(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def prompts():
    """Two prompts of the tiny model."""
    import saelens_steer as ss

    return ss.load_prompts("tiny-code-math-mixed", 2)


@pytest.fixture(scope="module")
def vector(tiny_model):
    """A random vector as wide as the tiny model's residual stream."""
    return torch.randn(tiny_model.cfg.d_model, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def said(monkeypatch, capsys):
    """Run a command; returns exit status, stdout and stderr."""
    from saelens_steer import cli

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["saelens-steer", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return call
