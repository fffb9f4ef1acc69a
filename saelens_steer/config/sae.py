"""Specs of the SAE: training, loading, grids and loggers."""

from __future__ import annotations

import itertools
import re
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from saelens_steer.config.base import Anything, Seed, Spec
from saelens_steer.config.inputs import TINY_CORPUS
from saelens_steer.config.sizes import FLOAT32, Count, CountOrZero, check_memory
from saelens_steer.file_names import file_name

TRAINING_COPIES = 4
"""In training, each weight has a gradient and two moments."""


class TrainSpec(Spec):
    """An SAE to train with SAELens's LanguageModelSAETrainingRunner."""

    architecture: str = "batchtopk"
    """A training architecture of SAELens: standard, gated, jumprelu, topk, batchtopk, …"""
    d_sae: Count = 1024
    options: dict[str, Anything] = Field(default={"k": 20, "topk_threshold_lr": 0.03})
    """Other fields of the architecture's SAELens config, for example k or l1_coefficient."""
    frozen_decoder: bool = False
    """Keep the decoder at its random initialisation and train the rest, so that features are random
    directions with a fitted encoder."""
    corpus: str = TINY_CORPUS
    """`tiny` (chats, 650,000 tokens in total with the tiny model's tokenizer), a text or .jsonl
    file, or a Hugging Face dataset with a `text` column."""
    prepend_bos: bool | None = None
    """Whether contexts, and the texts inside them, begin with BOS. null: they do if the
    checkpoint's own tokenizer puts BOS before text."""
    tokens: Literal["all", "diagnostic"] = "all"
    training_tokens: Count = 400_000
    cached_tokens: Count | None = None
    """Activations to cache and reuse, reshuffled every epoch, for training_tokens / cached_tokens
    epochs. null: compute fresh activations throughout. The cache is on the model's device in its
    dtype: cached_tokens × d_model × 2 bytes in bfloat16, or 6.9 GB for 3,000,000 tokens at a width
    of 1,152."""
    cache_folder: str | None = None
    """Also keep the cached activations in this folder, in shards, with as much disk as memory.
    After an interruption, the shards already written are read instead of computed; the training
    itself starts over unless resume is set. Further SAEs read them too if model, hook, texts,
    corpus_seed, cached_tokens, batch_tokens, context_size and max_norm are the same. null: only in
    memory."""
    patience: Count | None = None
    """Stop after this many consecutive epochs in which the held-out loss does not fall by 0.1 % of
    its best; training_tokens is then an upper limit. Needs cached_tokens."""
    normalize: Literal["none", "mean_scale"] = "none"
    """mean_scale: train on (x − μ) / s and fold μ and s into the weights, so that the saved SAE
    reads x. μ is the mean and s the mean of ‖x − μ‖ over the cached activations (over 50,000 if
    none are cached). Coefficients like l1_coefficient apply in the scaled units."""
    batch_tokens: Count = 1024
    context_size: Count = Field(default=128, gt=1)
    lr: float = Field(default=2e-3, gt=0)
    lr_scheduler: Literal["constant", "cosineannealing", "cosineannealingwarmrestarts"] = "constant"
    lr_end: float | None = Field(default=None, ge=0)
    """Final learning rate of cosine annealing. null: a tenth of lr, as in SAELens."""
    lr_warm_up_steps: CountOrZero = 20
    """Warm-up and decay are each capped at a quarter of all steps."""
    lr_decay_steps: CountOrZero = 40
    """Steps of linear decay to 0 at the end. With lr_end, the default is 0."""
    max_norm: float | None = Field(default=10.0, gt=0)
    """Drop attention sinks, activations with a norm above this multiple of the median."""
    resume: bool = False
    """Save SAELens checkpoints beside the SAE's folder and resume an interrupted training from the
    last one. Resuming is not exact (weights drift by 0.01 to 0.02), so quality.json and the
    provenance record where it happened. false: an interrupted training restarts."""
    seed: Seed = 0
    """Initial weights, and the order of the activations."""
    corpus_seed: Seed | None = None
    """Which texts are held out, and the order of a file's texts. null: the same as seed."""

    @property
    def texts_seed(self) -> int:
        """`corpus_seed`, or the seed it defaults to."""
        return self.seed if self.corpus_seed is None else self.corpus_seed

    def check_size(self, d_in: int = 1, device: str | None = None) -> None:
        """Raise InputError if the SAE, a batch or the cached activations exceed the memory.

        `d_in`: its input width. `device`: where it is trained; None: only the SAE is estimated.
        """
        weights = 2 * d_in * self.d_sae * FLOAT32
        check_memory(f"an SAE of {self.d_sae:,} features", weights, "lower d_sae")
        if device is None:
            return
        for what, size, instead in (
            (f"training an SAE of {self.d_sae:,} features", TRAINING_COPIES * weights, "d_sae"),
            (
                f"a batch of {self.batch_tokens:,} tokens (batch_tokens × d_sae)",
                self.batch_tokens * (d_in + self.d_sae) * FLOAT32,
                "batch_tokens or d_sae",
            ),
            (
                f"a cache of {self.cached_tokens or 0:,} activations (cached_tokens × d_model)",
                (self.cached_tokens or 0) * d_in * 2,  # at least two bytes each
                "cached_tokens",
            ),
        ):
            check_memory(what, size, f"lower {instead}", device)

    @model_validator(mode="before")
    @classmethod
    def _defaults_belong_together(cls, data: Any) -> Any:
        """The default options apply to batchtopk only; lr_end turns off the linear decay."""
        if not isinstance(data, dict):
            return data
        if data.get("architecture", "batchtopk") != "batchtopk":
            data = {"options": {}, **data}
        return data if data.get("lr_end") is None else {"lr_decay_steps": 0, **data}

    @model_validator(mode="after")
    def _epochs_are_possible(self) -> TrainSpec:
        cached, fewest, most = self.cached_tokens, self.batch_tokens, self.training_tokens
        if cached is not None and not fewest <= cached <= most:
            raise ValueError(
                f"cached_tokens must be between batch_tokens = {fewest} and "
                f"training_tokens = {most}, not {cached}"
            )
        if self.patience is not None and cached is None:
            raise ValueError("patience counts epochs of cached activations: set cached_tokens")
        if self.cache_folder is not None and cached is None:
            raise ValueError("cache_folder keeps cached activations: set cached_tokens")
        return self

    @model_validator(mode="after")
    def _learning_rates_are_possible(self) -> TrainSpec:
        if self.lr_end is None:
            return self
        if self.lr_scheduler == "constant":
            raise ValueError(
                "lr_end applies to cosine annealing: set lr_scheduler to cosineannealing, or "
                "remove lr_end"
            )
        if self.lr_end > self.lr:
            raise ValueError(f"lr_end must be at most lr = {self.lr}, not {self.lr_end}")
        if self.lr_end == 0 and self.lr_decay_steps > 0:
            raise ValueError("with lr_end 0 there is nothing left to decay: remove lr_decay_steps")
        return self


