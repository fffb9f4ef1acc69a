"""Run a config: the steps in order, each once per run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from saelens_steer.config import RunSpec, as_config
from saelens_steer.pipeline.checks import check_step, checked_context
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
    """Run the step `until`, and all it depends on, in the folder `out`; returns its output's path.

    `config`: a RunSpec, a mapping such as {"sweep": {"n_controls": 64}}, or the path of a YAML
    file. `overrides`: as --set on the command line, such as ["sweep.n_controls=64"]. Steps whose
    inputs are unchanged are not run again, so the same call resumes after an interruption. Raises
    InputError for anything the user can fix, before the work that it would spoil.
    """
    spec = as_config(config, overrides)
    check_step(spec, until)
    context = checked_context(spec, out)
    if until == "report":
        context.drop_stale_grid()
    for one in needed(until):
        carry_out(one, context)
        for other in STEPS:
            if one.name in other.repeated_after:
                carry_out(other, context)
    return context.folder.path(step(until).writes(spec)[0])


def carry_out(step: Step, run: RunContext) -> None:
    """Run a step unless it is done; if the config does not ask for it, remove its old output."""
    if not step.is_wanted(run.spec):
        run.folder.drop(step.name, step.leftovers)
        return
    inputs, outputs, build = run.inputs_of(step), step.writes(run.spec), step.builder()
    make = partial(build, run)
    if step.returns_writer and not run.folder.is_done(step.name, inputs, outputs):
        make = build(run)
    run.keys[step.name] = run.folder.do(step.name, inputs, outputs, make, step.derived)
    if step.in_provenance:
        run.write_provenance()
