"""Outputs of the original and the edited model, side by side."""

from __future__ import annotations

from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.outputs import write_compared_edits
from saelens_steer.pipeline.steps.select import edit_context
from saelens_steer.progress import progress
from saelens_steer.steering import EditInputs, build_variant
from saelens_steer.sweeps import EditComparison, edits_table


def compare_edits(run: RunContext) -> None:
    """Write compare_edits.csv and .json, with the outputs of each variant of the model."""
    spec = run.spec.compare_edits
    assert spec is not None
    sae, measurement = run.sae, run.measurement()
    context = edit_context(run, sae, spec.edits)
    scale = run.scale_of(sae, spec.named) if spec.needs_a_max else run.scale
    inputs = EditInputs(sae, run.hook_name, run.candidates, scale, context)
    variants = [build_variant(name, edits, inputs) for name, edits in spec.variants.items()]
    prompts = measurement.encoded[: spec.limit]
    job = EditComparison(run.model, prompts, variants, measurement.metrics, spec, sae)
    with progress("compare_edits", job.n_rows) as note:
        table = edits_table(job, note).drop(columns="sample")
    write_compared_edits(run.folder.root, table)
