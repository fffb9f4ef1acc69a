"""Specs of the SAE: trained or loaded, grids, logs."""

from __future__ import annotations

import itertools
import re
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from saelens_steer.config.base import Spec


class TrainSpec(Spec):
    """An SAE trained with SAELens's LanguageModelSAETrainingRunner."""

    architecture: str = "batchtopk"
    """Any training architecture of SAELens: standard, gated, jumprelu, topk, batchtopk, …"""
    d_sae: int = Field(default=1024, gt=0)
    options: dict[str, Any] = Field(default={"k": 20, "topk_threshold_lr": 0.03})
    """Further fields of SAELens's config for that architecture, such as k or l1_coefficient."""
    frozen_decoder: bool = False
    """Leave the decoder's directions as they were drawn, at random, and train the rest: features
    are then random directions with a fitted encoder."""
    corpus: str = "tiny"
    """`tiny` (chats with 650,000 tokens by the tiny model's tokenizer), a text or .jsonl file, or a
    Hugging Face dataset with a `text` column."""
    tokens: Literal["all", "diagnostic"] = "all"
    training_tokens: int = Field(default=400_000, gt=0)
    cached_tokens: int | None = Field(default=None, gt=0)
    """Keep the activations of so many tokens and go over them again, each time in a new order,
    until training_tokens are used: training_tokens / cached_tokens epochs. null: fresh ones
    throughout. They lie on the model's device, in its dtype: cached_tokens × d_model × 2 bytes
    in bfloat16, so 6.9 GB for 3,000,000 at a width of 1,152."""
    patience: int | None = Field(default=None, gt=0)
    """Stop when the loss on held-out activations has not fallen by 0.1 % of its best for so many
    epochs in a row: training_tokens is then the most that is used. Needs cached_tokens."""
    normalize: Literal["none", "mean_scale"] = "none"
    """mean_scale: train on (x − μ) / s, μ the mean and s the mean of ‖x − μ‖ over the cached
    activations (over 50,000 where none are cached), then fold both into the weights: the saved SAE
    reads x as it is. Coefficients such as l1_coefficient are in the scaled units."""
    batch_tokens: int = Field(default=1024, gt=0)
    context_size: int = Field(default=128, gt=1)
    lr: float = Field(default=2e-3, gt=0)
    lr_scheduler: Literal["constant", "cosineannealing", "cosineannealingwarmrestarts"] = "constant"
    lr_end: float | None = Field(default=None, ge=0)
    """Where cosine annealing ends. null: a tenth of lr, as in SAELens."""
    lr_warm_up_steps: int = Field(default=20, ge=0)
    """At most a quarter of all steps, and so is the decay: a short training has less of both."""
    lr_decay_steps: int = Field(default=40, ge=0)
    """A linear decay to 0 after everything else. Where lr_end is given, the default is 0."""
    max_norm: float | None = Field(default=10.0, gt=0)
    """Leave attention sinks out of training: norm above this multiple of the median."""
    resume: bool = False
    """Keep checkpoints through SAELens, beside the SAE's folder, and go on from the last one when a
    training was stopped. That is no exact continuation (weights drift by 0.01 to 0.02), so
    quality.json and the provenance say where it happened. Otherwise a stopped training starts
    again."""
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults_belong_together(cls, data: Any) -> Any:
        """The default options are batchtopk's; who says where lr ends wants no further decay."""
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
                f"cached_tokens must lie between batch_tokens = {fewest} and "
                f"training_tokens = {most}, not be {cached}"
            )
        if self.patience is not None and cached is None:
            raise ValueError("patience counts epochs, which only cached_tokens has: give both")
        return self

    @model_validator(mode="after")
    def _learning_rates_are_possible(self) -> TrainSpec:
        if self.lr_end is None:
            return self
        if self.lr_scheduler == "constant":
            raise ValueError(
                "lr_end is where cosine annealing ends: give lr_scheduler cosineannealing, "
                "or leave lr_end out"
            )
        if self.lr_end > self.lr:
            raise ValueError(f"lr_end must be at most lr = {self.lr}, not {self.lr_end}")
        if self.lr_end == 0 and self.lr_decay_steps > 0:
            raise ValueError("with lr_end 0 nothing is left to decay: leave lr_decay_steps out")
        return self


class LogSpec(Spec):
    """Where training curves go beside metrics.jsonl."""

    tensorboard: bool = False
    """To event files in a folder `tensorboard` beside that of the SAE (extra `tensorboard`)."""
    wandb: str | None = None
    """To this project of Weights & Biases."""


