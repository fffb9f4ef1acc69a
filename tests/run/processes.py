"""Run the command line in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def finished(args: list[str], **env: str) -> str:
    """The stdout of a process in the repository's root, offline and single-threaded.

    It must exit with 0.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run(
        args, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ran(config: str, out: Path, overrides: Mapping[str, object], **env: str) -> Path:
    """Run a config with some keys changed; returns the run folder."""
    sets = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    args = [sys.executable, "-m", "saelens_steer.cli", "run", config, "--out", str(out), *sets]
    assert finished(args, **env).strip().splitlines()[-1] == str(out / "report.html")
    return out
