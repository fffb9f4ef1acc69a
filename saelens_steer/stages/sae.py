"""The SAE of a run: trained, or loaded from where the config says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from saelens_steer.config import LoadSpec, TrainSpec
from saelens_steer.data import load_corpus, prompts_hash, render, token_ids
from saelens_steer.files import file_digest, write_json, write_text
from saelens_steer.progress import say
from saelens_steer.sae import (
    QUALITY,
    judged,
    read_quality,
    sae_fingerprint,
    sae_quality,
    save_sae,
    source_version,
    train_sae,
)
from saelens_steer.stages.run import Run
from saelens_steer.stages.template import template

CONTEXT, MEASURED_TOKENS = 128, 20_000
"""Of the text that the quality of a loaded SAE is measured on: a context, and at most so much."""


def train(run: Run) -> Path:
    """The SAE, in SAELens's format: trained, or loaded from where the config says."""
    sae = run.spec.sae
    spec = sae.train or sae.load
    assert spec is not None
    inputs = [run.model_key, run.hook_name, spec.model_dump(), _sae_version(run)]
    if sae.load:
        inputs += [prompts_hash(run.selecting), template(run.spec)]
    run.keys["train"] = run.steps.do("train", inputs, ["sae"], partial(_train, run))
    run.write_provenance(sae_fingerprint(run.steps.path("sae")))
    return run.steps.path("sae")


def corpus_version(spec: TrainSpec | LoadSpec) -> str | None:
    """A digest of a local corpus, which may change under its name."""
    local = spec.corpus is not None and Path(spec.corpus).is_file()
    return file_digest(Path(str(spec.corpus))) if local else None


def _sae_version(run: Run) -> list[str | None]:
    """Digests of what a path names: the corpus, and a local SAE."""
    train, load = run.spec.sae.train, run.spec.sae.load
    if train:
        return [corpus_version(train)]
    assert load is not None
    return [corpus_version(load), source_version(load.source)]


def _train(run: Run) -> None:
    folder = run.steps.path("sae")
    if run.spec.sae.train:
        train_sae(run.model, run.spec.sae.train, run.hook_name, folder, run.spec.sae.log)
    else:
        save_sae(run.load_sae(), folder)
        _copy_figures(run, folder)
        if not (folder / QUALITY).exists():
            _measure(run, folder)
    _say_verdict(folder)


def _copy_figures(run: Run, folder: Path) -> None:
    """The figures that an SAE trained here has beside it."""
    assert run.spec.sae.load is not None
    source = Path(run.spec.sae.load.source).expanduser()
    if not (source / "sae_weights.safetensors").is_file():
        return  # a checkpoint of others, whose files of these names mean something else
    for name in (QUALITY, "metrics.jsonl"):
        if (source / name).is_file():
            write_text(folder / name, (source / name).read_text(encoding="utf-8"))


def _measure(run: Run, folder: Path) -> None:
    """The figures of an SAE from elsewhere, on text of the config or on the selection prompts."""
    sae = run.sae
    if sae.cfg.metadata.decoder_only:
        return
    texts = _texts(run)
    n_tokens = sum(len(token_ids(run.model.tokenizer, text)) for text in texts)
    quality = sae_quality(run.model, sae, run.hook_name, texts, min(CONTEXT, n_tokens))
    write_json(folder / QUALITY, judged(quality))


def _texts(run: Run) -> Sequence[str]:
    tokenizer, load = run.model.tokenizer, run.spec.sae.load
    assert load is not None
    if load.corpus:
        return list(load_corpus(load.corpus, tokenizer, MEASURED_TOKENS, 0)["text"])
    written_as = template(run.spec)
    return [render(tokenizer, p, **written_as) + (p.answer or "") for p in run.selecting]


def _say_verdict(folder: Path) -> None:
    quality = read_quality(folder)
    for sentence in filter(None, [quality.get("verdict"), *quality.get("warnings", [])]):
        say(f"SAE: {sentence}")
