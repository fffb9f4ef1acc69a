"""Run the command line in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(args: list[str], **env: str) -> subprocess.Popen:
    """Start a process in the repository's root, offline and single-threaded."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(
        args,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def finished(args: list[str], **env: str) -> str:
    """The stdout of a process, which must exit with 0."""
    process = start(args, **env)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    return stdout


def ran(config: str, out: Path, overrides: Mapping[str, object], **env: str) -> Path:
    """Run a config with some keys changed; returns the run folder."""
    sets = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    args = [sys.executable, "-m", "saelens_steer.cli", "run", config, "--out", str(out), *sets]
    assert finished(args, **env).strip().splitlines()[-1] == str(out / "report.html")
    return out
