"""The thin runner: the story on one screen, each step done once in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from saelens_steer.config import RunSpec
from saelens_steer.errors import InputError
from saelens_steer.pipeline.checks import begin, check_asked
from saelens_steer.pipeline.steps.compare_directions import compare
from saelens_steer.pipeline.steps.features import features
from saelens_steer.pipeline.steps.frozen_decoder_baseline import baseline
from saelens_steer.pipeline.steps.label import label
from saelens_steer.pipeline.steps.report import report
from saelens_steer.pipeline.steps.sae import grid, train
from saelens_steer.pipeline.steps.select import cache, select
from saelens_steer.pipeline.steps.sweep import sweep
from saelens_steer.pipeline.steps.tradeoffs import matrix

Step = Literal[
    "cache",
    "train",
    "select",
    "features",
    "label",
    "compare_edits",
    "compare_directions",
    "tradeoffs",
    "sweep",
    "frozen_decoder_baseline",
    "report",
]
STORY = {
    "cache": cache,  # activations at the hook, of the selection prompts
    "train": train,  # the SAE, trained or loaded
    "select": select,  # features that tell the two domains apart
    "features": features,  # which features are alive, and what each responds to
    "label": label,  # names for them, and how far these can be believed
    "compare_edits": patch,  # what the edits of the config do to what the model writes
    "compare_directions": compare,  # ways to choose features, by what the chosen ones do
    "tradeoffs": matrix,  # directions and edits: effect on one domain, damage on the others
    "sweep": sweep,  # steering, against controls; metrics and claims
    "frozen_decoder_baseline": baseline,  # the same with an SAE whose decoder was never trained
    "report": report,  # the page that says whether to believe it
}


def train_grid(spec: RunSpec, out: str | Path) -> Path:
    """Train every SAE of `sae.grid` on one pass of activations; returns the path of grid.csv.

    Each is in a folder grid/NAME of `out`. The same call goes on after a stop. Raises InputError.
    """
    return grid(begin(spec, out))


def run(spec: RunSpec, out: str | Path, until: Step = "report") -> Path:
    """Carry out a RunSpec in the folder `out`, up to a step; returns the path of what it made.

    A step whose inputs are unchanged is not done again, so the same call goes on after a stop.
    Raises InputError for anything the user can mend, before the work that it would spoil.
    """
    if until not in get_args(Step):
        raise InputError(f"until must be one of {', '.join(get_args(Step))}, not {until!r}")
    check_asked(spec, until)
    run = begin(spec, out)  # config → model → prompts; all that can be wrong is checked
    made = run.steps.folder
    for step, work in STORY.items():
        made = work(run)
        if step == until:
            break
    return made
