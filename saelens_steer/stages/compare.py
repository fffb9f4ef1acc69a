"""Ways to choose features, compared by what the chosen ones do to the steered prompts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from saelens_steer.config import CompareSpec
from saelens_steer.data import prompts_hash
from saelens_steer.directions import Comparison, comparison_rows
from saelens_steer.evidence import comparison_table
from saelens_steer.metrics import metrics_version
from saelens_steer.outputs import COMPARE_OUTPUTS, write_comparison
from saelens_steer.progress import progress
from saelens_steer.stages.run import Run
from saelens_steer.stages.select import finder, where_steered


def compare(run: Run) -> Path:
    """comparison.csv: a row per way to choose and side; nothing where the config asks for none."""
    if run.spec.compare is None:
        run.steps.drop("compare", COMPARE_OUTPUTS)
        return run.steps.folder
    inputs = [run.keys["select"], run.model_key, prompts_hash(run.prompts)]
    inputs += [run.spec.prompts.model_dump(), run.spec.compare.model_dump()]
    inputs += [run.spec.select.model_dump(), *where_steered(run), metrics_version(run.spec.metrics)]
    make = partial(_compare, run, run.spec.compare)
    run.keys["compare"] = run.steps.do("compare", inputs, COMPARE_OUTPUTS, make)
    return run.steps.path("comparison.csv")


def _compare(run: Run, spec: CompareSpec) -> None:
    find = finder(run)
    with progress("ways to choose", len(spec.methods)) as note:
        rivals = []
        for method in spec.methods:
            rivals += find.rivals(method, spec.k)
            note(1)
    favours = find.trial.favours
    signs = {find.sides[0]: favours, find.sides[1]: -favours}
    job = Comparison(run.study(), spec, run.scale, signs)
    with progress("their effects", None) as note:
        rows = comparison_rows(job, rivals)
        note(len(rows))
    table = comparison_table(rows, spec.baseline, run.spec.sweep.seed)
    write_comparison(run.steps.folder, rows, table)
