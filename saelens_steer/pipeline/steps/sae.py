"""The SAE of a run, trained or loaded, and grids of SAEs trained on one stream of activations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.config import TrainSpec
from saelens_steer.data import PromptReader, load_corpus, token_ids
from saelens_steer.file_names import file_name
from saelens_steer.files import write_json, write_text
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.inputs import LOG
from saelens_steer.pipeline.step_table import grid_specs
from saelens_steer.progress import say
from saelens_steer.report import frontier_figure, write_figure
from saelens_steer.sae import (
    AUDIT,
    QUALITY,
    Audit,
    SAEGrid,
    audit,
    judged,
    may_not_fit,
    promises,
    read_quality,
    remove_checkpoints,
    sae_quality,
    save_sae,
    train_sae,
)
from saelens_steer.tables import write_csv

CONTEXT, QUALITY_TOKENS = 128, 20_000
"""Quality of a loaded SAE: tokens per context, and at most this many tokens of text."""


def train(run: RunContext) -> None:
    """Train or load the SAE, and save it in SAELens's format."""
    folder, sae = run.folder.path("sae"), run.spec.sae
    if sae.train:
        train_sae(run.model, sae.train, run.hook_name, folder, **sae.log.model_dump())
        _say_verdict(folder)
        return
    save_sae(run.source_sae, folder)
    del run.source_sae  # later steps read the saved one
    remove_checkpoints(folder)
    if source := run.source_with_figures:
        _copy(source, folder, LOG)


def quality(run: RunContext) -> None:
    """Write quality.json of a loaded SAE: copied if this package trained it, else measured.

    It is empty for a decoder-only SAE.
    """
    sae, folder = run.sae, run.folder.path("sae")
    if source := run.source_with_figures:
        _copy(source, folder, QUALITY)
    elif sae.cfg.metadata.decoder_only:
        write_json(folder / QUALITY, {})
    else:
        texts, size = _quality_texts(run), min(CONTEXT, run.model.cfg.n_ctx)
        n_tokens = sum(len(token_ids(run.model.tokenizer, text)) for text in texts)
        found = sae_quality(run.model, sae, run.hook_name, texts, min(size, n_tokens))
        write_json(folder / QUALITY, judged(found))
    _say_verdict(folder)


def audit_fit(run: RunContext) -> None:
    """Write audit.json: whether the SAE fits the model and hook; print any failures."""
    found = audited(run, run.sae)
    write_json(run.folder.path(f"sae/{AUDIT}"), asdict(found))
    for sentence in may_not_fit(found.failures, found.notes):
        say(f"warning: {sentence}")


def audited(run: RunContext, sae: SAE[Any]) -> Audit:
    """The audit of a run's SAE, on sae.load.corpus or, without one, the selection prompts."""
    load = run.spec.sae.load
    source = (load.source, load.sae_id) if load else (run.folder.path("sae"), None)
    return audit(
        run.model, sae, run.hook_name, _quality_texts(run), promised=promises(sae, *source)
    )


def _copy(source: Path, folder: Path, name: str) -> None:
    if (source / name).is_file():
        write_text(folder / name, (source / name).read_text(encoding="utf-8"))


def _quality_texts(run: RunContext) -> list[str]:
    """Texts of sae.load.corpus or, without one, the selection prompts with their answers."""
    tokenizer, load = run.model.tokenizer, run.spec.sae.load
    if load and load.corpus:
        return list(load_corpus(load.corpus, tokenizer, QUALITY_TOKENS, 0)["text"])
    reader = PromptReader(tokenizer, run.spec.template)
    texts = [reader.text(p) + (p.answer or "") for p in run.selection_prompts]
    lengths = [len(token_ids(tokenizer, text)) for text in texts]
    starts = itertools.accumulate(lengths, initial=0)
    return [text for text, start in zip(texts, starts, strict=False) if start < QUALITY_TOKENS]


def _say_verdict(folder: Path) -> None:
    quality = read_quality(folder)
    for sentence in filter(None, [quality.get("verdict"), *quality.get("warnings", [])]):
        say(f"SAE: {sentence}")


GRID, GRID_STEP = "grid", "grid-"
"""The folder of a grid's SAEs, and the prefix of their steps' names."""
MEASURES = (
    *("l0", "l1", "mse", "explained_variance", "cosine", "loss_recovered", "kl_recovered"),
    *("dead_share", "dense_share"),
)


def grid(run: RunContext) -> Callable[[], None]:
    """Train each SAE of the grid as its own step; the writer makes grid.csv and its figure."""
    sae = run.spec.sae
    job = SAEGrid(run.model, sae.grid_specs, run.hook_name, **sae.log.model_dump())
    _drop_others(run, set(map(file_name, sae.grid_specs)))
    for name, settings in grid_specs(run.spec).items():
        folder = f"{GRID}/{file_name(name)}"
        inputs = [run.model_key, run.hook_name, run.corpus_version, settings]
        make = partial(job.train, name, run.folder.path(folder))
        run.folder.do(f"{GRID_STEP}{file_name(name)}", inputs, [folder], make)
    return partial(_write_table, run)


def _drop_others(run: RunContext, names: set[str]) -> None:
    """Make the SAEs of an earlier grid that this one does not have stale."""
    for step in run.folder.records.steps(GRID_STEP):
        if step.removeprefix(GRID_STEP) not in names:
            run.folder.drop(step)


def _write_table(run: RunContext) -> None:
    specs = run.spec.sae.grid_specs
    table = pd.DataFrame([_row(run, name, spec) for name, spec in specs.items()])
    for name, verdict in zip(table["name"], table["verdict"], strict=True):
        say(f"{name}: {verdict}")
    write_csv(run.folder.path(f"{GRID}/grid.csv"), table)
    write_figure(run.folder.path(f"{GRID}/frontier.html"), frontier_figure(table))


def _row(run: RunContext, name: str, spec: TrainSpec) -> dict[str, Any]:
    """The row of one SAE in grid.csv."""
    quality = read_quality(run.folder.path(GRID) / file_name(name))
    about = {"name": name, "architecture": spec.architecture, "d_sae": spec.d_sae}
    about["options"] = json.dumps(spec.options, sort_keys=True)
    return about | {key: quality[key] for key in MEASURES} | {"verdict": quality["verdict"]}
