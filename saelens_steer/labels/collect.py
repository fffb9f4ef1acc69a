"""Collect the evidence for labels: contexts, steered texts, and tokens the decoder writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.activations import Activations
from saelens_steer.config import CompletionSpec, LabelSpec, SweepSpec, TemplateSpec
from saelens_steer.data import Prompt, SpecialTokens, some_prompts
from saelens_steer.directions import draw_controls
from saelens_steer.errors import InputError
from saelens_steer.features import Scale, written_tokens
from saelens_steer.labels.contexts import cached_texts, firing_contexts
from saelens_steer.labels.labeller import (
    HeldOutExamples,
    LabelCase,
    LabelEvidence,
    LabelInputs,
    SteeredTexts,
    TextPair,
)
from saelens_steer.labels.scores import steering_effect
from saelens_steer.model import hook_layer
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.steering import Directions, feature_directions, per_candidate_controls
from saelens_steer.sweeps import Measurement

CONTROLS = "covariance"
"""The family of the random directions in the causal score."""
METRICS = ("kl", "distinct_words")
"""A measurement writes texts only for a text metric; the values are not used here."""
TOKENS = 10
"""Tokens in the evidence that a decoder row raises, and as many that it lowers."""
Writer = Callable[[Measurement, Directions], pd.DataFrame]
"""Generates the completions of all directions."""


def text_study(
    model: Any,
    hook_name: str,
    prompts: Sequence[Prompt],
    spec: LabelSpec,
    sweep: SweepSpec,
    template: TemplateSpec,
    alphas: Sequence[float] = (),
    special_tokens: SpecialTokens = None,
) -> Measurement:
    """A measurement that only writes texts, at multiples of A_max (by default `spec.strengths`).

    Everything else is as in `sweep`, such as the steered positions.
    """
    changes = {
        "features": "candidates",
        "alphas": (0.0, *(alphas or spec.strengths)),
        "alpha_unit": "max_act",
        "match": None,
        "n_controls": 0,
        "cache_logits": False,
        "completions": CompletionSpec(max_new_tokens=spec.max_new_tokens, n_controls=0),
    }
    spec_of_texts = sweep.model_copy(update=changes)
    given = model, None, hook_name, tuple(prompts), spec_of_texts, METRICS, template
    return Measurement(*given, special_tokens=special_tokens)


@dataclass(frozen=True)
class EvidenceCollector:
    """Collects the evidence that features are labelled from."""

    model: Any
    sae: SAE[Any]
    hook_name: str
    activations: Activations
    """All tokens of the prompts on which features were chosen."""
    prompts: Sequence[Prompt]
    """The prompts that are steered. None may be among the cached ones."""
    spec: LabelSpec
    features: Sequence[int]
    sides: Mapping[int, str]
    scale: Scale
    sweep: SweepSpec
    """Where and how to steer; strengths and lengths are those of `spec`."""
    template: TemplateSpec
    steered_activations: Activations | None = None
    """Activations at `hook_name`, for random directions; None if `activations` are of that hook."""

    def check_prompts(self) -> None:
        """Raise InputError if a steered prompt is among the cached ones."""
        cached = list(cached_texts(tokenizer_of(self.model), self.activations))
        for prompt in self.prompts:
            if any(all(turn in text for turn in prompt.turns) for text in cached):
                raise InputError(
                    f"{prompt.text[:60]!r} is both steered and cached: steer other prompts, since "
                    "labels must be tested on prompts that the labeller has not seen"
                )

    @cached_property
    def _shown(self) -> list[Prompt]:
        """The prompts whose steered texts the labeller sees."""
        return some_prompts(self.prompts, self.spec.examples, self.spec.seed)

    @cached_property
    def _held_out(self) -> list[Prompt]:
        """The prompts whose steered texts test the names."""
        return [prompt for prompt in self.prompts if prompt not in self._shown]

    @property
    def steerable(self) -> list[int]:
        """The features with an A_max; the others never fire in the cache."""
        return [f for f in self.features if self.scale.max_act.get(f, 0) > 0]

    @property
    def n_texts(self) -> int:
        """The number of texts to generate, unsteered ones included."""
        n = len(self.steerable)
        return self.spec.n_texts(n, len(self.prompts)) if n else 0

    def measurement(self, prompts: Sequence[Prompt], *alphas: float) -> Measurement:
        """The measurement of these prompts at multiples of A_max, by default `spec.strengths`."""
        given = self.model, self.hook_name, prompts, self.spec, self.sweep, self.template
        return text_study(*given, alphas, self.sae)

    def texts(self, write: Writer) -> LabelTexts:
        """Texts of each feature, and of a random direction of the same norm after held-out prompts.

        The features are steered at every strength, the random directions at the largest. Each
        held-out prompt has its own random direction, so no score hinges on a single one; all
        features share it up to its norm, so it does not depend on which features are labelled.
        """
        if not self.steerable:
            return LabelTexts(pd.DataFrame(), pd.DataFrame(), self.spec.example_chars)
        tested = feature_directions(self.sae, self.steerable, "max_act", self.scale)
        at_hook = self.steered_activations or self.activations
        d_model, strongest = at_hook.d_model, max(self.spec.strengths)
        options = {"d_model": d_model, "seed": self.spec.seed, "vectors": at_hook}
        drawn = draw_controls(CONTROLS, len(self.prompts), **options)
        tables = [
            write(
                self.measurement([prompt], strongest),
                per_candidate_controls(CONTROLS, drawn[i : i + 1], tested),
            )
            for i, prompt in enumerate(self.prompts)
            if prompt in self._held_out
        ]
        features = write(self.measurement(self.prompts), tested)
        controls = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        return LabelTexts(features, controls, self.spec.example_chars)

    def collect(self, texts: LabelTexts) -> LabelInputs:
        """The evidence on each feature and its held-out examples, with the cached texts."""
        tokenizer, cases = tokenizer_of(self.model), []
        written = written_tokens(self.model, self.sae, self.features, self.hook_name, TOKENS)
        found = firing_contexts(tokenizer, self.sae, self.activations, self.features, self.spec)
        for feature, tokens, own in zip(self.features, written, found, strict=True):
            side, shown = self.sides.get(feature, ""), texts.shown(feature, self._shown)
            evidence = LabelEvidence(feature, side, own.top, own.rates, *tokens, shown)
            trials = HeldOutExamples(own.firing, own.silent, texts.pairs(feature, self._held_out))
            steered = [
                tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in texts.steered(feature)
            ]
            effect = steering_effect(steered)
            cases.append(LabelCase(evidence.only(self.spec.evidence), trials, effect))
        return LabelInputs(
            hook_layer(self.hook_name),
            tuple(cases),
            tuple(cached_texts(tokenizer, self.activations)),
            getattr(self.sae.cfg.metadata, "neuronpedia_id", None),
        )


@dataclass(frozen=True)
class LabelTexts:
    """Completions of each feature at each strength, and of its random controls."""

    features: pd.DataFrame
    controls: pd.DataFrame
    """Random directions at the largest strength, another for each prompt; `matched_to` names the
    feature they are compared with."""
    chars: int
    """Characters of a text that the labeller sees, in naming and in tests."""

    @cached_property
    def _steered(self) -> dict[int, dict[str, dict[float, str]]]:
        """feature → prompt → strength → text."""
        found: dict[int, dict[str, dict[float, str]]] = {}
        for row in _records(self.features):
            own = found.setdefault(int(row["feature"]), {}).setdefault(str(row["prompt_id"]), {})
            own[float(row["alpha"])] = str(row["completion"])
        return found

    @cached_property
    def _others(self) -> dict[tuple[str, str], tuple[float, str]]:
        """(feature's name, prompt) → the strength, and the text along the random direction."""
        return {
            (str(row["matched_to"]), str(row["prompt_id"])): (row["alpha"], row["completion"])
            for row in _records(self.controls)
            if row["alpha"] != 0
        }

    def shown(self, feature: int, prompts: Sequence[Prompt]) -> tuple[SteeredTexts, ...]:
        """The feature's texts after these prompts; empty if it was not steered."""
        found = list[SteeredTexts]()
        for prompt in prompts:
            if texts := self._steered.get(feature, {}).get(prompt.id):
                cut = {alpha: text[: self.chars] for alpha, text in texts.items()}
                found.append(SteeredTexts(prompt.text[: self.chars], cut.pop(0.0), cut))
        return tuple(found)

    def pairs(self, feature: int, prompts: Sequence[Prompt]) -> tuple[TextPair, ...]:
        """Per prompt, the feature's text at the largest strength and the random direction's."""
        found = list[TextPair]()
        for prompt in prompts:
            if own := self._steered.get(feature, {}).get(prompt.id):
                alpha, other = self._others[f"feature_{feature}", prompt.id]
                texts = prompt.text, own[alpha], other
                found.append(TextPair(*(text[: self.chars] for text in texts)))
        return tuple(found)

    def steered(self, feature: int) -> list[str]:
        """All texts of the feature at nonzero strengths."""
        own = self._steered.get(feature, {}).values()
        return [text for texts in own for alpha, text in texts.items() if alpha != 0]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # pyright: ignore[reportReturnType]