class LogSpec(Spec):
    """Loggers that receive the training curves in addition to metrics.jsonl."""

    tensorboard: bool = False
    """Write event files to a folder `tensorboard` beside the SAE's (extra `tensorboard`)."""
    wandb: str | None = None
    """Weights & Biases project to log to; null: none."""


RESERVED = re.compile(
    r"\..*|grid\.csv|frontier\.html|tensorboard|wandb|.*-checkpoints", re.IGNORECASE
)
"""Names in a grid's folder that no SAE may have, because other files use them."""


class GridSpec(Spec):
    """One architecture at several settings, all trained on the same activations."""

    architecture: str = "batchtopk"
    name: str | None = None
    """Prefix of the names of its SAEs; null: the architecture."""
    options: dict[str, Anything] = Field(default={})
    """Options of the architecture that stay fixed, as in train."""
    vary: dict[str, tuple[Anything, ...]] = Field(default={})
    """Options to vary, for example k: [8, 16, 32]; every combination is trained."""
    normalize: Literal["none", "mean_scale"] = "none"
    lr: float | None = Field(default=None, gt=0)
    """null: the lr of train."""
    seed: Seed | None = None
    """Initial weights, and the order of the activations; null: the seed of train."""

    def specs(self, train: TrainSpec) -> dict[str, TrainSpec]:
        """Name → spec of each SAE: `train` with this architecture and these options."""
        found, prefix = {}, self.architecture if self.name is None else self.name
        for values in itertools.product(*self.vary.values()):
            varied = dict(zip(self.vary, values, strict=True))
            settings = [f"{key}{value}" for key, value in varied.items()]
            name = "-".join([prefix, *settings])
            if RESERVED.fullmatch(file_name(name)):
                raise ValueError(
                    f"an SAE of the grid would be named {name!r}, which is "
                    "reserved in its folder: give the entry another name"
                )
            if name in found:
                raise ValueError(
                    f"two SAEs of the grid would be named {name!r}: give vary distinct values"
                )
            changes = {
                "architecture": self.architecture,
                "options": self.options | varied,
                "normalize": self.normalize,
                "lr": self.lr or train.lr,
                "seed": train.seed if self.seed is None else self.seed,
                "corpus_seed": train.texts_seed,
                "cached_tokens": train.cached_tokens or train.training_tokens,
            }
            found[name] = TrainSpec.model_validate(train.model_dump() | changes)
        return found


class LoadSpec(Spec):
    """An existing SAE to load."""

    source: str
    """A folder in SAELens's format, a checkpoint in another format (a .pt, .safetensors or .npz
    file, or a folder with one), a SAELens release, or `owner/name` on the Hugging Face hub."""
    sae_id: str | None = None
    """The id in a release, or the folder or file in a hub repository."""
    model_name: str | None = None
    """The model the SAE was trained on, if SAELens names two for the release."""
    corpus: str | None = None
    """Text to measure quality on, as in train; null: the selection prompts."""


class SAESpec(Spec):
    """The SAE: either trained or loaded."""

    train: TrainSpec | None = None
    load: LoadSpec | None = None
    frozen_decoder_baseline: bool = False
    """Also train an SAE of the same shape with a frozen random decoder and run its candidates
    through the same sweep, to show what training the decoder adds."""
    grid: tuple[GridSpec, ...] = ()
    """SAEs that `saelens-steer grid` trains and compares; other settings come from train."""
    log: LogSpec = LogSpec()

    @model_validator(mode="after")
    def _check(self) -> SAESpec:
        if (self.train is None) == (self.load is None):
            raise ValueError("give exactly one of train and load")
        if self.frozen_decoder_baseline and self.train is None:
            raise ValueError("frozen_decoder_baseline needs train, not load: it retrains the SAE")
        if self.grid and self.train is None:
            raise ValueError("grid needs train, not load: it trains SAEs")
        names = [name for entry in self.grid for name in self._specs_of(entry)]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"two SAEs of the grid are named {doubled[0]!r}: give one of the two entries a name"
            )
        return self

    def _specs_of(self, entry: GridSpec) -> dict[str, TrainSpec]:
        assert self.train is not None
        try:
            return entry.specs(self.train)
        except ValidationError as error:
            why = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
            raise ValueError(f"grid, {entry.name or entry.architecture}: {why}") from None

    @property
    def grid_specs(self) -> dict[str, TrainSpec]:
        """Name → spec of every SAE in the grid."""
        return {name: spec for entry in self.grid for name, spec in self._specs_of(entry).items()}
