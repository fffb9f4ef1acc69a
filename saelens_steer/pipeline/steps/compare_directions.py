"""Ways to find directions, compared by their effects on the steered prompts."""

from __future__ import annotations

from saelens_steer.directions import ComparisonInputs, comparison_rows
from saelens_steer.evidence import comparison_table
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.steps.select import direction_finder
from saelens_steer.progress import progress
from saelens_steer.tables import write_csv, write_parquet


def compare_directions(run: RunContext) -> None:
    """Write comparison.csv: one row per way to find directions and side."""
    spec = run.spec.compare_directions
    assert spec is not None
    finder = direction_finder(run)
    with progress("finding directions", len(spec.methods)) as note:
        directions_by = []
        for method in spec.methods:
            directions_by += finder.directions_by(method, spec.k)
            note(1)
    outcome_sign = finder.scoring.outcome_sign
    signs = {finder.sides[0]: outcome_sign, finder.sides[1]: -outcome_sign}
    job = ComparisonInputs(run.measurement(), spec, run.scale, signs)
    with progress("effects of directions", None) as note:
        rows = comparison_rows(job, directions_by)
        note(len(rows))
    table = comparison_table(rows, spec.baseline, run.spec.sweep.seed)
    write_csv(run.folder.path("comparison.csv"), table)
    write_parquet(run.folder.path("comparison_rows.parquet"), rows)
