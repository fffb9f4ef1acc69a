"""A run that is killed at any moment of any step ends, resumed, as if it never had been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def study(program: str, *words: object) -> dict[str, Any]:
    """The JSON object that a program of this folder prints."""
    ran = subprocess.run(
        [sys.executable, HERE / f"{program}.py", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": f"{ROOT}:{HERE.parent}"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


def check(found: dict[str, Any], kills: int) -> None:
    print({key: found[key] for key in ("seconds_before", "seconds_each")})
    assert found["failures"] == []
    assert len(found["kills"]) == kills
    killed = {(name, phase) for name, phase, _ in found["kills"]}
    phases = {(name, phase) for name, own in found["phases"].items() for phase in own}
    assert killed <= phases and len(killed) == min(kills, len(phases))


@pytest.mark.slow
def test_kills_in_many_steps_leave_nothing_behind_and_lose_nothing(tmp_path):
    check(study("killing", tmp_path, 8), 8)


@pytest.mark.nightly
def test_a_thousand_kills(tmp_path):
    kills = int(os.environ.get("KILLS", "1000"))
    check(study("killing", tmp_path, kills), kills)
