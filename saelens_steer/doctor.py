"""What a config would do, checked and put in numbers without doing it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from saelens_steer.config import RunSpec
from saelens_steer.evidence.claims import least_controls
from saelens_steer.stages import Run
from saelens_steer.sweeps import grid


def examine(spec: RunSpec) -> Iterator[str]:
    """Load the model and the prompts, check all that `run` checks, and describe the work.

    Raises InputError for what `run` would refuse.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run.begin(spec, folder)
        study = run.study()
    cfg, sweep, select = run.model.cfg, spec.sweep, spec.select
    yield f"model      {spec.model.name}: {cfg.n_layers} layers of {cfg.d_model}, on {cfg.device}"
    yield f"hook       {run.hook_name}"
    lengths = [len(ids) for ids in study.ids]
    yield f"prompts    {len(lengths)} steered, of {min(lengths)} to {max(lengths)} tokens"
    yield f"selection  {len(run.selecting)} prompts, {select.positive} against {select.negative}"
    yield f"metrics    {', '.join(m.name for m in study.metrics)}"
    chosen = sweep.features
    tested = 2 * select.k if isinstance(chosen, str) else len(chosen)
    if patch := spec.patch:
        few = len(lengths[: patch.limit])
        yield f"patch      {len(patch.variants)} variants of the model on {few} prompts"
    sizes = tested if sweep.alpha_unit == "max_act" else 1  # every A_max has controls of its own
    controls = sweep.n_controls * sizes
    rows = len(lengths) * len(grid(tested + controls, sweep.alphas))
    yield f"sweep      {tested} directions and {controls} controls: {rows:,} rows"
    needed = least_controls(tested)
    enough = "enough" if sweep.n_controls >= needed else f"too few: at least {needed} are needed"
    yield f"controls   {sweep.n_controls} for {tested} claims a metric: {enough}"
    yield "ok"