TAKEN = re.compile(r"\..*|grid\.csv|frontier\.html|tensorboard|wandb|.*-checkpoints", re.IGNORECASE)
"""Names in the folder of a grid that no SAE may have: what stands there beside the SAEs."""


class GridSpec(Spec):
    """One architecture at several sparsities, trained on the activations that all share."""

    architecture: str = "batchtopk"
    name: str | None = None
    """What the names of its SAEs, which are folders, begin with; null: the architecture."""
    options: dict[str, Any] = Field(default={})
    """Fixed options of the architecture, as in train."""
    vary: dict[str, tuple[Any, ...]] = Field(default={})
    """Options that take several values, such as k: [8, 16, 32]; every combination is trained."""
    normalize: Literal["none", "mean_scale"] = "none"
    lr: float | None = Field(default=None, gt=0)
    """null: as in train."""

    @field_validator("name")
    @classmethod
    def _is_no_path(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[^/\\\0]+", name):
            raise ValueError(f"should be a name without slashes, not {name!r}")
        return name

    def specs(self, train: TrainSpec) -> dict[str, TrainSpec]:
        """Name → spec of each SAE: as `train`, but of this architecture and these options."""
        found = {}
        for values in itertools.product(*self.vary.values()):
            varied = dict(zip(self.vary, values, strict=True))
            name = "-".join(
                [self.name or self.architecture, *(f"{key}{v}" for key, v in varied.items())]
            )
            changes: dict[str, Any] = {"architecture": self.architecture}
            changes |= {"options": self.options | varied, "normalize": self.normalize}
            changes |= {"lr": self.lr} if self.lr else {}
            changes["cached_tokens"] = train.cached_tokens or train.training_tokens
            name = re.sub(r"[^\w.-]+", "_", name)
            if TAKEN.fullmatch(name):
                raise ValueError(
                    f"an SAE of the grid would be named {name!r}, which is hidden or taken in its "
                    "folder: give the entry another name"
                )
            if name in found:
                raise ValueError(f"two SAEs of a grid would be named {name!r}")
            found[name] = TrainSpec.model_validate(train.model_dump() | changes)
        return found


class LoadSpec(Spec):
    """An SAE that exists already."""

    source: str
    """A folder in SAELens's format, a checkpoint of others (.pt, .safetensors; a file, or a folder
    with one), a SAELens release, or `owner/name` on the Hugging Face hub."""
    sae_id: str | None = None
    """The id in a release, or the folder or file in a hub repository."""
    corpus: str | None = None
    """Text to measure its quality on, as in train; null: the selection prompts."""


class SAESpec(Spec):
    """Train an SAE or load one: exactly one of the two."""

    train: TrainSpec | None = None
    load: LoadSpec | None = None
    frozen_decoder_baseline: bool = False
    """Also train an SAE of the same shape with its decoder frozen as drawn, and run its candidates
    through the same sweep: what training the decoder buys."""
    grid: tuple[GridSpec, ...] = ()
    """What `saelens-steer grid` trains and compares; needs train, which says the rest."""
    log: LogSpec = LogSpec()

    @model_validator(mode="after")
    def _one_of_two(self) -> SAESpec:
        if (self.train is None) == (self.load is None):
            raise ValueError("give either train or load, not both and not neither")
        if self.frozen_decoder_baseline and self.train is None:
            raise ValueError(
                "frozen_decoder_baseline is of an SAE that is trained: it takes train, not load"
            )
        if self.grid and self.train is None:
            raise ValueError("grid is of SAEs that are trained: it takes train, not load")
        if self.grid:
            self._check_grid()
        return self

    def _check_grid(self) -> None:
        names = [name for one in self.grid for name in self._specs_of(one)]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"two SAEs of the grid are named {doubled[0]!r}: give one of the two entries a name"
            )

    def _specs_of(self, one: GridSpec) -> dict[str, TrainSpec]:
        assert self.train is not None
        try:
            return one.specs(self.train)
        except ValidationError as error:
            why = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
            raise ValueError(f"grid, {one.name or one.architecture}: {why}") from None

    @property
    def grid_specs(self) -> dict[str, TrainSpec]:
        """Name → spec of every SAE of the grid."""
        return {name: spec for one in self.grid for name, spec in self._specs_of(one).items()}
