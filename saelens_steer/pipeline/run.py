"""Run a config: the steps in order, each once per run folder."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from saelens_steer.config import RunSpec, draft_config
from saelens_steer.errors import REPORT_IT, InputError
from saelens_steer.files import write_text
from saelens_steer.pipeline.rules import check_config
from saelens_steer.pipeline.step import Step
from saelens_steer.pipeline.step_table import STEPS, needed, step
from saelens_steer.run_folder import TRACEBACK

if TYPE_CHECKING:
    from saelens_steer.pipeline.context import RunContext


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
    inputs are unchanged are not run again, so the same call resumes after an interruption. No file
    is deleted: one line names the files of an earlier config that stay. Raises InputError for
    anything the user can fix, before any work that would be wasted.
    """
    draft = draft_config(config, overrides)
    prompts = check_config(draft, out, until)
    from saelens_steer.pipeline.checks import checked_context  # imports torch

    context = checked_context(draft.spec, out, prompts)
    with context.folder.locked(), _traceback_in(context.folder.root / TRACEBACK):
        context.mark()
        for one in needed(until):
            carry_out(one, context)
            for other in STEPS:
                if one.name in other.repeated_after:
                    carry_out(other, context)
        context.folder.say_stale()
    return context.folder.path(step(until).writes(draft.spec)[0])


@contextlib.contextmanager
def _traceback_in(file: Path) -> Iterator[None]:
    """Write the traceback of an error that is nobody's input to a file, and note where it is."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        with contextlib.suppress(InputError):
            write_text(file, traceback.format_exc())
            error.add_note(f"{REPORT_IT} {file}")
        raise


def carry_out(step: Step, run: RunContext) -> None:
    """Run a step if the config asks for it, unless it is done."""
    if not step.is_wanted(run.spec):
        return
    inputs, outputs, build = run.inputs_of(step), step.writes(run.spec), step.builder()
    make = partial(build, run)
    if step.returns_writer and not run.folder.is_done(step.name, inputs, outputs):
        make = build(run)
    run.keys[step.name] = run.folder.do(step.name, inputs, outputs, make)
    if step.in_provenance:
        run.write_provenance()
