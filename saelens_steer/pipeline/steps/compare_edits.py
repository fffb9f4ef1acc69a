"""Original and patched outputs side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from sae_lens import SAE

from saelens_steer.config import CompareEditsSpec
from saelens_steer.data import prompts_hash
from saelens_steer.features import Scale
from saelens_steer.metrics import metrics_version
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.outputs import COMPARE_EDITS_OUTPUTS, write_compared_edits
from saelens_steer.progress import progress
from saelens_steer.steering import EditInputs, build_variant
from saelens_steer.sweeps import EditComparison, edits_table


def compare_edits(run: RunContext) -> Path:
    """compare_edits.csv and compare_edits.json: what each variant of the model writes; nothing without variants."""
    if run.spec.compare_edits is None:
        run.steps.drop("compare_edits", COMPARE_EDITS_OUTPUTS)
        return run.steps.folder
    inputs = [run.keys["select"], run.model_key, prompts_hash(run.prompts)]
    inputs += [run.spec.prompts.model_dump(), run.spec.compare_edits.model_dump()]
    inputs += [metrics_version(run.spec.metrics)]
    make = partial(_compare_edits, run, run.spec.compare_edits)
    run.keys["compare_edits"] = run.steps.do("compare_edits", inputs, COMPARE_EDITS_OUTPUTS, make)
    return run.steps.path("compare_edits.json")


def _compare_edits(run: RunContext, spec: CompareEditsSpec) -> None:
    sae, measurement = run.sae, run.measurement()
    known = EditInputs(sae, run.hook_name, run.candidates, _scale(run, spec, sae))
    variants = [build_variant(name, edits, known) for name, edits in spec.variants.items()]
    prompts = measurement.encoded[: spec.limit]
    job = EditComparison(run.model, prompts, variants, measurement.metrics, spec, sae)
    with progress("compare_edits", job.n_rows) as note:
        write_compared_edits(run.steps.folder, edits_table(job, note))


def _scale(run: RunContext, spec: CompareEditsSpec, sae: SAE[Any]) -> Scale:
    """What selection measured, and A_max of the features that only the edits name."""
    return run.scale_of(sae, spec.named) if spec.needs_a_max else run.scale
