"""The specs of the sweep and its completions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from saelens_steer.config.base import Seed, Spec
from saelens_steer.config.compare_edits import MaxNorm
from saelens_steer.config.directions import FAMILIES, check_sources, is_custom
from saelens_steer.config.edits import EditSpec, check_gate, check_sweepable
from saelens_steer.config.sizes import Count, CountOrZero, check_rows, check_texts

DEFAULT_ALPHAS = (-4.0, -2.0, 0.0, 2.0, 4.0)
AlphaUnit = Literal["raw", "unit", "max_act", "resid_norm", "kl"]
Match = Literal["norm", "kl"]
ONCE = (0.0, 1.0)
"""The alphas of an edit without a strength: unsteered and steered."""
SPLICE_MAX_NORM = 10.0
"""A spliced SAE skips positions whose norm exceeds this multiple of their prompt's median: it was
not trained on attention sinks, and a damaged sink breaks the model."""


class CompletionSpec(Spec):
    """Which completions are generated, and how."""

    max_new_tokens: Count = 64
    temperature: float = Field(default=0.0, ge=0)
    samples: Count = 1
    top: CountOrZero = 2
    """Candidates per side that get completions."""
    n_controls: CountOrZero = 2
    """Control directions that get completions."""
    files: bool = False
    """Also write one JSON per feature and prompt, with the original and every strength."""

    @model_validator(mode="after")
    def _samples_need_temperature(self) -> CompletionSpec:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                "samples > 1 needs a temperature above 0: greedy samples are identical"
            )
        return self


class SweepSpec(Spec):
    """Directions × strengths × prompts, compared with controls."""

    features: Literal["candidates"] | tuple[int, ...] = "candidates"
    directions: tuple[str | int, ...] | None = None
    """Sources of directions instead of features, as in tradeoffs.directions."""
    top: Count = 3
    """With `directions`: number per source and side."""
    edit: EditSpec = EditSpec.model_validate("add")
    """The edit applied along each direction. α is the strength of a push, the factor of `scale`
    minus 1, or the z of `set_to`. project_out, ablate and reconstruct have no strength and are
    measured once, at α = 1. α = 0 is always the unsteered model."""
    alphas: tuple[float, ...] = DEFAULT_ALPHAS
    alpha_unit: AlphaUnit = "raw"
    """raw: α·W_dec[f]. unit: α·W_dec[f]/‖W_dec[f]‖. max_act: α·A_max(f)·W_dec[f], with A_max the
    largest cached activation. resid_norm: α · mean ‖x‖ · unit vector. kl: push along ±W_dec[f], or
    a control, until the mean KL from the unsteered next-token distribution is |α| nats."""
    positions: Literal["all", "prompt", "last"] = "all"
    exclude_special_tokens: bool = False
    """Do not steer special tokens."""
    max_norm: MaxNorm = "auto"
    """Leave attention sinks unsteered: positions whose norm exceeds this multiple of their prompt's
    median. auto: 10 if an SAE is spliced in, otherwise no limit."""
    n_controls: CountOrZero | dict[str, Count] = 512
    """K, the number of controls per family, or a mapping of each family to its number."""
    controls: str | tuple[str, ...] = "covariance"
    """Families of controls. Claims are tested against the first; each further one shows how the
    result depends on the family, and adds as many rows as it has controls. covariance: N(0, Σ),
    with Σ of the cached residuals. isotropic: uniform directions. feature: W_dec rows of other
    features that fire about as often. permuted: directions under test with shuffled coordinates.
    token_difference: x_a − x_b of two cached tokens."""
    match: Match | None = None
    """What a control shares with its candidate: the norm of the push, or the mean KL from the
    unsteered model. null: kl if alpha_unit is kl, otherwise norm; candidates of equal norm then
    share controls. The other choice needs K controls per candidate; with kl, finding their
    strengths costs about six times as many rows again."""
    seed: Seed = 0
    executor: Literal["local"] = "local"
    batch_tokens: Count | None = None
    """Tokens per batch of rows; null: 2,048 on a CPU, 16,384 on a GPU. Another value changes the
    last digits of results."""
    cache_logits: bool = False
    """Keep every row's last-token logits (float32), so that new metrics need no forward pass."""
    completions: CompletionSpec = CompletionSpec()

    @property
    def named(self) -> tuple[int, ...]:
        """Features named by index; empty if the candidates are swept."""
        if self.directions is not None:
            return tuple(source for source in self.directions if isinstance(source, int))
        return () if isinstance(self.features, str) else self.features

    @property
    def families(self) -> tuple[str, ...]:
        """Families of controls, that of the claims first; empty without controls."""
        return tuple(self.controls_by_family)

    @property
    def controls_by_family(self) -> dict[str, int]:
        """Family of controls → number, that of the claims first; empty without controls."""
        families = (self.controls,) if isinstance(self.controls, str) else self.controls
        if isinstance(self.n_controls, dict):
            return {family: self.n_controls[family] for family in families}
        return dict.fromkeys(families, self.n_controls) if self.n_controls else {}

    def work(self, tested: int) -> tuple[int, int]:
        """Upper bounds for this many directions: their controls, and the directions with texts."""
        apart = tested if self.per_candidate_controls or self.alpha_unit == "max_act" else 1
        numbers, few = [n * apart for n in self.controls_by_family.values()], self.completions
        chosen = min(tested, 2 * few.top)
        of_each = few.n_controls * (chosen if apart > 1 else 1)
        return sum(numbers), chosen + min([of_each, *numbers[:1]])

    def check_size(self, n_prompts: int, texts: bool, tested: int = 1) -> None:
        """Raise InputError if the rows of this many directions exceed the memory, or the texts.

        `texts`: whether completions are generated.
        """
        strengths, few = len(self.alphas) * n_prompts, self.completions
        n_controls, with_texts = self.work(tested)
        check_rows(
            (tested + n_controls) * strengths,
            "directions and controls × alphas × prompts",
            "lower n_controls, or give fewer directions (select.k), alphas or prompts",
        )
        check_texts(
            with_texts * strengths * few.samples if texts else 0,
            few.max_new_tokens,
            "samples × directions and controls × alphas × prompts",
            "lower completions.samples or n_controls, or give fewer alphas or prompts",
        )

    @property
    def norm_limit(self) -> float | None:
        """`max_norm` as a number, or None."""
        if self.max_norm == "auto":
            return SPLICE_MAX_NORM if self.edit.splices else None
        return self.max_norm

    @property
    def matched_by(self) -> Match:
        """What controls share with candidates."""
        return self.match or ("kl" if self.alpha_unit == "kl" else "norm")

    @property
    def per_candidate_controls(self) -> bool:
        """Whether each candidate has separate controls: `match` differs from α's unit, or the edit
        is not a push, so that controls match its ‖Δx‖ at each token."""
        return not self.edit.is_push or (self.matched_by == "kl") != (self.alpha_unit == "kl")

    @property
    def calibrated(self) -> bool:
        """Whether strengths are found by KL."""
        return "kl" in (self.alpha_unit, self.match)

    @field_validator("controls", mode="wrap")
    @classmethod
    def _family_or_families(cls, value: Any, check: Any) -> Any:
        wanted = ValueError(f"should be one of {', '.join(FAMILIES)}, or a list of them")
        try:
            given = check(value)
        except ValidationError:
            raise wanted from None
        families = (given,) if isinstance(given, str) else given
        if any(family not in FAMILIES and not is_custom(family) for family in families):
            raise wanted
        if not families or len(set(families)) < len(families):
            raise ValueError("lists a family twice" if families else "lists no family")
        return families[0] if len(families) == 1 else families

    @field_validator("features", mode="wrap")
    @classmethod
    def _candidates_or_indices(cls, value: Any, check: Any) -> Any:
        try:
            features = check(value)
        except ValidationError:
            raise ValueError("should be 'candidates' or a list of feature indices") from None
        if len(set(features)) < len(features) and features != "candidates":
            raise ValueError("lists a feature twice")
        return features

    @field_validator("alphas")
    @classmethod
    def _sorted_with_zero(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not any(alphas):
            raise ValueError("needs at least one strength other than 0")
        return tuple(sorted({0.0, *alphas}))

    @model_validator(mode="after")
    def _directions_or_features(self) -> SweepSpec:
        if self.directions is not None:
            if not self.directions:
                raise ValueError("directions should not be empty")
            check_sources(self.directions)
            if self.features != "candidates":
                raise ValueError("set either features or directions, not both")
        return self

    @model_validator(mode="after")
    def _one_number_per_family(self) -> SweepSpec:
        families = {self.controls} if isinstance(self.controls, str) else {*self.controls}
        if isinstance(self.n_controls, dict) and {*self.n_controls} != families:
            raise ValueError(
                "n_controls should give a number to each family in controls and to no other: "
                f"{', '.join(sorted(families))}"
            )
        return self

    @model_validator(mode="after")
    def _strengths_of_the_edit(self) -> SweepSpec:
        edit, strength = self.edit, self.edit.options.strength
        check_sweepable(edit, "the sweep")
        check_gate(edit, self.positions)
        if self.calibrated and not edit.is_push:
            raise ValueError(
                f"edit {edit.label}: strengths can be set by KL only for plain `add`: choose "
                "another alpha_unit, and leave match out"
            )
        if strength in ("factor", None) and self.alpha_unit != "raw":
            raise ValueError(f"edit {edit.kind} ignores the unit of α: leave alpha_unit out")
        if strength is None:
            if self.alphas not in (DEFAULT_ALPHAS, ONCE):
                raise ValueError(f"edit {edit.kind} has no strength: leave alphas out")
            object.__setattr__(self, "alphas", ONCE)
        return self
