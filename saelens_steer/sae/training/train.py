"""Train an SAE, or a grid of them on one pass of activations."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from saelens_steer.config import LogSpec, TrainSpec
from saelens_steer.data import load_corpus, token_ids
from saelens_steer.errors import InputError
from saelens_steer.files import replacing, write_json, write_jsonl
from saelens_steer.model import check_stream, model_fingerprint
from saelens_steer.sae.load import load_sae, settled
from saelens_steer.sae.quality import sae_quality
from saelens_steer.sae.training.activation_stream import Cache
from saelens_steer.sae.training.config import check_train_spec, runner_config
from saelens_steer.sae.training.log import check_log, sinks
from saelens_steer.sae.training.resume import checkpoint_folder, remove_checkpoints, texts_digest
from saelens_steer.sae.training.runner import Runner, gather, held_out_tokens
from saelens_steer.sae.training.scaling import fold_into
from saelens_steer.sae.verdict import QUALITY, judged
from saelens_steer.version import __version__

NO_LOG = LogSpec()
HELD_OUT_SHARE, HELD_OUT_TEXTS = 0.02, 500
"""The share of the corpus held out, and the most texts."""
HELD_OUT_LEAST, MOST_SHARE = 5_000, 0.1
"""Tokens that a larger share of a small corpus is held out for, and the largest share."""
HELD_OUT_TOKENS = 10_000
SPARE = {"all": 1.5, "diagnostic": 50.0}
"""Tokens of text for each activation to cache: some are special, few are diagnostic."""


def train_sae(
    model: Any, spec: TrainSpec, hook_name: str, out: str | Path, log: LogSpec = NO_LOG
) -> SAE[Any]:
    """Train an SAE on the activations at `hook_name`, save it to the folder `out`, return it.

    `out` holds SAELens's own format (`SAE.load_from_disk` reads it), metrics.jsonl (loss, L0 and
    explained variance every few steps, now and then also of held-out activations; with
    cached_tokens also the epoch; losses are in the units trained in) and quality.json (see
    `sae_quality`; on texts of the corpus that were not trained on; with a verdict and warnings in
    plain words). `log`: the loggers that receive the lines. The SAE reads activations as they are,
    also with normalize mean_scale. Rows of W_dec have unit norm if SAELens can fold it into the
    encoder. SAELens's `seed` seeds nothing, so torch is seeded here. Raises InputError for an
    unknown hook, architecture or option before any training, and for a corpus that does not fill
    the cache.
    """
    check_stream(model, hook_name)
    check_train_spec(spec)
    check_log(log)
    return Training(model, spec, hook_name, Path(out), *load_texts(model, spec), log).carry_out()


def load_texts(model: Any, spec: TrainSpec) -> tuple[Any, Any]:
    """Texts to train on and texts held out. Raises InputError if either fills no context."""
    corpus = load_corpus(spec.corpus, model.tokenizer, _text_tokens(spec), spec.seed)
    least = min(MOST_SHARE, HELD_OUT_LEAST / _text_tokens(spec))
    training, held_out = split_corpus(corpus, max(HELD_OUT_SHARE, least))
    for texts in (training, held_out):
        _refuse_too_little(texts, model.tokenizer, spec.context_size)
    return training, held_out


def _text_tokens(spec: TrainSpec) -> int:
    """Tokens of text to load: fresh ones for the whole training, or what fills the cache."""
    if spec.cached_tokens is None:
        return spec.training_tokens + HELD_OUT_TOKENS
    kept = spec.cached_tokens + held_out_tokens(spec.cached_tokens)
    return round(SPARE[spec.tokens] * kept) + HELD_OUT_TOKENS


@dataclass(frozen=True)
class Training:
    """One training: its inputs, and the folder its SAE is written to."""

    model: Any
    spec: TrainSpec
    hook_name: str
    out: Path
    texts: Any
    held_out: Any
    log: LogSpec = NO_LOG
    cache: Cache | None = None
    """The activations, if they are computed already."""

    def carry_out(self) -> SAE[Any]:
        """Train, measure, save: all of the folder or nothing of it."""
        checkpoints = self._checkpoints()
        with replacing(self.out) as folder:
            self._measure_in(folder, self._train_into(folder, checkpoints))
        remove_checkpoints(self.out)
        return load_sae(self.out, device=str(self.model.cfg.device))

    def _checkpoints(self) -> Path | None:
        if not self.spec.resume:
            remove_checkpoints(self.out)
            return None
        made_from = [self.spec.model_dump(), self.hook_name, model_fingerprint(self.model)]
        made_from += [__version__, version("sae-lens"), version("torch")]
        texts = (text for part in (self.texts, self.held_out) for text in part["text"])
        return checkpoint_folder(self.out, *made_from, texts_digest(texts))

    def _train_into(self, folder: Path, checkpoints: Path | None = None) -> Runner:
        spec, model = self.spec, self.model
        config = runner_config(spec, model, self.hook_name, folder, checkpoints)
        resumed = config.resume_from_checkpoint is not None
        with (
            torch.random.fork_rng(),
            without_chatter(),
            sinks(self.log, self.out, spec.model_dump(), resumed) as found,
        ):
            torch.manual_seed(spec.seed)
            given = {"held_out": self.held_out, "cache": self.cache, "sinks": found}
            runner = Runner(config, self.texts, model, spec, **given)
            runner.run()
        write_jsonl(folder / "metrics.jsonl", runner.log)
        fold_into(folder, runner.scaling)
        for path in sorted(folder.glob("*cfg.json")):
            settled(path)
        return runner

    def _measure_in(self, folder: Path, runner: Runner) -> None:
        sae = load_sae(folder, device=str(self.model.cfg.device))
        if not all(weight.isfinite().all() for weight in sae.parameters()):
            raise InputError("the SAE's weights are not finite after training: lower sae.train.lr")
        size, most = self.spec.context_size, self.spec.max_norm
        quality = sae_quality(self.model, sae, self.hook_name, self.held_out["text"], size, most)
        write_json(folder / QUALITY, judged(quality, runner.log) | runner.ending)


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Silence SAELens's warnings that a model and a corpus were passed in, as intended."""
    logger = logging.getLogger("sae_lens")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="sae_lens.training.activations_store")
            yield
    finally:
        logger.setLevel(level)


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


