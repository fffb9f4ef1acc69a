"""The SAE of a run, trained or loaded; and grids of SAEs on one pass of activations."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.config import LoadSpec, TrainSpec
from saelens_steer.data import load_corpus, prompts_hash, render, token_ids
from saelens_steer.errors import InputError
from saelens_steer.files import file_digest, write_json, write_text
from saelens_steer.pipeline.context import RunContext, template
from saelens_steer.pipeline.outputs import FRONTIER, GRID, GRID_TABLE, write_table
from saelens_steer.progress import say
from saelens_steer.report import frontier_figure, write_figure
from saelens_steer.sae import (
    QUALITY,
    SAEGrid,
    judged,
    read_quality,
    remove_checkpoints,
    sae_fingerprint,
    sae_quality,
    save_sae,
    source_version,
    train_sae,
)

CONTEXT, MEASURED_TOKENS = 128, 20_000
"""Of the text that the quality of a loaded SAE is measured on: a context, and at most so much."""


def train(run: RunContext) -> Path:
    """The SAE, in SAELens's format: trained, or loaded from where the config says."""
    sae = run.spec.sae
    inputs = [run.model_key, run.hook_name, _chosen(run), _sae_version(run)]
    run.keys["train"] = run.steps.do("train", inputs, ["sae"], partial(_train, run))
    if sae.load and not _has_figures(sae.load) and not _has_only_its_decoder(run):
        run.keys["quality"] = _measured(run, sae.load)
    run.write_provenance(sae_fingerprint(run.steps.path("sae")))
    return run.steps.path("sae")


def sae_key(spec: TrainSpec) -> dict[str, Any]:
    """What decides a trained SAE: not whether a stopped training may go on."""
    return spec.model_dump(exclude={"resume"})


def _chosen(run: RunContext) -> dict[str, Any]:
    train, load = run.spec.sae.train, run.spec.sae.load
    if train:
        return sae_key(train)
    assert load is not None
    return load.model_dump(exclude={"corpus"})


def _measured(run: RunContext, load: LoadSpec) -> str:
    """The figures of an SAE from elsewhere, a step of its own: nothing else is built on them."""
    inputs = [run.keys["train"], load.corpus, corpus_version(load)]
    inputs += [prompts_hash(run.selecting), template(run.spec)]
    make = partial(_measure, run, run.steps.path("sae"))
    return run.steps.do("quality", inputs, [f"sae/{QUALITY}"], make)


def corpus_version(spec: TrainSpec | LoadSpec) -> str | None:
    """A digest of a local corpus, which may change under its name."""
    local = spec.corpus is not None and Path(spec.corpus).is_file()
    return file_digest(Path(str(spec.corpus))) if local else None


def _sae_version(run: RunContext) -> list[str | None]:
    """A digest of what a path names: the corpus, or a local SAE."""
    train, load = run.spec.sae.train, run.spec.sae.load
    if train:
        return [corpus_version(train)]
    assert load is not None
    return [source_version(load.source)]


def _train(run: RunContext) -> None:
    folder, sae = run.steps.path("sae"), run.spec.sae
    if sae.train:
        train_sae(run.model, sae.train, run.hook_name, folder, sae.log)
    else:
        assert sae.load is not None
        save_sae(run.load_sae(), folder)
        remove_checkpoints(folder)
        if _has_figures(sae.load):
            _copy_figures(Path(sae.load.source).expanduser(), folder)
    _say_verdict(folder)


def _has_figures(load: LoadSpec) -> bool:
    """Whether the SAE was trained here, and so has its figures beside it.

    The files of these names beside a checkpoint of others mean something else.
    """
    source = Path(load.source).expanduser()
    return (source / "sae_weights.safetensors").is_file() and "verdict" in read_quality(source)


def _has_only_its_decoder(run: RunContext) -> bool:
    """From its config: the weights may be large, and the step is mostly done already."""
    text = (run.steps.path("sae") / "cfg.json").read_text(encoding="utf-8")
    return bool((json.loads(text).get("metadata") or {}).get("decoder_only"))


def _copy_figures(source: Path, folder: Path) -> None:
    for name in (QUALITY, "metrics.jsonl"):
        if (source / name).is_file():
            write_text(folder / name, (source / name).read_text(encoding="utf-8"))


def _measure(run: RunContext, folder: Path) -> None:
    texts, size = _texts(run), min(CONTEXT, run.model.cfg.n_ctx)
    n_tokens = sum(len(token_ids(run.model.tokenizer, text)) for text in texts)
    quality = sae_quality(run.model, run.sae, run.hook_name, texts, min(size, n_tokens))
    write_json(folder / QUALITY, judged(quality))
    _say_verdict(folder)


def _texts(run: RunContext) -> list[str]:
    """Text of the config's corpus, or the selection prompts with their answers; up to a limit."""
    tokenizer, load = run.model.tokenizer, run.spec.sae.load
    assert load is not None
    if load.corpus:
        return list(load_corpus(load.corpus, tokenizer, MEASURED_TOKENS, 0)["text"])
    written_as = template(run.spec)
    texts = [render(tokenizer, p, **written_as) + (p.answer or "") for p in run.selecting]
    lengths = [len(token_ids(tokenizer, text)) for text in texts]
    ends = itertools.accumulate(lengths, initial=0)
    return [text for text, end in zip(texts, ends, strict=False) if end < MEASURED_TOKENS]


def _say_verdict(folder: Path) -> None:
    quality = read_quality(folder)
    for sentence in filter(None, [quality.get("verdict"), *quality.get("warnings", [])]):
        say(f"SAE: {sentence}")


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
