"""Training an SAE through SAELens's LanguageModelSAETrainingRunner, with our model and tokens."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from saelens_steer.config import TrainSpec
from saelens_steer.data import load_corpus, token_ids
from saelens_steer.errors import InputError
from saelens_steer.files import write_json, write_jsonl, write_with
from saelens_steer.model import check_stream
from saelens_steer.sae.load import load_sae, settled
from saelens_steer.sae.normalise import FOLDABLE, Scaling, fold_decoder_norms, fold_scaling
from saelens_steer.sae.quality import sae_quality
from saelens_steer.sae.runner import Runner, held_out_tokens
from saelens_steer.sae.trainer_config import check_train_spec, runner_config

HELD_OUT_SHARE, HELD_OUT_TEXTS = 0.02, 500
"""Of the corpus, and at the most."""
HELD_OUT_TOKENS = 10_000
SPARE = {"all": 1.5, "diagnostic": 50.0}
"""Tokens of text for each activation to cache: some are special, few are diagnostic."""


def train_sae(model: Any, spec: TrainSpec, hook_name: str, out: str | Path) -> SAE[Any]:
    """Train an SAE on the activations at `hook_name`, save it to the folder `out`, return it.

    `out` holds SAELens's own format (`SAE.load_from_disk` reads it), metrics.jsonl (loss, L0 and
    explained variance every few steps; with cached_tokens also the epoch, and at its end the loss
    on held-out activations; losses are in the units trained in) and quality.json (see
    `sae_quality`; on texts of the corpus that were not trained on; with cached_tokens also the
    epochs run and whether they stopped early). The SAE reads activations as they are, also with
    normalize mean_scale. Rows of W_dec have unit norm where SAELens can fold it into the encoder.
    SAELens's `seed` seeds nothing, so torch is seeded here. Raises InputError for an unknown hook,
    architecture or option before any training, and for a corpus that does not fill the cache.
    """
    check_stream(model, hook_name)
    check_train_spec(spec)
    corpus = load_corpus(spec.corpus, model.tokenizer, _text_tokens(spec), spec.seed)
    training, held_out = split_corpus(corpus)
    for texts in (training, held_out):
        _refuse_too_little(texts, model.tokenizer, spec.context_size)

    def write(folder: Path) -> None:
        ending = _train_into(folder, model, spec, hook_name, training)
        _measure_in(folder, model, spec, hook_name, held_out, ending)

    return load_sae(write_with(Path(out), write), device=str(model.cfg.device))


def _text_tokens(spec: TrainSpec) -> int:
    """Tokens of text to load: fresh ones for the whole training, or what fills the cache."""
    if spec.cached_tokens is None:
        return spec.training_tokens + HELD_OUT_TOKENS
    kept = spec.cached_tokens + held_out_tokens(spec.cached_tokens)
    return round(SPARE[spec.tokens] * kept) + HELD_OUT_TOKENS


def _train_into(
    folder: Path, model: Any, spec: TrainSpec, hook_name: str, corpus: Any
) -> dict[str, int | float]:
    with torch.random.fork_rng(), warnings.catch_warnings(), _without_chatter():
        warnings.filterwarnings("ignore", module="sae_lens.training.activations_store")
        torch.manual_seed(spec.seed)
        runner = Runner(runner_config(spec, model, hook_name, folder), corpus, model, spec)
        runner.run()
    write_jsonl(folder / "metrics.jsonl", runner.log)
    _fold_into(folder, runner.scaling)
    for config in sorted(folder.glob("*cfg.json")):
        settled(config)
    return runner.ending


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """SAELens warns that a model and a corpus were passed in, which is what we mean to do."""
    logger = logging.getLogger("sae_lens")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _fold_into(folder: Path, scaling: Scaling | None) -> None:
    """Fold decoder norms, and the scaling of the activations, into the saved SAE."""
    sae = SAE.load_from_disk(str(folder))
    if sae.cfg.architecture() not in FOLDABLE and scaling is None:
        return
    fold_decoder_norms(sae)
    if scaling is not None:
        fold_scaling(sae, scaling)
    sae.save_model(str(folder))


def _measure_in(
    folder: Path,
    model: Any,
    spec: TrainSpec,
    hook_name: str,
    corpus: Any,
    ending: dict[str, int | float],
) -> None:
    sae = load_sae(folder, device=str(model.cfg.device))
    if not all(weight.isfinite().all() for weight in sae.parameters()):
        raise InputError("the SAE's weights are not finite after training: lower sae.train.lr")
    texts, size = corpus["text"], spec.context_size
    quality = sae_quality(model, sae, hook_name, texts, size, spec.max_norm)
    write_json(folder / "quality.json", quality | ending)


def _refuse_too_little(corpus: Any, tokenizer: Any, context_size: int) -> None:
    n_tokens = 0
    for row in corpus:
        n_tokens += len(token_ids(tokenizer, row["text"]))
        if n_tokens > context_size:
            return
    raise InputError(
        f"{len(corpus)} texts of the corpus, with {n_tokens} tokens, do not fill a context of "
        f"{context_size}: give a larger corpus or a smaller context_size"
    )


def split_corpus(corpus: Any) -> tuple[Any, Any]:
    """Texts to train on, and the last 2 % (1 to 500 texts) held out. One text is refused."""
    if len(corpus) < 2:
        raise InputError("the corpus has only one text: one more is needed to measure the SAE on")
    held_out = min(max(1, round(len(corpus) * HELD_OUT_SHARE)), HELD_OUT_TEXTS)
    cut = len(corpus) - held_out
    return corpus.select(range(cut)), corpus.select(range(cut, len(corpus)))
