"""A grid of SAEs on one pass of activations, and where each stands between sparse and faithful."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.config import TrainSpec
from saelens_steer.errors import InputError
from saelens_steer.files import remove, write_with
from saelens_steer.outputs import GRID, GRID_TABLE
from saelens_steer.report import frontier_figure, write_figure
from saelens_steer.sae import Grid, read_quality
from saelens_steer.stages.run import Run
from saelens_steer.stages.sae import corpus_version

MEASURES = (
    *("l0", "l1", "mse", "explained_variance", "cosine", "loss_recovered", "kl_recovered"),
    *("dead_share", "dense_share"),
)


def grid(run: Run) -> Path:
    """grid/NAME, an SAE each; grid/grid.csv, one row each; grid/frontier.html."""
    sae = run.spec.sae
    if not sae.grid:
        raise InputError("the config has no sae.grid: say which architectures and sparsities")
    specs = sae.grid_specs
    job = Grid(run.model, specs, run.hook_name, sae.log)
    _forget_others(run, specs)
    for name, spec in specs.items():
        inputs = [run.model_key, run.hook_name, spec.model_dump(), corpus_version(spec)]
        folder = f"{GRID}/{name}"
        run.steps.do(
            f"grid-{name}", inputs, [folder], partial(job.train, name, run.steps.path(folder))
        )
    table = pd.DataFrame([_row(run, name, spec) for name, spec in specs.items()])
    path = run.steps.path(GRID_TABLE)
    write_with(path, lambda temporary: table.to_csv(temporary, index=False))
    write_figure(path.with_name("frontier.html"), frontier_figure(table))
    return path


def _forget_others(run: Run, specs: dict[str, TrainSpec]) -> None:
    """Take away the SAEs of an earlier grid that this one does not have."""
    for folder in run.steps.path(GRID).glob("*/"):
        name = folder.name.removesuffix("-checkpoints")
        if name not in specs and name != "tensorboard":
            remove(folder)


def _row(run: Run, name: str, spec: TrainSpec) -> dict[str, Any]:
    """What grid.csv says of one SAE."""
    quality = read_quality(run.steps.path(GRID) / name)
    about = {"name": name, "architecture": spec.architecture, "d_sae": spec.d_sae}
    about["options"] = json.dumps(spec.options, sort_keys=True)
    return about | {key: quality[key] for key in MEASURES} | {"verdict": quality["verdict"]}
