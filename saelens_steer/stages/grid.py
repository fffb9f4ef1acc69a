"""A grid of SAEs on one pass of activations, and where each stands between sparse and faithful."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.config import TrainSpec
from saelens_steer.errors import InputError
from saelens_steer.outputs import FRONTIER, GRID, GRID_TABLE, write_table
from saelens_steer.progress import say
from saelens_steer.report import frontier_figure, write_figure
from saelens_steer.sae import SAEGrid, read_quality, sae_fingerprint
from saelens_steer.stages.run import RunContext
from saelens_steer.stages.sae import corpus_version, sae_key

STEP = "grid-"
"""What the steps of its SAEs begin with."""
TABLES = (GRID_TABLE, FRONTIER)
MEASURES = (
    *("l0", "l1", "mse", "explained_variance", "cosine", "loss_recovered", "kl_recovered"),
    *("dead_share", "dense_share"),
)


def grid(run: RunContext) -> Path:
    """grid/NAME, an SAE each; grid/grid.csv, one row each; grid/frontier.html."""
    sae = run.spec.sae
    if not sae.grid:
        raise InputError("the config has no sae.grid: say which architectures and sparsities")
    job, made_from = SAEGrid(run.model, sae.grid_specs, run.hook_name, sae.log), _inputs(run)
    _forget_others(run, set(made_from))
    for name, inputs in made_from.items():
        folder = f"{GRID}/{name}"
        make = partial(job.train, name, run.steps.path(folder))
        run.steps.do(f"{STEP}{name}", inputs, [folder], make)
    run.steps.do("grid", [made_from], TABLES, partial(_compare, run))
    if run.steps.path("sae").is_dir():
        run.write_provenance(sae_fingerprint(run.steps.path("sae")))
    return run.steps.path(GRID_TABLE)


def drop_stale_grid(run: RunContext) -> None:
    """Take away the table of a grid that is not the one of this run; its SAEs stay."""
    there = any(run.steps.path(table).exists() for table in TABLES)
    if there and not run.steps.is_current("grid", [_inputs(run)]):
        run.steps.drop("grid", TABLES)


def _inputs(run: RunContext) -> dict[str, list[object]]:
    """What each SAE of the grid is made from."""
    train = run.spec.sae.train
    shared = [run.model_key, run.hook_name, corpus_version(train) if train else None]
    specs = run.spec.sae.grid_specs
    return {name: [*shared, sae_key(spec)] for name, spec in specs.items()}


def _forget_others(run: RunContext, names: set[str]) -> None:
    """Take away the SAEs that an earlier grid trained and this one does not have."""
    for step in run.steps.names(STEP):
        name = step.removeprefix(STEP)
        if name not in names:
            left = (name, f"{name}-checkpoints", f"tensorboard/{name}")
            run.steps.drop(step, [f"{GRID}/{one}" for one in left])


def _compare(run: RunContext) -> None:
    specs = run.spec.sae.grid_specs
    table = pd.DataFrame([_row(run, name, spec) for name, spec in specs.items()])
    for name, said in zip(table["name"], table["verdict"], strict=True):
        say(f"{name}: {said}")
    write_table(run.steps.path(GRID_TABLE), table)
    write_figure(run.steps.path(FRONTIER), frontier_figure(table))


def _row(run: RunContext, name: str, spec: TrainSpec) -> dict[str, Any]:
    """What grid.csv says of one SAE."""
    quality = read_quality(run.steps.path(GRID) / name)
    about = {"name": name, "architecture": spec.architecture, "d_sae": spec.d_sae}
    about["options"] = json.dumps(spec.options, sort_keys=True)
    return about | {key: quality[key] for key in MEASURES} | {"verdict": quality["verdict"]}
