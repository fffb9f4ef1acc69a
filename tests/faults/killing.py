"""Runs that are killed and resumed: `python killing.py FOLDER KILLS [FIRST]` prints a JSON object.

FIRST is the number of the first kill, so that processes can share one series. Half of the kills
come before a change of the folder (a rename, an fsync, a file opened …), half at a random time;
they go round all phases of the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from faults.children import Changes, Study, import_everything, in_child, in_phases, kill_me
from faults.every_step import every_step, loaded

FEW = 100
"""Fewer kills than this are all of one study."""


def killed(study: Study, phase: str, at: int | float) -> int:
    """Run on from the beginning of a phase, and kill before its n-th change or after seconds."""
    study.restore(phase)
    if isinstance(at, int):
        changes = Changes(study.folder, at=at, act=kill_me)
    else:
        changes = Changes(study.folder)
    read, write = os.pipe()

    @contextlib.contextmanager
    def fatal(now: str) -> Iterator[None]:
        if now == phase:
            os.write(write, b"1")
            changes.on = True
        yield
        if now == phase:
            kill_me()

    def work() -> None:
        in_phases(fatal)
        changes.watch()
        study.run()

    def kill(child: int) -> None:
        os.close(write)
        if os.read(read, 1) and isinstance(at, float):
            time.sleep(at)
            os.kill(child, signal.SIGKILL)
        os.close(read)

    return in_child(work, study.home / "said.txt", kill)


def kill_once(study: Study, phase: str, at: int | float) -> list[str]:
    """What goes wrong around a kill."""
    status = killed(study, phase, at)
    if status != -signal.SIGKILL:
        return [f"ended with {status}: {study.said[-300:]}"]
    return study.unfinished() + study.misread() + study.resume()


def main() -> None:
    import_everything()
    home, kills = Path(sys.argv[1]), int(sys.argv[2])
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    start = time.monotonic()
    config = every_step(home)
    studies = [Study(home / "trained", config).begin()]
    if kills >= FEW:
        studies += [
            Study(home / "loaded", loaded(home, config), until="train").begin(),
            Study(home / "grid", config, until="grid").begin(),
        ]
    places = [(study, phase) for study in studies for phase in study.phases]
    stride = 1 if kills >= len(places) else max(1, len(places) // kills)
    done, failures = [], list[str]()
    begun = time.monotonic()
    for number in range(first, first + kills):
        draw = random.Random(number)
        study, phase = places[number * stride % len(places)]
        changes, seconds = study.phases[phase]
        by_change = (number + number // len(places)) % 2 == 0
        at = draw.randint(1, max(changes, 1)) if by_change else draw.random() * seconds
        wrong = kill_once(study, phase, at)
        done.append([study.home.name, phase, at])
        failures += [f"{study.home.name} {phase} at {at}: {each}" for each in wrong]
        print(number, phase, at, wrong, file=sys.stderr, flush=True)
    print(json.dumps({
        "kills": done, "failures": failures, "phases": {s.home.name: s.phases for s in studies},
        "seconds_before": begun - start, "seconds_each": (time.monotonic() - begun) / max(kills, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
