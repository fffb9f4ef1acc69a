"""SAELens's training runner with our tokens, our log and the caller's signal handlers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from sae_lens import LanguageModelSAETrainingRunner
from sae_lens.training.activations_store import ActivationsStore
from sae_lens.training.mixing_buffer import mixing_buffer

from saelens_steer.config import TrainSpec
from saelens_steer.sae.training.activation_stream import (
    ActivationStream,
    Cache,
    at_least,
    cached,
    epochs,
)
from saelens_steer.sae.training.config import BUFFER_BATCHES
from saelens_steer.sae.training.log import Sink, held_out_line, log_line, progress_text
from saelens_steer.sae.training.resume import keep_state, read_state
from saelens_steer.sae.training.scaling import Scaling, scaling_of
from saelens_steer.tensors import Vectors

LOG_EVERY, LOG_LINES = 5, 2000
"""Steps between two lines of the log; more if that would give more lines."""
MEASURED = 20
"""Lines of the log with figures of held-out activations, spread over the training."""
STATISTICS_TOKENS = 50_000
"""Activations that mean and scale are of if nothing is cached, or all if there are fewer."""
ASIDE_SHARE, ASIDE_MOST = 0.05, 10_000
"""Activations held out to measure each epoch on: a share of the cached ones, and at the most."""
HELD_OUT_MOST = 5_000
"""Activations of the held-out texts to measure on if nothing is cached."""
IMPROVEMENT = 0.001
"""An epoch that lowers the best loss by less than this share has not improved it."""


class Runner(LanguageModelSAETrainingRunner):
    """Trains on an `ActivationStream`; afterwards `log`, `scaling` and `ending` say how it went.

    held_out: texts to measure on if nothing is cached. cache: the activations, held-out ones
    first, if they are computed already. sinks take every line of the log as it comes.
    `ending` has, if activations are cached, the epochs run and whether patience ended them, and
    the numbers of tokens at which a stopped training resumed.
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
        sinks: Sequence[Sink] = (),
    ) -> None:
        super().__init__(config, override_dataset=corpus, override_model=model)
        self.spec, self.dtype, self.sinks = spec, model.cfg.dtype, sinks
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
        self.ending: dict[str, Any] = {}

    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        if self.cfg.resume_from_checkpoint is not None:
            self._restore(Path(self.cfg.resume_from_checkpoint))
        self.trainer = trainer
        is_cached = self.spec.cached_tokens is not None
        seen = trainer.n_training_samples
        trainer.data_provider = self._cached(seen) if is_cached else self._fresh()
        every = max(LOG_EVERY, trainer.cfg.total_training_steps // LOG_LINES)
        self._watch(trainer, every)
        trainer._update_pbar = lambda _, bar: self._show(trainer, bar, every)
        sae = trainer.fit()
        if is_cached:
            early = trainer.n_training_samples < self.spec.training_tokens
            self.ending = {"epochs": self.epochs(trainer), "stopped_early": early}
        if self.resumed_at:
            self.ending["resumed_at_tokens"] = self.resumed_at
        return sae

    def _watch(self, trainer: Any, every: int) -> None:
        """Have every step of the trainer leave its lines."""
        step = trainer.step
        seldom = every * max(1, math.ceil(trainer.cfg.total_training_steps / every / MEASURED))

        def logged_step(batch: torch.Tensor) -> Any:
            before = self.epochs(trainer)
            output = step(batch)
            ended = int(self.epochs(trainer)) > int(before)
            if ended or trainer.n_training_steps % every == 0:
                measured = ended or trainer.n_training_steps % seldom == 0
                self.log.append(self._line(trainer, output, measured))
                for sink in self.sinks:
                    sink(self.log[-1])
            if ended and self.patience.is_over(self.log[-1]["held_out_loss"]):
                trainer.cfg.total_training_samples = trainer.n_training_samples  # fit() ends here
            return output

        trainer.step = logged_step

    def _show(self, trainer: Any, bar: Any, every: int) -> None:
        if self.log and trainer.n_training_steps % every == 0:
            bar.set_description(progress_text(self.log[-1]), refresh=False)
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
        """SAELens's checkpoint, and our own state that resuming needs."""
        super().save_checkpoint(checkpoint_path)
        if checkpoint_path is None:
            return
        scaling = self.scaling and [self.scaling.mean.tolist(), self.scaling.scale]
        state = {"log": self.log, "patience": asdict(self.patience), "scaling": scaling}
        state |= {"tokens": self.trainer.n_training_samples, "resumed_at": self.resumed_at}
        keep_state(checkpoint_path, state)

    def _restore(self, checkpoint: Path) -> None:
        state = read_state(checkpoint)
        waited = {key: value for key, value in state["patience"].items() if value is not None}
        self.log, self.patience = state["log"], Patience(**{"epochs": None, **waited})
        self.resumed_at = [*state["resumed_at"], state["tokens"]]
        if state["scaling"]:
            mean, scale = state["scaling"]
            self.scaling = Scaling(torch.tensor(mean, device=self.cfg.device), scale)

    def _fresh(self) -> Iterator[Vectors]:
        spec, kept, batch = self.spec, self.stream.kept(again=True), self.spec.batch_tokens
        if spec.normalize != "none":
            first: list[Vectors] = []
            if self.scaling is None:
                first = at_least(kept, min(STATISTICS_TOKENS, spec.training_tokens))
                self.scaling = scaling_of(torch.cat(first))
            kept = map(self.scaling, chain(first, kept))
        if self.held_out_texts is not None:
            stream = self.stream_of(self.held_out_texts)
            stream.store.store_batch_size_prompts = 1  # there may not be enough for a larger batch
            if found := at_least(stream.kept(again=False), HELD_OUT_MOST):
                self.held_out = self._scaled(torch.cat(found)[:HELD_OUT_MOST])
        return mixing_buffer(batch * BUFFER_BATCHES, batch, kept)

    def _cached(self, seen: int) -> Iterator[Vectors]:
        spec = self.spec
        assert spec.cached_tokens is not None
        both = gather(self) if self.cache is None else self.cache
        aside = held_out_tokens(spec.cached_tokens)
        held_out, cache = both[:aside], both[aside:]
        if spec.normalize != "none":
            self.scaling = scaling_of(cache)
        self.held_out = self._scaled(held_out)
        left = epochs(cache, spec.batch_tokens, spec.seed, skip=seen // spec.batch_tokens)
        return map(self._scaled, left)

    def _scaled(self, vectors: Vectors) -> Vectors:
        return self.scaling(vectors) if self.scaling else vectors.float()

    def stream_of(self, texts: Any) -> ActivationStream:
        """Activations of some texts from their beginning."""
        store = ActivationsStore.from_config(self.model, self.cfg, override_dataset=texts)
        return ActivationStream(store, self.model.tokenizer, self.spec)


def gather(runner: Runner) -> Cache:
    """The activations that `cached_tokens` asks for, after those that are held out."""
    n = runner.spec.cached_tokens
    assert n is not None
    if runner.resumed_at:  # SAELens has moved the store to where the last training stopped
        runner.stream = runner.stream_of(runner.texts)
    return cached(runner.stream.kept(again=False), held_out_tokens(n) + n, runner.dtype)


def held_out_tokens(cached_tokens: int) -> int:
    """Activations held out beside the cached ones."""
    return min(max(1, round(cached_tokens * ASIDE_SHARE)), ASIDE_MOST)


@dataclass
class Patience:
    """Whether the loss has not improved for `epochs` epochs in a row; None never ends it."""

    epochs: int | None
    best: float = math.inf
    waited: int = 0

    def is_over(self, loss: float) -> bool:
        """Take note of one more epoch's loss."""
        improved = loss < self.best * (1 - IMPROVEMENT)
        self.waited = 0 if improved else self.waited + 1
        self.best = loss if improved else self.best
        return self.epochs is not None and self.waited >= self.epochs
