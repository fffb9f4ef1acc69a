"""A made-up run folder and its report, built once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

HEADLINE = "13 of 20 features move the margin <more> than random directions do."


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The module that makes run folders."""
    import synthetic

    return synthetic


@pytest.fixture(scope="session")
def run_dir(synthetic, tmp_path_factory) -> Path:
    """A whole run folder; tests do not change it."""
    return synthetic.write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def report(run_dir) -> Path:
    """Its report.html."""
    from saelens_steer.report import build_report  # not earlier: types are checked from here on

    return build_report(run_dir, HEADLINE)


@pytest.fixture
def fresh_run(synthetic, tmp_path) -> Path:
    """A run folder that a test may change."""
    return synthetic.write_run(tmp_path / "run")
