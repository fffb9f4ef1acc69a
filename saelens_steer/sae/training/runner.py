"""SAELens's training runner on our activation stream, with our log and resuming."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from sae_lens import LanguageModelSAETrainingRunner
from sae_lens.training.activations_store import ActivationsStore
from sae_lens.training.mixing_buffer import mixing_buffer

from saelens_steer.config import TrainSpec
from saelens_steer.files import digest, read_json
from saelens_steer.model import model_fingerprint, tokenizer_digest, weights_digest
from saelens_steer.progress import Note, is_terminal, progress
from saelens_steer.sae.training.activation_stream import (
    ActivationStream,
    Cache,
    at_least,
    cached,
    epochs,
    kept_in,
)
from saelens_steer.sae.training.config import BUFFER_BATCHES
from saelens_steer.sae.training.log import Logger, held_out_line, log_line
from saelens_steer.sae.training.resume import STATE, keep_state, texts_digest
from saelens_steer.sae.training.scaling import Scaling, scaling_of
from saelens_steer.tensors import Vectors
from saelens_steer.version import __version__

LOG_EVERY, LOG_LINES = 5, 2000
"""Steps between log lines, and the number of lines above which the interval grows."""
MEASURED = 20
"""Log lines that also measure held-out activations, spread over the training."""
STATISTICS_TOKENS = 50_000
"""Activations that mean and scale are estimated from if nothing is cached."""
HELD_OUT_SHARE, HELD_OUT_CACHED = 0.05, 10_000
"""Share of the cached activations held out to measure each epoch on, and the maximum number."""
HELD_OUT_FRESH = 5_000
"""Activations of held-out texts to measure on if nothing is cached."""
IMPROVEMENT = 0.001
"""Smallest relative drop of the best loss that counts as an improvement."""


class Runner(LanguageModelSAETrainingRunner):
    """SAELens's runner, training on an `ActivationStream`.

    held_out: texts to measure on if nothing is cached. cache: precomputed activations, held-out
    ones first. After `run`, `log` holds the lines of metrics.jsonl, `scaling` the normalisation to
    fold, and `summary` what quality.json adds: for cached activations the epochs run and whether
    patience stopped them early; for a resumed training the token counts at which it resumed.
    """

    def __init__(
        self,
        config: Any,
        corpus: Any,
        model: Any,
        spec: TrainSpec,
        *,
        held_out: Any = None,
        cache: Cache | None = None,
        loggers: Sequence[Logger] = (),
    ) -> None:
        super().__init__(config, override_dataset=corpus, override_model=model)
        self.spec, self.dtype, self.loggers = spec, model.cfg.dtype, loggers
        self.texts, self.held_out_texts, self.cache = corpus, held_out, cache
        if spec.frozen_decoder:
            self.sae.W_dec.requires_grad_(False)
            self.sae.cfg.metadata.frozen_decoder = True
        self.stream = ActivationStream(self.activations_store, model.tokenizer, spec)
        self.scaling: Scaling | None = None
        self.held_out: Vectors | None = None
        self.patience = Patience(spec.patience)
        self.log: list[dict[str, int | float]] = []
        self.resumed_at: list[int] = []
        self.summary: dict[str, Any] = {}

    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        if self.cfg.resume_from_checkpoint is not None:
            self._restore(Path(self.cfg.resume_from_checkpoint))
        self.trainer = trainer
        is_cached = self.spec.cached_tokens is not None
        seen = trainer.n_training_samples
        trainer.data_provider = self._cached(seen) if is_cached else self._fresh()
        every = max(LOG_EVERY, trainer.cfg.total_training_steps // LOG_LINES)
        self._log_steps(trainer, every)
        with progress("training", 0 if is_terminal() else self.spec.training_tokens) as note:
            note(seen)
            trainer._update_pbar = lambda _, bar: self._update_bar(trainer, bar, every, note)
            sae = trainer.fit()
        if is_cached:
            early = trainer.n_training_samples < self.spec.training_tokens
            self.summary = {"epochs": self.epochs(trainer), "stopped_early": early}
        if self.resumed_at:
            self.summary["resumed_at_tokens"] = self.resumed_at
        return sae

    def _log_steps(self, trainer: Any, every: int) -> None:
        """Wrap the trainer's step to log, and to stop when patience runs out."""
        step = trainer.step
        n_lines = trainer.cfg.total_training_steps / every
        measure_every = every * max(1, math.ceil(n_lines / MEASURED))

        def logged_step(batch: torch.Tensor) -> Any:
            before = self.epochs(trainer)
            output = step(batch)
            ended = int(self.epochs(trainer)) > int(before)
            if ended or trainer.n_training_steps % every == 0:
                measured = ended or trainer.n_training_steps % measure_every == 0
                self.log.append(self._line(trainer, output, measured))
                for logger in self.loggers:
                    logger(self.log[-1])
            if ended and self.patience.is_over(self.log[-1]["held_out_loss"]):
                trainer.cfg.total_training_samples = trainer.n_training_samples  # fit() ends here
            return output

        trainer.step = logged_step

    def _update_bar(self, trainer: Any, bar: Any, every: int, note: Note) -> None:
        """Advance SAELens's bar, with the last logged line; outside a terminal, lines of text."""
        note(self.spec.batch_tokens)
        if not is_terminal():
            bar.leave = False
            bar.close()
            return
        if self.log and trainer.n_training_steps % every == 0:
            line = self.log[-1]
            text = f"loss {line['loss']:.4g} | L0 {line['l0']:.1f} | "
            text += f"explained variance {line['explained_variance']:.3f}"
            bar.set_description(text, refresh=False)
        bar.update(trainer.n_training_samples - bar.n)

    def epochs(self, trainer: Any) -> float:
        """Passes over the cached activations so far; 0 if none are cached."""
        return trainer.n_training_samples / (self.spec.cached_tokens or math.inf)

    def _line(self, trainer: Any, output: Any, measured: bool) -> dict[str, int | float]:
        line = log_line(trainer, output) | {"sinks_dropped": self.stream.sinks_dropped}
        if self.spec.cached_tokens:
            line["epoch"] = self.epochs(trainer)
        if measured and self.held_out is not None:
            line |= held_out_line(trainer, self.held_out)
        return line

    def save_checkpoint(self, checkpoint_path: Path | None) -> None:
        """Save SAELens's checkpoint and our own state, which resuming needs too."""
        super().save_checkpoint(checkpoint_path)
        if checkpoint_path is None:
            return
        scaling = self.scaling and [self.scaling.mean.tolist(), self.scaling.scale]
        state = {"log": self.log, "patience": asdict(self.patience), "scaling": scaling}
        state |= {"tokens": self.trainer.n_training_samples, "resumed_at": self.resumed_at}
        keep_state(checkpoint_path, state)

    def _restore(self, checkpoint: Path) -> None:
        state = read_json(checkpoint / STATE)
        waited = {key: value for key, value in state["patience"].items() if value is not None}
        self.log, self.patience = state["log"], Patience(**{"epochs": None, **waited})
        self.resumed_at = [*state["resumed_at"], state["tokens"]]
        if state["scaling"]:
            mean, scale = state["scaling"]
            self.scaling = Scaling(torch.tensor(mean, device=self.cfg.device), scale)

    def _fresh(self) -> Iterator[Vectors]:
        spec, kept, batch = self.spec, self.stream.kept(repeat=True), self.spec.batch_tokens
        if spec.normalize != "none":
            first: list[Vectors] = []
            if self.scaling is None:
                first = at_least(kept, min(STATISTICS_TOKENS, spec.training_tokens))
                self.scaling = scaling_of(torch.cat(first))
            kept = map(self.scaling, chain(first, kept))
        if self.held_out_texts is not None:
            stream = self.stream_of(self.held_out_texts)
            stream.store.store_batch_size_prompts = 1  # larger ones may not be filled
            if held_out := at_least(stream.kept(repeat=False), HELD_OUT_FRESH):
                self.held_out = self._scaled(torch.cat(held_out)[:HELD_OUT_FRESH])
        return mixing_buffer(batch * BUFFER_BATCHES, batch, kept)

    def _cached(self, seen: int) -> Iterator[Vectors]:
        spec = self.spec
        assert spec.cached_tokens is not None
        cache = gather(self) if self.cache is None else self.cache
        n_held_out = held_out_tokens(spec.cached_tokens)
        held_out, cache = cache[:n_held_out], cache[n_held_out:]
        if spec.normalize != "none":
            self.scaling = scaling_of(cache)
        self.held_out = self._scaled(held_out)
        batches = epochs(cache, spec.batch_tokens, spec.seed, skip=seen // spec.batch_tokens)
        return map(self._scaled, batches)

    def _scaled(self, vectors: Vectors) -> Vectors:
        return self.scaling(vectors) if self.scaling else vectors.float()

    def stream_of(self, texts: Any) -> ActivationStream:
        """A stream over these texts, from their beginning."""
        store = ActivationsStore.from_config(self.model, self.cfg, override_dataset=texts)
        return ActivationStream(store, self.model.tokenizer, self.spec)


def gather(runner: Runner) -> Cache:
    """Held-out activations followed by the `cached_tokens` to train on, as one tensor."""
    n = runner.spec.cached_tokens
    assert n is not None
    if runner.resumed_at:  # SAELens has advanced the store to where training stopped
        runner.stream = runner.stream_of(runner.texts)
    kept = runner.stream.kept(repeat=False)
    if (name := runner.spec.cache_folder) is not None:
        kept = kept_in(Path(name).expanduser() / _made_from(runner), runner.stream, runner.dtype)
    return cached(kept, held_out_tokens(n) + n, runner.dtype)


def _made_from(runner: Runner) -> str:
    """The folder name of these activations: a digest of what decides them."""
    spec, model = runner.spec, cast(Any, runner.model)
    decide = ("tokens", "max_norm", "context_size", "batch_tokens")
    settings = [runner.cfg.prepend_bos, *(getattr(spec, key) for key in decide)]
    texts = [texts_digest(runner.texts["text"]), *settings]
    # the weights, because a loaded model may have been edited since
    weights = [type(model).__name__, model_fingerprint(model), weights_digest(model)]
    weights += [str(runner.dtype), torch.device(runner.cfg.device).type]
    made_by = [__version__, *map(version, ("torch", "transformer-lens", "sae-lens"))]
    return digest(runner.cfg.hook_name, texts, tokenizer_digest(model.tokenizer), weights, made_by)


def held_out_tokens(cached_tokens: int) -> int:
    """Number of activations to hold out in addition to the cached ones."""
    return min(max(1, round(cached_tokens * HELD_OUT_SHARE)), HELD_OUT_CACHED)


@dataclass
class Patience:
    """Early stopping after `epochs` epochs in a row without improvement; None never stops."""

    epochs: int | None
    best: float = math.inf
    waited: int = 0

    def is_over(self, loss: float) -> bool:
        """Record an epoch's loss and return whether to stop."""
        improved = loss < self.best * (1 - IMPROVEMENT)
        self.waited = 0 if improved else self.waited + 1
        self.best = loss if improved else self.best
        return self.epochs is not None and self.waited >= self.epochs
