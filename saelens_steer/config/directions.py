"""Specs of where directions come from: selection, sources compared, trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field, field_validator, model_serializer, model_validator

from saelens_steer.config.base import Spec
from saelens_steer.config.edits import EditSpec, check_gate, check_sweepable
from saelens_steer.errors import or_known

ContrastScore = Literal["mean_difference", "auroc", "firing_difference"]
"""What activations say of a feature."""
CausalScore = Literal["output_score", "token_confidence", "direct_logit", "attribution"]
"""What the model does when the feature is pushed, or would do."""
Score = Literal[ContrastScore, CausalScore]
"""Either."""


class SelectSpec(Spec):
    """How features are chosen, on other prompts than the steered.

    By contrast between two domains (mean_difference, auroc, firing_difference), or by what the
    model makes of the feature: direct_logit (what W_dec[f] adds to the logits of the first margin's
    target, less those of the others), output_score and token_confidence (what a push does to the
    tokens that W_dec[f] stands for, and to how sure the model is), or attribution (the gradient of
    the first metric along W_dec[f]; it uses the outcome itself, so it is a ceiling).
    """

    prompts: str = "tiny-domains"
    positive: str = "code"
    negative: str = "math"
    at: Literal["assistant_start", "answer"] = "assistant_start"
    k: int = Field(default=10, gt=0)
    """Candidates for each side."""
    score: Score = "mean_difference"
    shortlist: int = Field(default=50, gt=0)
    """output_score and token_confidence do not say which side a feature is for: they rank so many
    of each side, the best by mean_difference."""
    push: float = Field(default=1.0, gt=0)
    """Size of their pushes, in multiples of the mean ‖x‖."""
    push_prompts: int = Field(default=12, gt=0)
    """Scores that ask the model look at the first so many prompts of each side."""
    pool: Literal["tokens", "max"] = "tokens"
    """max: every prompt counts once, with the largest activation over its tokens."""
    answer_tokens: int = Field(default=32, gt=0)
    """With at: answer, prompts without an answer get one from the model, of so many tokens."""
    chat: bool | None = None
    """Wrap these prompts in the chat template, or leave them as they stand; null: as prompts.chat.
    A system message (prompts.system) goes with the template."""

    @model_validator(mode="after")
    def _two_domains(self) -> SelectSpec:
        if self.positive == self.negative:
            raise ValueError(f"positive and negative are both {self.positive!r}: name two domains")
        return self


CONTRASTS, CAUSAL = get_args(ContrastScore), get_args(CausalScore)
PARTS = ("assistant_start", "answer")


class SourceFacts(NamedTuple):
    """What a source of directions reads, and how its effect counts as evidence."""

    evidence: Literal["selection", "tokens", "ceiling", "without SAE", "control", "given"]
    """selection: chosen without the outcome. tokens: the score reads the metric's tokens. ceiling:
    it reads the outcome itself. control: random."""
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
"""Name → facts of a source of directions. `directions.FINDERS` finds them, under the same name."""
FAMILIES = tuple(name for name, facts in SOURCES.items() if facts.evidence == "control")
"""The families of controls."""
VECTOR_FILES = (".safetensors", ".gguf")


def is_custom(name: str) -> bool:
    """Whether a name is `package.module:function`."""
    return ":" in name


def is_file(name: str) -> bool:
    """Whether a name is a file of steering vectors."""
    return Path(name).suffix in VECTOR_FILES


def evidence_of(source: str) -> str:
    """How the effect of a source's directions counts."""
    name = source.partition("@")[0]
    if name in SOURCES:
        return SOURCES[name].evidence
    return "selection" if is_custom(name) else "given"


def check_sources(names: Sequence[str | int]) -> None:
    """Raise ValueError for a name that is no source of directions, and for one named twice.

    Known are feature indices, the names of SOURCES (contrast scores with @assistant_start or
    @answer), files of steering vectors, and `package.module:function`.
    """
    for name in names:
        if isinstance(name, int) or is_custom(name) or is_file(name):
            continue
        base, _, at = name.partition("@")
        if base not in SOURCES:
            raise ValueError(f"{name!r} is not a source of directions; {or_known(base, SOURCES)}")
        if at and (base not in CONTRASTS or at not in PARTS):
            raise ValueError(f"{name!r}: only {', '.join(CONTRASTS)} accept @{' or @'.join(PARTS)}")
    if len(set(names)) < len(names):
        raise ValueError("a source of directions is named twice")


