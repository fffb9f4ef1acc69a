"""Training an SAE through SAELens's LanguageModelSAETrainingRunner, with our model and tokens."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
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
from saelens_steer.data import diagnostic_positions, load_corpus, token_ids
from saelens_steer.errors import InputError
from saelens_steer.files import write_json, write_jsonl, write_with
from saelens_steer.model import check_hook_name
from saelens_steer.near import or_known
from saelens_steer.sae.load import load_sae, settled
from saelens_steer.sae.quality import sae_quality
from saelens_steer.tensors import Mask, Tokens

LOG_EVERY = 5
BUFFER_BATCHES = 16
"""The mixing buffer holds so many training batches."""
PATIENCE = 200
"""So many batches in a row without a token to train on are an error."""
HELD_OUT_SHARE, HELD_OUT_TEXTS = 0.02, 500
"""Of the corpus, and at the most."""
HELD_OUT_TOKENS = 10_000
FOLDABLE = ("standard", "gated", "jumprelu")


def train_sae(model: Any, spec: TrainSpec, hook_name: str, out: str | Path) -> SAE[Any]:
    """Train an SAE on the activations at `hook_name`, save it to the folder `out`, return it.

    `out` holds SAELens's own format (`SAE.load_from_disk` reads it), metrics.jsonl (loss, L0 and
    explained variance every few steps) and quality.json (see `sae_quality`; on texts of the corpus
    that were not trained on). Rows of W_dec have unit norm where SAELens can fold it into the
    encoder. SAELens's `seed` seeds nothing, so torch is seeded here. Raises
    InputError for an unknown architecture or option before any training.
    """
    check_hook_name(model, hook_name)
    check_train_spec(spec)
    wanted = spec.training_tokens + HELD_OUT_TOKENS
    corpus = load_corpus(spec.corpus, model.tokenizer, wanted, spec.seed)
    training, held_out = split_corpus(corpus)
    for texts in (training, held_out):
        _refuse_too_little(texts, model.tokenizer, spec.context_size)

    def write(folder: Path) -> None:
        _train_into(folder, model, spec, hook_name, training)
        _measure_in(folder, model, spec, hook_name, held_out)

    return load_sae(write_with(Path(out), write), device=str(model.cfg.device))


def _train_into(folder: Path, model: Any, spec: TrainSpec, hook_name: str, corpus: Any) -> None:
    with torch.random.fork_rng(), warnings.catch_warnings(), _without_chatter():
        warnings.filterwarnings("ignore", module="sae_lens.training.activations_store")
        torch.manual_seed(spec.seed)
        runner = _Runner(runner_config(spec, model, hook_name, folder), corpus, model, spec)
        runner.run()
    write_jsonl(folder / "metrics.jsonl", runner.log)
    _fold_decoder_norms(folder)
    for config in sorted(folder.glob("*cfg.json")):
        settled(config)


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


def _fold_decoder_norms(folder: Path) -> None:
    """Move the norms of W_dec's rows into the encoder: the same SAE, and one α pushes all alike.

    SAELens folds exactly in these architectures; topk's and its kin fold while they train.
    """
    sae = SAE.load_from_disk(str(folder))
    if sae.cfg.architecture() in FOLDABLE:
        sae.fold_W_dec_norm()
        sae.save_model(str(folder))


def _measure_in(folder: Path, model: Any, spec: TrainSpec, hook_name: str, corpus: Any) -> None:
    sae = load_sae(folder, device=str(model.cfg.device))
    if not all(weight.isfinite().all() for weight in sae.parameters()):
        raise InputError("the SAE's weights are not finite after training: lower sae.train.lr")
    texts, size = corpus["text"], spec.context_size
    quality = sae_quality(model, sae, hook_name, texts, size, spec.max_norm)
    write_json(folder / "quality.json", quality)


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


def check_train_spec(spec: TrainSpec) -> None:
    """Raise InputError unless SAELens knows the architecture and each of its options."""
    known = SAE_TRAINING_CLASS_REGISTRY
    if spec.architecture not in known:
        hint = or_known(spec.architecture, known)
        raise InputError(f"SAELens has no training architecture {spec.architecture!r}; {hint}")
    fields = {f.name for f in dataclasses.fields(known[spec.architecture][1])}
    for option in spec.options:
        if option not in fields:
            hint = or_known(option, fields)
            raise InputError(f"architecture {spec.architecture} has no option {option!r}; {hint}")
    k = getattr(_sae_config(spec, d_in=1, device="cpu"), "k", None)
    if k is not None and not (isinstance(k, int | float) and 0 < k <= spec.d_sae):
        raise InputError(f"option k must be a number up to d_sae = {spec.d_sae}, not {k!r}")


def runner_config(
    spec: TrainSpec, model: Any, hook_name: str, out: Path
) -> LanguageModelSAERunnerConfig[Any]:
    """SAELens's runner config for our spec; Qwen's lack of a BOS token is respected."""
    bos = bool(model.cfg.default_prepend_bos)
    store_batch = max(1, spec.batch_tokens // spec.context_size)
    steps = spec.training_tokens // spec.batch_tokens
    return LanguageModelSAERunnerConfig(
        sae=_sae_config(spec, d_in=model.cfg.d_model, device=str(model.cfg.device)),
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
        # where the two overlap, SAELens never reaches lr
        lr_warm_up_steps=min(spec.lr_warm_up_steps, steps // 4),
        lr_decay_steps=min(spec.lr_decay_steps, steps // 4),
        dead_feature_window=max(1, steps // 4),
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


def _sae_config(spec: TrainSpec, d_in: int, device: str) -> Any:
    config_class = SAE_TRAINING_CLASS_REGISTRY[spec.architecture][1]
    try:
        return config_class(
            d_in=d_in,
            d_sae=spec.d_sae,
            device=device,
            **{**_unit_decoder(config_class), **spec.options},
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"SAELens refuses the options of {spec.architecture}: {error}") from None


def _unit_decoder(config_class: type) -> dict[str, Any]:
    """Where an architecture can fold decoder norms into its activations as it trains, let it."""
    fields = {f.name for f in dataclasses.fields(config_class)}
    return (
        {"rescale_acts_by_decoder_norm": True} if "rescale_acts_by_decoder_norm" in fields else {}
    )


class _Runner(LanguageModelSAETrainingRunner):
    """SAELens's runner with our tokens, our log and the caller's signal handlers."""

    def __init__(self, config: Any, corpus: Any, model: Any, spec: TrainSpec) -> None:
        super().__init__(config, override_dataset=corpus, override_model=model)
        self.spec = spec
        self.log: list[dict[str, int | float]] = []
        self.sinks_dropped = 0

    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        trainer.data_provider = self._batches()
        step = trainer.step

        def logged_step(batch: torch.Tensor) -> Any:
            output = step(batch)
            if trainer.n_training_steps % LOG_EVERY == 0:
                line = _log_line(trainer, output)
                self.log.append(line | {"sinks_dropped": self.sinks_dropped})
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
        store, empty = self.activations_store, 0
        while empty < PATIENCE:
            tokens = store.get_batch_tokens()
            wanted = self._wanted(tokens)
            empty += 1
            if wanted.any():
                vectors = store.get_activations(tokens)[wanted.to(store.device)]
                kept = without_sinks(vectors, self.spec.max_norm)
                self.sinks_dropped += int((~kept).sum())
                if kept.any():
                    empty = 0
                    yield vectors[kept]
        raise InputError(
            f"{PATIENCE} batches of the corpus held no token to train on: "
            f"tokens is {self.spec.tokens}, max_norm is {self.spec.max_norm}"
        )

    def _wanted(self, tokens: Tokens) -> Mask:
        tokenizer: Any = self.model.tokenizer
        wanted = keep_ordinary(tokens, tokenizer)
        if self.spec.tokens == "all":
            return wanted
        inside = torch.ones_like(wanted)
        inside[:, -1] = False  # a context is cut anywhere: its end is no assistant start
        return wanted & diagnostic_positions(tokens, inside, tokenizer)


@torch.no_grad()
def _log_line(trainer: Any, output: Any) -> dict[str, int | float]:
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
