"""Ways to choose features, compared by what the chosen ones do to the steered prompts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from saelens_steer.config import CompareDirectionsSpec
from saelens_steer.data import prompts_hash
from saelens_steer.directions import Comparison, comparison_rows
from saelens_steer.evidence import comparison_table
from saelens_steer.metrics import metrics_version
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.outputs import COMPARE_DIRECTIONS_OUTPUTS, write_comparison
from saelens_steer.pipeline.steps.select import direction_finder, where_steered
from saelens_steer.progress import progress


def compare(run: RunContext) -> Path:
    """comparison.csv: a row per way to choose and side; nothing where the config asks for none."""
    if run.spec.compare_directions is None:
        run.steps.drop("compare_directions", COMPARE_DIRECTIONS_OUTPUTS)
        return run.steps.folder
    inputs = [run.keys["select"], run.model_key, prompts_hash(run.prompts)]
    inputs += [run.spec.prompts.model_dump(), run.spec.compare_directions.model_dump()]
    inputs += [run.spec.select.model_dump(), *where_steered(run), metrics_version(run.spec.metrics)]
    make = partial(_compare, run, run.spec.compare_directions)
    run.keys["compare_directions"] = run.steps.do(
        "compare_directions", inputs, COMPARE_DIRECTIONS_OUTPUTS, make
    )
    return run.steps.path("comparison.csv")


def _compare(run: RunContext, spec: CompareDirectionsSpec) -> None:
    finder = direction_finder(run)
    with progress("ways to choose", len(spec.methods)) as note:
        directions_by = []
        for method in spec.methods:
            directions_by += finder.directions_by(method, spec.k)
            note(1)
    favours = finder.scoring.favours
    signs = {finder.sides[0]: favours, finder.sides[1]: -favours}
    job = Comparison(run.measurement(), spec, run.scale, signs)
    with progress("their effects", None) as note:
        rows = comparison_rows(job, directions_by)
        note(len(rows))
    table = comparison_table(rows, spec.baseline, run.spec.sweep.seed)
    write_comparison(run.steps.folder, rows, table)