def split_corpus(corpus: Any, share: float = HELD_OUT_SHARE) -> tuple[Any, Any]:
    """Texts to train on, and the last 2 % (1 to 500 texts) held out. One text is refused."""
    if len(corpus) < 2:
        raise InputError("the corpus has only one text: one more is needed to measure the SAE on")
    held_out = min(max(1, round(len(corpus) * share)), HELD_OUT_TEXTS)
    cut = len(corpus) - held_out
    return corpus.select(range(cut)), corpus.select(range(cut, len(corpus)))


SHARED = ("corpus", "tokens", "cached_tokens", "context_size", "max_norm", "batch_tokens", "seed")
"""Settings that the SAEs of a grid share: they decide the activations and their order."""


class SAEGrid:
    """The SAEs of some specs, each trained when asked for; activations are computed once, then.

    specs: name → spec, each with cached_tokens; memory holds the cache that one of them takes.
    Raises InputError for an unknown hook, architecture or option, and for specs that differ in
    what decides the activations.
    """

    def __init__(
        self, model: Any, specs: Mapping[str, TrainSpec], hook_name: str, log: LogSpec = NO_LOG
    ) -> None:
        check_stream(model, hook_name)
        check_log(log)
        if not specs:
            raise InputError("the grid has no SAE: give sae.grid an architecture")
        first = next(iter(specs.values()))
        for spec in specs.values():
            check_train_spec(spec)
            if any(getattr(spec, key) != getattr(first, key) for key in SHARED):
                raise InputError(f"the SAEs of a grid must have one {', '.join(SHARED)}")
        if first.cached_tokens is None:
            raise InputError("the SAEs of a grid share cached activations: give cached_tokens")
        self.model, self.specs, self.hook_name, self.log = model, dict(specs), hook_name, log
        self.first = first

    def train(self, name: str, out: str | Path) -> SAE[Any]:
        """The SAE of this name, saved to the folder `out` as `train_sae` does."""
        about = self.model, self.specs[name], self.hook_name, Path(out), *self._texts, self.log
        return Training(*about, self._cache).carry_out()

    @cached_property
    def _texts(self) -> tuple[Any, Any]:
        return load_texts(self.model, self.first)

    @cached_property
    def _cache(self) -> Cache:
        config = runner_config(self.first, self.model, self.hook_name, Path("unused"))
        with torch.random.fork_rng(), without_chatter(), torch.no_grad():
            return gather(Runner(config, self._texts[0], self.model, self.first))
