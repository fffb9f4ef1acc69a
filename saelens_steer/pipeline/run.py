"""The runner: the steps in the order of the story, each run once in a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from saelens_steer.config import RunSpec, as_config
from saelens_steer.pipeline.checks import begin, check_asked
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.step import Step
from saelens_steer.pipeline.step_table import STEPS, needed, step


def run(
    config: RunSpec | Mapping[str, object] | str | Path,
    out: str | Path,
    *,
    until: str = "report",
    overrides: Sequence[str] = (),
) -> Path:
    """Run the steps that lead to `until` in the folder `out`; returns the path of its output.

    `config`: a RunSpec, a mapping such as {"sweep": {"n_controls": 64}}, or the path of a YAML
    file. `overrides`: as --set on the command line, such as ["sweep.n_controls=64"]. Steps whose
    inputs are unchanged are not run again, so the same call resumes after an interruption. Raises
    InputError for anything the user can fix, before the work that it would spoil.
    """
    spec = as_config(config, overrides)
    check_asked(spec, until)
    context = begin(spec, out)  # config → model → prompts, all checked
    if until == "report":
        context.drop_stale_grid()
    for one in needed(until):
        carry_out(one, context)
        for other in STEPS:
            if one.name in other.renewed_by:
                carry_out(other, context)
    return context.folder.path(step(until).writes(spec)[0])


def carry_out(step: Step, run: RunContext) -> None:
    """Run a step unless it is done, or delete its output if the config no longer asks for it."""
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

    Each goes to the folder grid/NAME of `out`. The same call resumes after an interruption. Raises
    InputError.
    """
    return run(spec, out, until="grid")
