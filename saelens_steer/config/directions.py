"""Specs of selection, the comparison of directions, and trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field, field_validator, model_serializer, model_validator

from saelens_steer.config.base import Spec
from saelens_steer.config.edits import EditSpec, check_gate, check_sweepable
from saelens_steer.config.sizes import Count, CountOrZero
from saelens_steer.errors import or_known

ContrastScore = Literal["mean_difference", "auroc", "firing_difference"]
"""Scores of a feature's activations."""
CausalScore = Literal["output_score", "token_confidence", "direct_logit", "attribution"]
"""Scores of a feature's effect on the model's predictions."""
Score = Literal[ContrastScore, CausalScore]


class SelectSpec(Spec):
    """How features are chosen, on prompts that are not steered.

    Contrast scores compare activations on two domains: mean_difference, auroc, firing_difference.
    Causal scores use the model's predictions: direct_logit (the logit that W_dec[f] adds to the
    first margin's target tokens minus its other tokens), output_score and token_confidence (the
    effect of a push on the tokens that W_dec[f] promotes most, and on the model's confidence), and
    attribution (the gradient of the first metric along W_dec[f]; it uses the outcome itself, so it
    is circular: a reference, not evidence).
    """

    prompts: str = "tiny-domains"
    positive: str = "code"
    negative: str = "math"
    reference: str | None = None
    """A third domain, such as prose, with which each side is compared instead of with the other:
    what one side's features do to the other then plays no part in choosing them."""
    at: Literal["assistant_start", "prompt", "answer"] = "assistant_start"
    """Which tokens are compared: the last of the prompt, all of it, or the answer's."""
    k: Count = 10
    """Candidates per side."""
    score: Score = "mean_difference"
    shortlist: Count = 50
    """Features per side, the best by mean_difference, that output_score and token_confidence
    rerank: these scores do not tell which side a feature is for."""
    push: float = Field(default=1.0, gt=0)
    """Norm of the pushes of these two scores, in multiples of mean ‖x‖."""
    push_prompts: Count = 12
    """Causal scores use the first prompts of each side, up to this many."""
    pool: Literal["tokens", "max"] = "tokens"
    """max: each prompt counts once, with its largest activation over tokens."""
    answer_tokens: Count = 32
    """Maximum length of the answers that the model writes for prompts without one (at: answer)."""
    chat: bool | None = None
    """prompts.chat for these prompts; null: the same. false also leaves out prompts.system and the
    other options of the template."""

    @model_validator(mode="after")
    def _two_domains(self) -> SelectSpec:
        if self.positive == self.negative:
            raise ValueError(f"positive and negative are both {self.positive!r}: name two domains")
        if self.reference in (self.positive, self.negative):
            raise ValueError(f"reference is a side, {self.reference!r}: name a third domain")
        return self


CONTRASTS, CAUSAL = get_args(ContrastScore), get_args(CausalScore)
PARTS = ("assistant_start", "prompt", "answer")


class SourceFacts(NamedTuple):
    """The inputs of a source of directions, and what kind of evidence its effect is."""

    evidence: Literal["selection", "tokens", "ceiling", "without SAE", "control", "given"]
    """selection: does not use the outcome. tokens: uses the metric's tokens. ceiling: uses the
    outcome itself. control: random."""
    needs: frozenset[str] = frozenset()
    """sae, activations, outcome, tested (the directions under test)."""


def _facts(evidence: Any, *needs: str) -> SourceFacts:
    return SourceFacts(evidence, frozenset(needs))


SOURCES: dict[str, SourceFacts] = {
    "mean_difference": _facts("selection", "sae", "activations"),
    "auroc": _facts("selection", "sae", "activations"),
    "firing_difference": _facts("selection", "sae", "activations"),
    "output_score": _facts("selection", "sae", "activations", "outcome"),
    "token_confidence": _facts("selection", "sae", "activations", "outcome"),
    "direct_logit": _facts("tokens", "sae", "activations", "outcome"),
    "attribution": _facts("ceiling", "sae", "activations", "outcome"),
    "difference_of_means": _facts("without SAE", "activations"),
    "linear_probe": _facts("without SAE", "activations"),
    "covariance": _facts("control", "activations"),
    "isotropic": _facts("control"),
    "feature": _facts("control", "sae", "activations", "tested"),
    "permuted": _facts("control", "tested"),
    "token_difference": _facts("control", "activations"),
}
"""Name → facts of a source of directions; `directions.FINDERS` has its function."""
FAMILIES = tuple(name for name, facts in SOURCES.items() if facts.evidence == "control")
"""Families of controls."""
VECTOR_FILES = (".safetensors", ".gguf")


def is_custom(name: str) -> bool:
    """Whether a name is `package.module:function`."""
    return ":" in name


def is_file(name: str) -> bool:
    """Whether a name is a file of steering vectors."""
    return Path(name).suffix in VECTOR_FILES


def evidence_of(source: str) -> str:
    """What kind of evidence a source's effect is (see SourceFacts)."""
    name = source.partition("@")[0]
    if name in SOURCES:
        return SOURCES[name].evidence
    return "selection" if is_custom(name) else "given"


