"""The thin runner: the steps in the order of the story, each done once in a run folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from saelens_steer.config import RunSpec
from saelens_steer.pipeline.checks import begin, check_asked
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.step import Step
from saelens_steer.pipeline.step_table import STEPS, needed, step


def run(spec: RunSpec, out: str | Path, until: str = "report") -> Path:
    """Carry out a RunSpec in the folder `out`: a step, and those that it is made from.

    Returns the path of what the step made. A step whose inputs are unchanged is not done again, so
    the same call resumes after a stop. Raises InputError for anything the user can mend, before the
    work that it would spoil.
    """
    check_asked(spec, until)
    context = begin(spec, out)  # config → model → prompts; all that can be wrong is checked
    if until == "report":
        context.drop_stale_grid()
    for one in needed(until):
        carry_out(one, context)
        for other in STEPS:
            if one.name in other.renewed_by:
                carry_out(other, context)
    return context.folder.path(step(until).writes(spec)[0])


def carry_out(step: Step, run: RunContext) -> None:
    """Do a step unless it is done, or remove what it made if the config no longer asks for it."""
    if not step.is_wanted(run.spec):
        run.folder.drop(step.name, step.leftovers)
        return
    inputs, outputs, build = run.made_from(step), step.writes(run.spec), step.builder()
    make = partial(build, run)
    if step.returns_writer and not run.folder.is_done(step.name, inputs, outputs):
        make = build(run)
    run.keys[step.name] = run.folder.do(step.name, inputs, outputs, make, step.derived)
    if step.name == "train":
        run.write_provenance()


def train_grid(spec: RunSpec, out: str | Path) -> Path:
    """Train every SAE of `sae.grid` on one pass of activations; returns the path of grid.csv.

    Each is in a folder grid/NAME of `out`. The same call resumes after a stop. Raises InputError.
    """
    return run(spec, out, "grid")