class CompareDirectionsSpec(Spec):
    """Ways to choose features, compared by what the chosen ones do to the first logit metric.

    Measured on the steered prompts, which no score has seen. Contrast scores may say on which part
    of the selection prompts: mean_difference@answer; without, select.at. Where the prompts have no
    answers, @answer lets the model write them, and they join the cached activations, which
    covariance controls and mean ‖x‖ come from.
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
    """What the others' effects are divided by."""
    k: int = Field(default=3, gt=0)
    """The first so many features of each side."""
    norm: float = Field(default=0.25, gt=0)
    """Size of the pushes at equal norm, in multiples of the mean ‖x‖."""
    kl: float = Field(default=0.02, gt=0)
    """Equal disturbance: pushes to a mean KL of so many nats."""
    ask: dict[str, str] = Field(default_factory=dict)
    """Domain → words that ask for it, which are put behind each prompt: the plain alternative."""

    @model_validator(mode="after")
    def _known(self) -> CompareDirectionsSpec:
        check_sources(self.methods)
        if self.baseline not in map(str, self.methods):
            raise ValueError(
                f"baseline {self.baseline!r} is not among the methods: give "
                f"compare_directions.baseline, one of {', '.join(map(str, self.methods))}"
            )
        return self


class PlacedEditSpec(EditSpec):
    """An edit and where it acts: `add@last`, or `add: {keep_norm: true}` with `positions: last`."""

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
    """What directions and edits do to one domain, and to all the others.

    Strengths are pushes in multiples of the mean ‖x‖. A factor (`scale`) is 1 + α, and an edit
    without a strength is measured once. `edit@last` acts on the last prompt token alone, others on
    all positions.
    """

    prompts: str = "tiny-domains-heldout"
    """Prompts of several domains, none of which selection has seen."""
    limit: int | None = Field(default=12, gt=0)
    """The first so many of each domain."""
    target: str | None = None
    """The side of select that is pushed towards; null: the one the first logit metric favours."""
    domain: str = "mixed"
    """The effect is wanted on these prompts; on all others it is damage."""
    directions: tuple[str | int, ...] = (
        "mean_difference@answer",
        "mean_difference@assistant_start",
        "direct_logit",
        "difference_of_means",
        "linear_probe",
        "attribution",
    )
    """Features by index, or ways to find directions as in compare."""
    top: int = Field(default=3, gt=0)
    """The first so many features of each way."""
    edits: tuple[PlacedEditSpec, ...] = (
        PlacedEditSpec.model_validate("add"),
        PlacedEditSpec.model_validate("add@last"),
        PlacedEditSpec.model_validate({"add": {"keep_norm": True}, "positions": "last"}),
        PlacedEditSpec.model_validate({"add": {"gate": "probe"}, "positions": "last"}),
        PlacedEditSpec.model_validate({"add": {"orthogonal_to": "domains"}}),
        PlacedEditSpec.model_validate("set_to"),
    )
    """The others are compared with the first."""
    alphas: tuple[float, ...] = (0.25, 0.5)
    effect: float | None = 1.0
    """Also find the strength at which the effect is so large; null: do not."""
    max_new_tokens: int = Field(default=40, ge=0)
    """Length of the texts that validity and perplexity are measured on; 0: write none."""

    @field_validator("alphas")
    @classmethod
    def _pushes(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not alphas or min(alphas) <= 0:
            raise ValueError("strengths must be above 0: `target` says which way")
        return tuple(sorted(set(alphas)))

    @field_validator("effect")
    @classmethod
    def _some_effect(cls, effect: float | None) -> float | None:
        if effect is not None and not effect > 0:
            raise ValueError("must be above 0: `target` says which way")
        return effect

    @model_validator(mode="after")
    def _known(self) -> TradeoffsSpec:
        check_sources(self.directions)
        for edit in self.edits:
            check_sweepable(edit, "tradeoffs")
            check_gate(edit, edit.positions)
        labels = [edit.label for edit in self.edits]
        if len(set(labels)) < len(labels):
            raise ValueError("an edit is named twice")
        if not self.directions or not self.edits:
            raise ValueError("needs at least one direction and one edit")
        return self
