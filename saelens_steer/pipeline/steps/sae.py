"""The SAE of a run, trained or loaded; and grids of SAEs on one pass of activations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from saelens_steer.config import TrainSpec
from saelens_steer.data import load_corpus, render, token_ids
from saelens_steer.files import write_json, write_text
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.outputs import write_table
from saelens_steer.pipeline.step_table import grid_specs
from saelens_steer.progress import say
from saelens_steer.report import frontier_figure, write_figure
from saelens_steer.sae import (
    QUALITY,
    SAEGrid,
    judged,
    read_quality,
    remove_checkpoints,
    sae_quality,
    save_sae,
    train_sae,
)

CONTEXT, MEASURED_TOKENS = 128, 20_000
"""Of the text that the quality of a loaded SAE is measured on: a context, and at most so much."""


def train(run: RunContext) -> None:
    """The SAE, in SAELens's format: trained, or loaded from where the config says."""
    folder, sae = run.folder.path("sae"), run.spec.sae
    if sae.train:
        train_sae(run.model, sae.train, run.hook_name, folder, **sae.log.model_dump())
        _say_verdict(folder)
        return
    save_sae(run.load_sae(), folder)
    remove_checkpoints(folder)
    if source := run.source_with_figures:
        _copy(source, folder, "metrics.jsonl")


def quality(run: RunContext) -> None:
    """The figures of a loaded SAE: those beside it if it was trained here, or else measured.

    There are none for an SAE that has only its decoder.
    """
    sae, folder = run.sae, run.folder.path("sae")
    if source := run.source_with_figures:
        _copy(source, folder, QUALITY)
    elif sae.cfg.metadata.decoder_only:
        write_json(folder / QUALITY, {})
    else:
        texts, size = _texts(run), min(CONTEXT, run.model.cfg.n_ctx)
        n_tokens = sum(len(token_ids(run.model.tokenizer, text)) for text in texts)
        found = sae_quality(run.model, sae, run.hook_name, texts, min(size, n_tokens))
        write_json(folder / QUALITY, judged(found))
    _say_verdict(folder)


def _copy(source: Path, folder: Path, name: str) -> None:
    if (source / name).is_file():
        write_text(folder / name, (source / name).read_text(encoding="utf-8"))


def _texts(run: RunContext) -> list[str]:
    """Text of the config's corpus, or the selection prompts with their answers; up to a limit."""
    tokenizer, load = run.model.tokenizer, run.spec.sae.load
    assert load is not None
    if load.corpus:
        return list(load_corpus(load.corpus, tokenizer, MEASURED_TOKENS, 0)["text"])
    written_as = run.spec.template
    texts = [render(tokenizer, p, **written_as) + (p.answer or "") for p in run.selecting]
    lengths = [len(token_ids(tokenizer, text)) for text in texts]
    ends = itertools.accumulate(lengths, initial=0)
    return [text for text, end in zip(texts, ends, strict=False) if end < MEASURED_TOKENS]


def _say_verdict(folder: Path) -> None:
    quality = read_quality(folder)
    for sentence in filter(None, [quality.get("verdict"), *quality.get("warnings", [])]):
        say(f"SAE: {sentence}")


GRID, GRID_STEP = "grid", "grid-"
"""The folder of the SAEs of a grid, and what the names of their steps begin with."""
MEASURES = (
    *("l0", "l1", "mse", "explained_variance", "cosine", "loss_recovered", "kl_recovered"),
    *("dead_share", "dense_share"),
)


def grid(run: RunContext) -> Callable[[], None]:
    """grid/NAME, an SAE each and a step each; then grid/grid.csv, one row each, and a figure."""
    sae = run.spec.sae
    job = SAEGrid(run.model, sae.grid_specs, run.hook_name, **sae.log.model_dump())
    _forget_others(run, set(sae.grid_specs))
    for name, made_from in grid_specs(run.spec).items():
        folder = f"{GRID}/{name}"
        inputs = [run.model_key, run.hook_name, run.corpus_version, made_from]
        make = partial(job.train, name, run.folder.path(folder))
        run.folder.do(f"{GRID_STEP}{name}", inputs, [folder], make)
    run.write_provenance()
    return partial(_compare, run)


def _forget_others(run: RunContext, names: set[str]) -> None:
    """Remove the SAEs that an earlier grid trained and this one does not have."""
    for step in run.folder.names(GRID_STEP):
        if step.removeprefix(GRID_STEP) not in names:
            made = run.folder.made(step)  # not by the step's name, which may be any
            run.folder.drop(step, [left for folder in made for left in _beside(folder)])


def _beside(folder: str) -> tuple[str, str]:
    """What training the SAE of this folder may have left: checkpoints and curves."""
    place = PurePosixPath(folder)
    return f"{folder}-checkpoints", str(place.parent / "tensorboard" / place.name)


def _compare(run: RunContext) -> None:
    specs = run.spec.sae.grid_specs
    table = pd.DataFrame([_row(run, name, spec) for name, spec in specs.items()])
    for name, said in zip(table["name"], table["verdict"], strict=True):
        say(f"{name}: {said}")
    write_table(run.folder.path(f"{GRID}/grid.csv"), table)
    write_figure(run.folder.path(f"{GRID}/frontier.html"), frontier_figure(table))


def _row(run: RunContext, name: str, spec: TrainSpec) -> dict[str, Any]:
    """What grid.csv says of one SAE."""
    quality = read_quality(run.folder.path(GRID) / name)
    about = {"name": name, "architecture": spec.architecture, "d_sae": spec.d_sae}
    about["options"] = json.dumps(spec.options, sort_keys=True)
    return about | {key: quality[key] for key in MEASURES} | {"verdict": quality["verdict"]}