def check_sources(names: Sequence[str | int]) -> None:
    """Raise ValueError for an unknown or repeated source of directions.

    Sources are feature indices, names in SOURCES (contrast scores also with @assistant_start,
    @prompt or @answer), files of steering vectors, and `package.module:function`.
    """
    for name in names:
        if isinstance(name, int) or is_custom(name) or is_file(name):
            continue
        base, _, at = name.partition("@")
        if base not in SOURCES:
            raise ValueError(f"{name!r} is not a source of directions; {or_known(base, SOURCES)}")
        if at and (base not in CONTRASTS or at not in PARTS):
            raise ValueError(f"{name!r}: only {', '.join(CONTRASTS)} accept @{', @'.join(PARTS)}")
    if len(set(names)) < len(names):
        raise ValueError("a source of directions is listed twice")


class CompareDirectionsSpec(Spec):
    """Ways to find directions, compared by their effects on the first logit metric.

    Effects are measured on the steered prompts, which no score has seen. Contrast scores may name a
    part of the selection prompts, as in mean_difference@answer; the default is select.at. With
    @answer, the model answers prompts that have no answer. Answers join the cached activations, and
    so affect covariance controls and mean ‖x‖.
    """

    methods: tuple[str | int, ...] = (
        "mean_difference@answer",
        "mean_difference@assistant_start",
        "auroc@answer",
        "auroc@assistant_start",
        "output_score",
        "token_confidence",
        "direct_logit",
        "attribution",
        "difference_of_means",
        "linear_probe",
    )
    baseline: str = "mean_difference@answer"
    """The method whose effect is the denominator of the ratios."""
    k: Count = 3
    """Best features per side."""
    norm: float = Field(default=0.25, gt=0)
    """Norm of every push at equal norm, in multiples of mean ‖x‖."""
    kl: float = Field(default=0.02, gt=0)
    """Mean KL of pushes at equal KL, in nats."""
    ask: dict[str, str] = Field(default_factory=dict)
    """Domain → words appended to each prompt that ask for it, as an alternative to steering."""

    @model_validator(mode="after")
    def _known(self) -> CompareDirectionsSpec:
        check_sources(self.methods)
        if self.baseline not in map(str, self.methods):
            raise ValueError(
                f"baseline {self.baseline!r} is not among the methods: set "
                f"compare_directions.baseline to one of {', '.join(map(str, self.methods))}"
            )
        return self


class PlacedEditSpec(EditSpec):
    """An edit and its positions: `add@last`, or `add: {keep_norm: true}` with `positions: last`."""

    positions: Literal["all", "last"] = "all"

    @property
    def label(self) -> str:
        edit = super().label
        return edit if self.positions == "all" else f"{edit}@{self.positions}"

    @model_validator(mode="before")
    @classmethod
    def _name_at_positions(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, _, at = value.partition("@")
        return {name: {}, **({"positions": at} if at else {})}

    @model_serializer
    def _placed(self) -> str | dict[str, Any]:
        given = self.options.model_dump(exclude_defaults=True)
        at = {} if self.positions == "all" else {"positions": self.positions}
        if not given:
            return "@".join((self.kind, *at.values()))
        return {self.kind: given, **at}


class TradeoffsSpec(Spec):
    """The effects of directions and edits on one domain, and on all others.

    Strengths are pushes in multiples of mean ‖x‖; the factor of `scale` is 1 + α, and an edit
    without a strength is measured once. `edit@last` edits only the last prompt token, other edits
    all positions.
    """

    prompts: str = "tiny-domains-heldout"
    """Prompts of several domains that selection has not seen."""
    limit: Count | None = 12
    """Use only the first `limit` prompts of each domain."""
    target: str | None = None
    """The side of select to push towards; null: the one with the larger first logit metric."""
    domain: str = "mixed"
    """Prompts on which the effect is intended; on all others it is damage."""
    directions: tuple[str | int, ...] = (
        "mean_difference@answer",
        "mean_difference@assistant_start",
        "direct_logit",
        "difference_of_means",
        "linear_probe",
        "attribution",
    )
    """Features by index, or methods as in compare_directions.methods."""
    top: Count = 3
    """Best features per method."""
    edits: tuple[PlacedEditSpec, ...] = (
        PlacedEditSpec.model_validate("add"),
        PlacedEditSpec.model_validate("add@last"),
        PlacedEditSpec.model_validate({"add": {"keep_norm": True}, "positions": "last"}),
        PlacedEditSpec.model_validate({"add": {"gate": "probe"}, "positions": "last"}),
        PlacedEditSpec.model_validate({"add": {"orthogonal_to": "domains"}}),
        PlacedEditSpec.model_validate("set_to"),
    )
    """The first is the baseline for the others."""
    alphas: tuple[float, ...] = (0.25, 0.5)
    effect: float | None = Field(default=1.0, gt=0)
    """Also find the strength with this effect; null: do not search for one."""
    max_new_tokens: CountOrZero = 40
    """Length of the texts for validity and perplexity; 0: generate none."""

    @field_validator("alphas")
    @classmethod
    def _pushes(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not alphas or min(alphas) <= 0:
            raise ValueError("strengths must be above 0: `target` sets the direction")
        return tuple(sorted(set(alphas)))

    @model_validator(mode="after")
    def _known(self) -> TradeoffsSpec:
        check_sources(self.directions)
        for edit in self.edits:
            check_sweepable(edit, "tradeoffs")
            check_gate(edit, edit.positions)
        labels = [edit.label for edit in self.edits]
        if len(set(labels)) < len(labels):
            raise ValueError("an edit is listed twice")
        if not self.directions or not self.edits:
            raise ValueError("needs at least one direction and one edit")
        return self
