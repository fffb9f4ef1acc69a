"""SAELens's training runner with our tokens, our log and the caller's signal handlers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from sae_lens import LanguageModelSAETrainingRunner
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.mixing_buffer import mixing_buffer

from saelens_steer.config import TrainSpec
from saelens_steer.sae.normalise import Scaling, scaling_of
from saelens_steer.sae.stream import Stream, at_least, cached, epochs
from saelens_steer.sae.trainer_config import BUFFER_BATCHES
from saelens_steer.tensors import Vectors

LOG_EVERY, LOG_LINES = 5, 2000
"""Steps between two lines of the log; more where that would give more lines."""
STATISTICS_TOKENS = 50_000
"""Where nothing is cached, mean and scale are those of so many activations, or of all there are."""
ASIDE_SHARE, ASIDE_MOST = 0.05, 10_000
"""Activations held out to measure each epoch on: a share of the cached ones, and at the most."""
IMPROVEMENT = 0.001
"""An epoch that lowers the best loss by less than this share has not improved it."""


class Runner(LanguageModelSAETrainingRunner):
    """Trains on `Stream`'s activations; afterwards `log`, `scaling` and `ending` say how it went.

    `ending` has, where activations are cached, the epochs run and whether patience ended them.
    """

    def __init__(self, config: Any, corpus: Any, model: Any, spec: TrainSpec) -> None:
        super().__init__(config, override_dataset=corpus, override_model=model)
        self.spec, self.dtype = spec, model.cfg.dtype
        if spec.frozen_decoder:
            self.sae.W_dec.requires_grad_(False)
            self.sae.cfg.metadata.frozen_decoder = True
        self.stream = Stream(self.activations_store, model.tokenizer, spec)
        self.scaling: Scaling | None = None
        self.held_out: Vectors | None = None
        self.patience = Patience(spec.patience)
        self.log: list[dict[str, int | float]] = []
        self.ending: dict[str, int | float] = {}

    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        trainer.data_provider = self._batches()
        every = max(LOG_EVERY, trainer.cfg.total_training_steps // LOG_LINES)
        step = trainer.step

        def logged_step(batch: torch.Tensor) -> Any:
            before = self.epochs(trainer)
            output = step(batch)
            ended = int(self.epochs(trainer)) > int(before)
            if ended or trainer.n_training_steps % every == 0:
                self.log.append(self._line(trainer, output))
            if ended:
                self._end_epoch(trainer)
            return output

        trainer.step = logged_step
        trainer._update_pbar = partial(trainer._update_pbar, update_interval=every)
        sae = trainer.fit()
        if self.spec.cached_tokens is not None:
            early = trainer.n_training_samples < self.spec.training_tokens
            self.ending = {"epochs": self.epochs(trainer), "stopped_early": early}
        return sae

    def epochs(self, trainer: Any) -> float:
        """How often the cached activations were gone over so far; 0 where none are cached."""
        return trainer.n_training_samples / (self.spec.cached_tokens or math.inf)

    def _line(self, trainer: Any, output: Any) -> dict[str, int | float]:
        line = log_line(trainer, output) | {"sinks_dropped": self.stream.sinks_dropped}
        epoch = {"epoch": self.epochs(trainer)} if self.spec.cached_tokens else {}
        return line | epoch

    def _end_epoch(self, trainer: Any) -> None:
        assert self.held_out is not None
        loss = loss_on(trainer, self.held_out)
        self.log[-1]["held_out_loss"] = loss
        if self.patience.is_over(loss):
            trainer.cfg.total_training_samples = trainer.n_training_samples  # fit() ends here

    def _batches(self) -> Iterator[Vectors]:
        """What the trainer asks for its next batch."""
        return self._fresh() if self.spec.cached_tokens is None else self._cached()

    def _fresh(self) -> Iterator[Vectors]:
        spec, kept, batch = self.spec, self.stream.kept(again=True), self.spec.batch_tokens
        if spec.normalize != "none":
            first = at_least(kept, min(STATISTICS_TOKENS, spec.training_tokens))
            self.scaling = scaling_of(torch.cat(first))
            kept = map(self.scaling, chain(first, kept))
        return mixing_buffer(batch * BUFFER_BATCHES, batch, kept)

    def _cached(self) -> Iterator[Vectors]:
        spec, kept = self.spec, self.stream.kept(again=False)
        assert spec.cached_tokens is not None
        aside = held_out_tokens(spec.cached_tokens)
        both = cached(kept, aside + spec.cached_tokens, self.dtype)
        held_out, cache = both[:aside], both[aside:]
        if spec.normalize != "none":
            self.scaling = scaling_of(cache)
        scale = self.scaling or torch.Tensor.float
        self.held_out = scale(held_out)
        return map(scale, epochs(cache, spec.batch_tokens, spec.seed))


def held_out_tokens(cached_tokens: int) -> int:
    """So many activations are held out beside so many cached ones."""
    return min(max(1, round(cached_tokens * ASIDE_SHARE)), ASIDE_MOST)


@dataclass
class Patience:
    """Whether the loss has not improved for `epochs` epochs in a row; None waits for ever."""

    epochs: int | None
    best: float = math.inf
    waited: int = 0

    def is_over(self, loss: float) -> bool:
        """Take note of one more epoch's loss."""
        improved = loss < self.best * (1 - IMPROVEMENT)
        self.waited = 0 if improved else self.waited + 1
        self.best = loss if improved else self.best
        return self.epochs is not None and self.waited >= self.epochs


@torch.no_grad()
def loss_on(trainer: Any, vectors: Vectors) -> float:
    """The training loss of these vectors (mean per vector), with coefficients fully warmed up.

    On a copy of the SAE: some architectures learn a threshold as they run.
    """
    sae, total = copy.deepcopy(trainer.sae), 0.0
    full = {name: s.final_value for name, s in trainer.coefficient_schedulers.items()}
    for part in vectors.split(trainer.cfg.train_batch_size_samples):
        output = sae.training_forward_pass(
            TrainStepInput(
                sae_in=part,
                coefficients=full,
                dead_neuron_mask=None,
                n_training_steps=trainer.n_training_steps,
                is_logging_step=False,
            )
        )
        total += float(output.loss) * len(part)
    return total / len(vectors)


@torch.no_grad()
def log_line(trainer: Any, output: Any) -> dict[str, int | float]:
    """One line of metrics.jsonl: loss terms (per token), L0 and explained variance of the batch."""
    error = (output.sae_in - output.sae_out).pow(2).sum()
    spread = (output.sae_in - output.sae_in.mean(0)).pow(2).sum()
    return {
        "step": trainer.n_training_steps,
        "tokens": trainer.n_training_samples,
        "loss": output.loss.item(),
        **{name: float(torch.as_tensor(value)) for name, value in output.losses.items()},
        "l0": float((output.feature_acts > 0).float().sum(-1).mean()),
        "explained_variance": float(1 - error / spread),
        "dead_share": float(trainer.dead_neurons.float().mean()),
    }
