"""One frozen spec per step; RunSpec composes them.

The defaults describe the tiny run, so a config states only what differs. Unknown keys are
refused with the nearest known key named.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from saelens_steer.config.base import Spec
from saelens_steer.config.metric_specs import DEFAULT_METRICS, MetricSpec

TINY = "tiny-qwen3"


class ModelSpec(Spec):
    """Which model, as what class, in what precision, where."""

    name: str = TINY
    """`tiny-qwen3`, a Hugging Face id, or a local folder."""
    class_: Literal["HookedTransformer", "TransformerBridge"] = Field(
        default="HookedTransformer", alias="class"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"


class PromptSpec(Spec):
    """The prompts that are steered and measured."""

    source: str = "tiny-code-math-mixed"
    """A shipped name, a .jsonl path, or a Hugging Face dataset."""
    limit: int | None = Field(default=24, gt=0)
    """Use the first so many; null for all."""
    system: str | None = None
    """A system message for the chat template."""
    chat: bool = True
    """Wrap each text in the model's chat template; false: the text as it stands."""


class ActivationSpec(Spec):
    """Which tokens' activations are kept."""

    tokens: Literal["all", "last", "diagnostic"] = "all"
    max_norm: float | None = Field(default=10.0, gt=0)
    """Drop attention sinks: vectors whose norm exceeds so many times the median; null keeps all."""
    batch_size: int = Field(default=32, gt=0)


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


class GenerateSpec(Spec):
    """Which steered completions are written out, and how."""

    max_new_tokens: int = Field(default=64, gt=0)
    temperature: float = Field(default=0.0, ge=0)
    samples: int = Field(default=1, gt=0)
    top: int = Field(default=2, ge=0)
    """So many candidates of each side get completions."""
    n_controls: int = Field(default=2, ge=0)
    """So many control directions get completions."""

    @model_validator(mode="after")
    def _samples_need_temperature(self) -> GenerateSpec:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                "samples > 1 needs a temperature above 0: greedy samples are all equal"
            )
        return self


class SweepSpec(Spec):
    """Directions × strengths × prompts, against controls."""

    features: Literal["candidates"] | tuple[int, ...] = "candidates"
    edit: Literal["add"] = "add"
    alphas: tuple[float, ...] = (-4.0, -2.0, 0.0, 2.0, 4.0)
    alpha_unit: Literal["raw", "unit"] = "raw"
    """raw: α·W_dec[f]. unit: α·W_dec[f]/‖W_dec[f]‖."""
    positions: Literal["all", "last"] = "all"
    n_controls: int = Field(default=512, ge=0)
    controls: Literal["covariance", "isotropic"] = "covariance"
    seed: int = 0
    executor: Literal["local"] = "local"
    batch_tokens: int = Field(default=8192, gt=0)
    """Tokens in one batch of rows; part of the packing plan (see sweeps/)."""
    generate: GenerateSpec = GenerateSpec()

    @field_validator("features", mode="wrap")
    @classmethod
    def _candidates_or_indices(cls, value: Any, check: Any) -> Any:
        try:
            features = check(value)
        except ValidationError:
            raise ValueError("should be 'candidates' or a list of feature indices") from None
        if len(set(features)) < len(features) and features != "candidates":
            raise ValueError("names a feature twice")
        return features

    @field_validator("alphas")
    @classmethod
    def _sorted_with_zero(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not any(alphas):
            raise ValueError("needs at least one strength other than 0")
        return tuple(sorted({0.0, *alphas}))


def _other_model(data: Any) -> bool:
    """Whether a mapping names another model than the tiny one."""
    model = data.get("model") if isinstance(data, dict) else None
    return isinstance(model, dict) and model.get("name", TINY) != TINY


class RunSpec(Spec):
    """The whole story: config → model → prompts → activations → SAE → features → sweep."""

    model: ModelSpec = ModelSpec()
    hook_name: str | None = None
    """null: blocks.{n_layers // 2}.hook_resid_pre, for the tiny model only."""
    prompts: PromptSpec = PromptSpec()
    activations: ActivationSpec = ActivationSpec()
    sae: SAESpec = SAESpec(train=TrainSpec())
    select: SelectSpec = SelectSpec()
    sweep: SweepSpec = SweepSpec()
    metrics: tuple[MetricSpec, ...] = Field(default=DEFAULT_METRICS, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _real_models_get_more(cls, data: Any) -> Any:
        """For another model than the tiny one: a thousand controls, and every prompt."""
        if not _other_model(data):
            return data
        sweep, prompts = data.get("sweep", {}), data.get("prompts")
        if isinstance(sweep, dict):
            data = {**data, "sweep": {"n_controls": 1000, **sweep}}
        return (
            {**data, "prompts": {"limit": None, **prompts}} if isinstance(prompts, dict) else data
        )

    @model_validator(mode="after")
    def _answers_are_kept(self) -> RunSpec:
        if self.select.at == "answer" and self.activations.tokens == "last":
            raise ValueError(
                "select.at: answer needs tokens of answers, which activations.tokens: last drops"
            )
        return self

    @model_validator(mode="after")
    def _real_models_say_more(self) -> RunSpec:
        if self.model.name != TINY and (missing := self._left_to_defaults()):
            raise ValueError(
                f"for model {self.model.name!r} the config must state "
                f"{', '.join(missing)}: the defaults are for {TINY}"
                + (f"; did you mean {TINY!r}?" if self.model.name.startswith("tiny") else "")
            )
        return self

    def _left_to_defaults(self) -> list[str]:
        """What is not stated, of all that makes sense for the tiny model only."""
        stated = self.model_fields_set - ({"hook_name"} if self.hook_name is None else set())
        missing = {"hook_name", "sae", "prompts", "select"} - stated
        inner = {"prompts.source": self.prompts, "select.prompts": self.select}
        inner |= {"sae.train.corpus": self.sae.train} if self.sae.train else {}
        for name, spec in inner.items():
            section, key = name.split(".")[0], name.split(".")[-1]
            if section not in missing and key not in spec.model_fields_set:
                missing.add(name)
        return sorted(missing)
