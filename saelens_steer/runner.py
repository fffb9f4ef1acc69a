"""The thin runner: the story on one screen, each step done once in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from saelens_steer.config import RunSpec
from saelens_steer.errors import InputError
from saelens_steer.stages import Run

Step = Literal["cache", "train", "select", "sweep", "report"]


def run(spec: RunSpec, out: str | Path, until: Step = "report") -> Path:
    """Carry out a RunSpec in the folder `out`, up to a step; returns the path of what it made.

    A step whose inputs are unchanged is not done again, so the same call goes on after a stop.
    Raises InputError for anything the user can mend, before the work that it would spoil.
    """
    if until not in get_args(Step):
        raise InputError(f"until must be one of {', '.join(get_args(Step))}, not {until!r}")
    run = Run.begin(spec, out)  # config → model → prompts; all that can be wrong is checked
    story = {
        "cache": run.cache,  # activations at the hook, of the selection prompts
        "train": run.train,  # the SAE, trained or loaded
        "select": run.select,  # features that tell the two domains apart
        "sweep": run.sweep,  # steering, against controls; metrics and claims
        "report": run.report,  # the page that says whether to believe it
    }
    made = run.steps.folder
    for step, work in story.items():
        made = work()
        if step == until:
            break
    return made
