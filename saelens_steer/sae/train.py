"""Training an SAE through SAELens's LanguageModelSAETrainingRunner, with our model and tokens."""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sae_lens import (
    SAE,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
)
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from sae_lens.training.mixing_buffer import mixing_buffer

from saelens_steer.activations import keep_ordinary, without_sinks
from saelens_steer.config import TrainSpec
from saelens_steer.data import diagnostic_positions, load_corpus
from saelens_steer.errors import InputError
from saelens_steer.files import write_json, write_jsonl, write_with
from saelens_steer.model import check_hook_name
from saelens_steer.sae.quality import sae_quality

LOG_EVERY = 5
BUFFER_BATCHES = 16
"""The mixing buffer holds so many training batches."""
HELD_OUT_SHARE = 0.02
HELD_OUT_TOKENS = 10_000


def train_sae(model: Any, spec: TrainSpec, hook_name: str, out: str | Path) -> SAE[Any]:
    """Train an SAE on the activations at `hook_name`, save it to the folder `out`, return it.

    `out` holds SAELens's own format (`SAE.load_from_disk` reads it), metrics.jsonl (loss, L0 and
    explained variance every few steps) and quality.json (see `sae_quality`; on texts of the corpus
    that were not trained on). SAELens's `seed` seeds nothing, so torch is seeded here. Raises
    InputError for an unknown architecture or option before any training.
    """
    check_hook_name(model, hook_name)
    check_train_spec(spec)
    wanted = spec.training_tokens + HELD_OUT_TOKENS
    corpus = load_corpus(spec.corpus, model.tokenizer, wanted, spec.seed)
    training, held_out = split_corpus(corpus)
    write_with(Path(out), lambda folder: _train_into(folder, model, spec, hook_name, training))
    sae = SAE.load_from_disk(str(out), device=str(model.cfg.device))
    quality = sae_quality(model, sae, hook_name, held_out["text"], spec.context_size)
    write_json(Path(out) / "quality.json", quality)
    return sae


def _train_into(folder: Path, model: Any, spec: TrainSpec, hook_name: str, corpus: Any) -> None:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sae_lens.training.activations_store")
        torch.manual_seed(spec.seed)
        runner = _Runner(runner_config(spec, model, hook_name, folder), corpus, model, spec)
        runner.run()
    write_jsonl(folder / "metrics.jsonl", runner.log)


def split_corpus(corpus: Any) -> tuple[Any, Any]:
    """Texts to train on, and the last 2 % (at least one) held out. One text alone is refused."""
    if len(corpus) < 2:
        raise InputError("the corpus has only one text: one more is needed to measure the SAE on")
    cut = len(corpus) - max(1, round(len(corpus) * HELD_OUT_SHARE))
    return corpus.select(range(cut)), corpus.select(range(cut, len(corpus)))


def check_train_spec(spec: TrainSpec) -> None:
    """Raise InputError unless SAELens knows the architecture and each of its options."""
    known = SAE_TRAINING_CLASS_REGISTRY
    if spec.architecture not in known:
        near = difflib.get_close_matches(spec.architecture, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        raise InputError(f"SAELens has no training architecture {spec.architecture!r}; {hint}")
    fields = {f.name for f in dataclasses.fields(known[spec.architecture][1])}
    for option in spec.options:
        if option not in fields:
            near = difflib.get_close_matches(option, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"architecture {spec.architecture} has no option {option!r}{hint}")


def runner_config(
    spec: TrainSpec, model: Any, hook_name: str, out: Path
) -> LanguageModelSAERunnerConfig[Any]:
    """SAELens's runner config for our spec; Qwen's lack of a BOS token is respected."""
    bos = bool(model.cfg.default_prepend_bos)
    store_batch = max(1, spec.batch_tokens // spec.context_size)
    return LanguageModelSAERunnerConfig(
        sae=_sae_config(spec, model),
        model_name=model.cfg.model_name,
        hook_name=hook_name,
        dataset_path=spec.corpus,
        is_dataset_tokenized=False,
        streaming=False,
        context_size=spec.context_size,
        training_tokens=spec.training_tokens,
        train_batch_size_tokens=spec.batch_tokens,
        store_batch_size_prompts=store_batch,
        n_batches_in_buffer=BUFFER_BATCHES,
        lr=spec.lr,
        lr_scheduler_name=spec.lr_scheduler,
        lr_warm_up_steps=spec.lr_warm_up_steps,
        lr_decay_steps=spec.lr_decay_steps,
        dead_feature_window=max(1, spec.training_tokens // spec.batch_tokens // 4),
        prepend_bos=bos,
        sequence_separator_token="bos" if bos else None,
        exclude_special_tokens=True,
        device=str(model.cfg.device),
        seed=spec.seed,
        logger=LoggingConfig(log_to_wandb=False),
        checkpoint_path=None,
        model_from_pretrained_kwargs={},
        output_path=str(out),
        verbose=False,
    )


def _sae_config(spec: TrainSpec, model: Any) -> Any:
    config_class = SAE_TRAINING_CLASS_REGISTRY[spec.architecture][1]
    try:
        return config_class(
            d_in=model.cfg.d_model,
            d_sae=spec.d_sae,
            device=str(model.cfg.device),
            **{**_unit_decoder(config_class), **spec.options},
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"SAELens refuses the options of {spec.architecture}: {error}") from None


def _unit_decoder(config_class: type) -> dict[str, Any]:
    """Where an architecture can fold decoder norms into its activations, let it.

    The saved rows of W_dec then have unit norm, so one α pushes every feature equally hard.
    """
    fields = {f.name for f in dataclasses.fields(config_class)}
    return (
        {"rescale_acts_by_decoder_norm": True} if "rescale_acts_by_decoder_norm" in fields else {}
    )


class _Runner(LanguageModelSAETrainingRunner):
    """SAELens's runner with our tokens, our log and the caller's signal handlers."""

    def __init__(self, config: Any, corpus: Any, model: Any, spec: TrainSpec) -> None:
        super().__init__(config, override_dataset=corpus, override_model=model)
        self.spec = spec
        self.log: list[dict[str, float]] = []

    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        trainer.data_provider = self._batches()
        step = trainer.step

        def logged_step(batch: torch.Tensor) -> Any:
            output = step(batch)
            if trainer.n_training_steps % LOG_EVERY == 0:
                self.log.append(_log_line(trainer, output))
            return output

        trainer.step = logged_step
        trainer._update_pbar = partial(trainer._update_pbar, update_interval=LOG_EVERY)
        return trainer.fit()

    def _batches(self) -> Iterator[torch.Tensor]:
        spec = self.spec
        return mixing_buffer(spec.batch_tokens * BUFFER_BATCHES, spec.batch_tokens, self._kept())

    @torch.no_grad()
    def _kept(self) -> Iterator[torch.Tensor]:
        """Activations of the wanted tokens, endlessly: special tokens and sinks left out."""
        store = self.activations_store
        tokenizer: Any = self.model.tokenizer
        while True:
            tokens = store.get_batch_tokens()
            wanted = keep_ordinary(tokens, tokenizer)
            if self.spec.tokens == "diagnostic":
                wanted &= diagnostic_positions(tokens, torch.ones_like(wanted), tokenizer)
            vectors = store.get_activations(tokens)[wanted.to(store.device)]
            if len(vectors):
                yield vectors[without_sinks(vectors, self.spec.max_norm)]


@torch.no_grad()
def _log_line(trainer: Any, output: Any) -> dict[str, float]:
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
