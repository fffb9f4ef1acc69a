"""Run a folder's config again elsewhere, and compare what the steps wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saelens_steer.errors import InputError
from saelens_steer.files import read_json
from saelens_steer.pipeline.run import run
from saelens_steer.pipeline.step_table import STEPS, needed
from saelens_steer.pipeline.verify import verify
from saelens_steer.run_folder import ABOUT, CONFIG, RunFolder

SETTING = ("packages", "saelens_steer", "python", "threads", "machine", "device")
"""What the last digits of a run may depend on, in provenance.json."""

PAGE = ".html"


def reproduce(run_dir: str | Path, out: str | Path) -> list[str]:
    """Rerun the finished steps of a run in the folder `out`; returns the files that differ.

    They are in the order of the steps, so the first is where the runs diverge. Skips pages, which
    show versions and the folder's name besides what other files hold, and provenance.json. Raises
    InputError if a file of the run is missing or was changed, or if its config cannot be run.
    """
    old, new = RunFolder(run_dir), RunFolder(out)
    old.check_computed("give the folder of a run")
    done = [step.name for step in STEPS if old.records.key_of(step.name)]
    if not old.path(CONFIG).is_file() or not done:
        raise InputError(f"{run_dir} has no finished step: give the folder of a run")
    verify(run_dir)
    if new.root.resolve() == old.root.resolve():
        raise InputError(f"{out} is the run itself: give another folder")
    run(old.path(CONFIG), out, until="report" if "report" in done else done[-1])
    names = [step.name for step in needed("report")]
    order = sorted({*new.records.steps()} & {*old.records.steps()}, key=lambda s: _place(names, s))
    return [file for step in order for file in _differing(old, new, step)]


def _place(names: list[str], step: str) -> int:
    return names.index(step) if step in names else len(names)


def _differing(old: RunFolder, new: RunFolder, step: str) -> Iterator[str]:
    """The files of a finished step whose digests differ between the two runs."""
    before, after = old.records[step], new.records[step]
    if before.key and after.key:
        both = sorted({**before.files, **after.files})
        compared = (f for f in both if f != ABOUT and not f.endswith(PAGE))
        yield from (f for f in compared if before.files.get(f) != after.files.get(f))


def settings_that_differ(run_dir: str | Path, out: str | Path) -> list[str]:
    """Versions, threads, machine and device in which two runs differ, such as torch: 2.6 → 2.7."""
    old, new = (_settings(read_json(Path(folder) / ABOUT)) for folder in (run_dir, out))
    names = sorted(old.keys() | new.keys())
    return [f"{n}: {old.get(n)} → {new.get(n)}" for n in names if old.get(n) != new.get(n)]


def _settings(about: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: about.get(name) for name in SETTING}
    return {**(found.pop("packages") or {}), **found}
