"""The SAE of a run: trained, or loaded from where the config says."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

from saelens_steer.config import LoadSpec, TrainSpec
from saelens_steer.data import load_corpus, prompts_hash, render, token_ids
from saelens_steer.files import file_digest, write_json, write_text
from saelens_steer.progress import say
from saelens_steer.sae import (
    QUALITY,
    judged,
    read_quality,
    remove_checkpoints,
    sae_fingerprint,
    sae_quality,
    save_sae,
    source_version,
    train_sae,
)
from saelens_steer.stages.run import RunContext
from saelens_steer.stages.template import template

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
