"""RunSpec: one frozen spec per step.

Defaults describe a run on the tiny model, so a config contains only what differs.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from saelens_steer.config.base import Clash, HookName, Spec
from saelens_steer.config.compare_edits import CompareEditsSpec
from saelens_steer.config.directions import (
    CompareDirectionsSpec,
    SelectSpec,
    TradeoffsSpec,
    is_custom,
    is_file,
)
from saelens_steer.config.draft import LENIENT
from saelens_steer.config.inputs import (
    TINY,
    ActivationSpec,
    ModelSpec,
    PromptSpec,
    TemplateSpec,
    left_to_defaults,
)
from saelens_steer.config.labels import FeaturesSpec, LabelSpec
from saelens_steer.config.metrics import DEFAULT_METRICS, MetricSpec
from saelens_steer.config.sae import SAESpec, TrainSpec
from saelens_steer.config.sweep import SweepSpec

SOURCE_KEYS = ("sweep.directions", "compare_directions.methods", "tradeoffs.directions")
DEMO: dict[str, Any] = {
    "sweep": {
        "alphas": [-0.6, -0.3, 0, 0.3, 0.6],
        "alpha_unit": "resid_norm",
        "completions": {"top": 1, "n_controls": 40},
    }
}
"""The demo: the tiny run at strengths that change what the model writes, with as many texts of
controls as a claim about two directions needs."""


class RunSpec(Spec):
    """A whole run: model → prompts → activations → SAE → features → sweep → report."""

    model: ModelSpec = ModelSpec()
    hook_name: HookName | None = None
    """null: blocks.{n_layers // 2}.hook_resid_pre. Required for models other than the tiny one."""
    prompts: PromptSpec = PromptSpec()
    activations: ActivationSpec = ActivationSpec()
    sae: SAESpec = SAESpec(train=TrainSpec())
    select: SelectSpec = SelectSpec()
    features: FeaturesSpec = FeaturesSpec()
    label: LabelSpec | None = LabelSpec()
    """Labels of features on the pages, with scores; null: none."""
    sweep: SweepSpec = SweepSpec()
    compare_edits: CompareEditsSpec | None = None
    """Edited variants of the model, compared with the original; null: none."""
    compare_directions: CompareDirectionsSpec | None = None
    """Ways to find directions, compared by measured effect; null: none."""
    tradeoffs: TradeoffsSpec | None = None
    """Effects of directions and edits on one domain and on the others; null: not measured."""
    metrics: tuple[MetricSpec, ...] = Field(default=DEFAULT_METRICS, min_length=1)
    """What is measured. Required for models other than the tiny one."""

    @property
    def named_features(self) -> tuple[int, ...]:
        """Features that the sweep, an edit or the feature pages name by index."""
        patched = self.compare_edits.named if self.compare_edits else ()
        return tuple(sorted({*self.sweep.named, *patched, *self.features.also}))

    @property
    def reads_answers(self) -> bool:
        """Whether selection or a source of directions reads activations of answers."""
        at_answers = (str(source).endswith("@answer") for source in self.sources)
        return self.select.at == "answer" or any(at_answers)

    @property
    def sources(self) -> tuple[str | int, ...]:
        """Sources of directions in the sweep, the comparison and the trade-offs."""
        compared = self.compare_directions.methods if self.compare_directions else ()
        traded = self.tradeoffs.directions if self.tradeoffs else ()
        return (*(self.sweep.directions or ()), *compared, *traded)

    @property
    def from_elsewhere(self) -> tuple[str, ...]:
        """Functions and files that the config names, whose contents may change: custom edits,
        sources of directions, families of controls, files of vectors."""
        compared = self.compare_edits.edits if self.compare_edits else []
        edits = [self.sweep.edit, *compared, *(self.tradeoffs.edits if self.tradeoffs else ())]
        functions = [edit.custom.function for edit in edits if edit.custom]
        names = [*map(str, self.sources), *self.sweep.families]
        return (*functions, *(name for name in names if is_custom(name) or is_file(name)))

    @property
    def template(self) -> TemplateSpec:
        """Template of selection prompts: that of the steered ones, unless select.chat differs."""
        if self.select.chat is False:
            return TemplateSpec(chat=False)
        chat = self.prompts.chat if self.select.chat is None else True
        return TemplateSpec(**{**self.prompts.options, "chat": chat})

    @property
    def where_steered(self) -> dict[str, Any]:
        """Settings of the sweep that determine where it steers, and the seed."""
        keys = {"positions", "exclude_special_tokens", "max_norm", "batch_tokens", "seed"}
        return self.sweep.model_dump(include=keys)

    @model_validator(mode="before")
    @classmethod
    def _real_models_get_more(cls, data: Any) -> Any:
        """Defaults for models other than the tiny one: 1,000 controls, all prompts, no topic."""
        model = data.get("model") if isinstance(data, dict) else None
        if not isinstance(model, dict) or model.get("name", TINY) == TINY:
            return data
        defaults = {"features": {"topic": None}, "sweep": {"n_controls": 1000}}
        defaults |= {"prompts": {"limit": None}} if "prompts" in data else {}
        for section, keys in defaults.items():
            if isinstance(given := data.get(section, {}), dict):
                data = {**data, section: {**keys, **given}}
        return data

    @model_validator(mode="after")
    def _fits_together(self, info: Any) -> RunSpec:
        if info.context is not LENIENT and (clashes := self.clashes()):
            raise ValueError("; ".join(clash.sentence for clash in clashes))
        return self

    def clashes(self) -> list[Clash]:
        """What is wrong between sections."""
        found = []
        if self.reads_answers and self.activations.tokens == "last":
            found.append(
                Clash(
                    "select.at: answer, like any method with @answer, needs the activations of the "
                    "answers: set activations.tokens to all",
                    ("select.at", "activations.tokens", *SOURCE_KEYS),
                )
            )
        read = {self.select.at, *(str(source).partition("@")[2] for source in self.sources)}
        if "prompt" in read and self.activations.tokens != "all":
            found.append(
                Clash(
                    "select.at: prompt and methods with @prompt need activations of whole prompts: "
                    "set activations.tokens to all",
                    ("select.at", "activations.tokens", *SOURCE_KEYS),
                )
            )
        starts = self.select.at == "assistant_start" or self.compare_directions or self.tradeoffs
        if starts and self.activations.tokens == "answer":
            found.append(
                Clash(
                    "activations.tokens: answer drops the assistant start: set select.at: answer, "
                    "and leave out compare_directions and tradeoffs",
                    ("select.at", "activations.tokens"),
                )
            )
        given = self.sweep.features != "candidates" or self.sweep.directions
        if self.sae.frozen_decoder_baseline and given:
            found.append(
                Clash(
                    "the SAE of sae.frozen_decoder_baseline has different features: leave "
                    "sweep.features at candidates, so that each SAE sweeps its own candidates",
                    ("sae.frozen_decoder_baseline", "sweep.features", "sweep.directions"),
                )
            )
        if self.model.name != TINY and (missing := self._left_to_defaults()):
            found.append(
                Clash(
                    left_to_defaults(self.model.name, "the config", missing)
                    + ("; write metrics: [kl] or name your own" if "metrics" in missing else "")
                    + (f"; did you mean {TINY!r}?" if self.model.name.startswith("tiny") else ""),
                    ("model.name", *missing),
                )
            )
        return found

    def _left_to_defaults(self) -> list[str]:
        """Missing keys whose defaults fit only the tiny model."""
        stated = self.model_fields_set - ({"hook_name"} if self.hook_name is None else set())
        missing = {"hook_name", "sae", "prompts", "select", "metrics"} - stated
        inner = {"prompts.source": self.prompts, "select.prompts": self.select}
        inner |= {"sae.train.corpus": self.sae.train} if self.sae.train else {}
        inner |= {"tradeoffs.prompts": self.tradeoffs} if self.tradeoffs else {}
        for name, spec in inner.items():
            section, key = name.split(".")[0], name.split(".")[-1]
            if section not in missing and key not in spec.model_fields_set:
                missing.add(name)
        return sorted(missing)
