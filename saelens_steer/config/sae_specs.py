"""Specs of the SAE: trained or loaded, and how features are chosen from it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from saelens_steer.config.base import Spec


class TrainSpec(Spec):
    """An SAE trained with SAELens's LanguageModelSAETrainingRunner."""

    architecture: str = "batchtopk"
    """Any training architecture of SAELens: standard, gated, jumprelu, topk, batchtopk, …"""
    d_sae: int = Field(default=1024, gt=0)
    options: dict[str, Any] = Field(default={"k": 20, "topk_threshold_lr": 0.03})
    """Further fields of SAELens's config for that architecture, such as k or l1_coefficient."""
    corpus: str = "tiny"
    """`tiny`, a text or .jsonl file, or a Hugging Face dataset with a `text` column."""
    tokens: Literal["all", "diagnostic"] = "all"
    training_tokens: int = Field(default=400_000, gt=0)
    batch_tokens: int = Field(default=1024, gt=0)
    context_size: int = Field(default=128, gt=1)
    lr: float = Field(default=2e-3, gt=0)
    lr_scheduler: Literal["constant", "cosineannealing", "cosineannealingwarmrestarts"] = "constant"
    lr_warm_up_steps: int = Field(default=20, ge=0)
    """At most a quarter of all steps, and so is the decay: a short training has less of both."""
    lr_decay_steps: int = Field(default=40, ge=0)
    max_norm: float | None = Field(default=10.0, gt=0)
    """Attention sinks are left out of training: norm over so many times the median."""
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _options_belong_to_an_architecture(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("architecture", "batchtopk") != "batchtopk":
            return {"options": {}, **data}
        return data


class LoadSpec(Spec):
    """An SAE that exists already."""

    source: str
    """A SAELens release or a folder in SAELens's format."""
    sae_id: str | None = None


class SAESpec(Spec):
    """Train an SAE or load one: exactly one of the two."""

    train: TrainSpec | None = None
    load: LoadSpec | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> SAESpec:
        if (self.train is None) == (self.load is None):
            raise ValueError("give either train or load, not both and not neither")
        return self


class SelectSpec(Spec):
    """How features are chosen: contrast between two domains of other prompts than the steered."""

    prompts: str = "tiny-domains"
    positive: str = "code"
    negative: str = "math"
    at: Literal["assistant_start", "answer"] = "assistant_start"
    k: int = Field(default=10, gt=0)
    """Candidates for each side."""
    score: Literal["mean_difference", "auroc", "firing_difference"] = "mean_difference"
    answer_tokens: int = Field(default=32, gt=0)
    """With at: answer, prompts without an answer get one from the model, of so many tokens."""

    @model_validator(mode="after")
    def _two_domains(self) -> SelectSpec:
        if self.positive == self.negative:
            raise ValueError(f"positive and negative are both {self.positive!r}: name two domains")
        return self
