"""The evidence for labels: contexts, steered texts, and what the decoder writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.activations import Activations
from saelens_steer.config import CompletionSpec, LabelSpec, PromptSpec, SweepSpec
from saelens_steer.data import Prompt, some_prompts
from saelens_steer.directions import draw_controls
from saelens_steer.errors import InputError
from saelens_steer.features import Scale, written_tokens
from saelens_steer.labels.contexts import FiringRecord, cached_texts, firing_of
from saelens_steer.labels.evidence import (
    Gathered,
    LabelCase,
    LabelEvidence,
    LabelTrials,
    SteeredTexts,
    TextPair,
)
from saelens_steer.labels.scores import steering_effect
from saelens_steer.model import hook_layer
from saelens_steer.steering import Directions, feature_directions, own_controls
from saelens_steer.sweeps import Measurement
from saelens_steer.tensors import Vectors

METRICS = ("kl", "distinct_words")
"""A study writes texts where it has a metric of them; what they measure is not read here."""


def text_study(
    model: Any,
    hook_name: str,
    prompts: Sequence[Prompt],
    spec: LabelSpec,
    sweep: SweepSpec,
    prompt_spec: PromptSpec,
    alphas: Sequence[float] = (),
) -> Measurement:
    """A study that only writes texts, at multiples of A_max: those of `spec` by default. Where is
    steered is as in `sweep`."""
    changes = {
        "features": "candidates",
        "alphas": (0.0, *(alphas or spec.strengths)),
        "alpha_unit": "max_act",
        "match": None,
        "n_controls": 0,
        "cache_logits": False,
        "completions": CompletionSpec(max_new_tokens=spec.max_new_tokens, n_controls=0),
    }
    settings = sweep.model_copy(update=changes)
    return Measurement(model, None, hook_name, tuple(prompts), settings, METRICS, prompt_spec)


@dataclass(frozen=True)
class Texts:
    """Completions of each feature at each strength, and of a random direction for each feature."""

    features: pd.DataFrame
    controls: pd.DataFrame
    """At the largest strength, under the name of the feature they are compared with; another
    direction after each prompt."""
    chars: int
    """Characters that are shown of a text, to whoever names and to whoever judges."""

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
        """(name of the feature, prompt) → the strength, and the text along its random direction."""
        return {
            (str(row["matched_to"]), str(row["prompt_id"])): (row["alpha"], row["completion"])
            for row in _records(self.controls)
            if row["alpha"] != 0
        }

    def shown(self, feature: int, prompts: Sequence[Prompt]) -> tuple[SteeredTexts, ...]:
        """The feature's texts after these prompts; none of a feature that was not steered."""
        own = self._steered.get(feature, {})
        return tuple(self._shown(p, own[p.id]) for p in prompts if p.id in own)

    def _shown(self, prompt: Prompt, texts: Mapping[float, str]) -> SteeredTexts:
        cut = {alpha: text[: self.chars] for alpha, text in texts.items()}
        return SteeredTexts(prompt.text[: self.chars], cut.pop(0.0), cut)

    def pairs(self, feature: int, prompts: Sequence[Prompt]) -> tuple[TextPair, ...]:
        """The feature's text at the largest strength beside that of its random direction."""
        own, found = self._steered.get(feature, {}), list[TextPair]()
        for prompt in prompts:
            if prompt.id in own:
                alpha, other = self._others[f"feature_{feature}", prompt.id]
                texts = prompt.text, own[prompt.id][alpha], other
                found.append(TextPair(*(text[: self.chars] for text in texts)))
        return tuple(found)

    def steered(self, feature: int) -> list[str]:
        """Every text of the feature at a strength other than 0."""
        own = self._steered.get(feature, {}).values()
        return [text for texts in own for alpha, text in texts.items() if alpha != 0]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # pyright: ignore[reportReturnType]


CONTROLS = "covariance"
"""The family of the random directions that a causal score holds a feature against."""
TOKENS = 10
"""Tokens known of those that a decoder row raises, and of those it lowers."""
Writer = Callable[[Measurement, Directions], pd.DataFrame]
"""Writes the completions of all directions of a study."""


@dataclass(frozen=True)
class EvidenceGathering:
    """What the evidence for labels is gathered from."""

    model: Any
    sae: SAE[Any]
    hook_name: str
    activations: Activations
    """Of all tokens of the prompts on which features were chosen."""
    prompts: Sequence[Prompt]
    """Those that are steered."""
    spec: LabelSpec
    features: Sequence[int]
    sides: Mapping[int, str]
    scale: Scale
    sweep: SweepSpec
    """Where is steered: positions and the like."""
    prompt_spec: PromptSpec

    def check_prompts(self) -> None:
        """Raise InputError for a steered prompt that is among the cached ones."""
        cached = list(cached_texts(self.model.tokenizer, self.activations))
        for prompt in self.prompts:
            if any(prompt.text in text for text in cached):
                raise InputError(
                    f"{prompt.text[:60]!r} is steered and among the cached prompts: names must be "
                    "tested on other prompts than features are chosen on"
                )

    @property
    def steerable(self) -> list[int]:
        """The features that have an A_max; the others fire nowhere in the cache."""
        return [f for f in self.features if self.scale.max_act.get(f, 0) > 0]

    @property
    def n_texts(self) -> int:
        """Texts to be written, the unsteered ones of each study among them."""
        n, tested = len(self.steerable), len(self._examples[1])
        return len(self.prompts) * (n * len(self.spec.strengths) + 1) + tested * (n + 1) if n else 0

    def measurement(self, prompts: Sequence[Prompt], *alphas: float) -> Measurement:
        """The study that writes texts at these multiples of A_max, by default at all of them."""
        given = self.model, self.hook_name, prompts, self.spec, self.sweep, self.prompt_spec
        return text_study(*given, alphas)

    def texts(self, write: Writer) -> Texts:
        """Texts of each feature at each strength; and at the largest, after each prompt that names
        are tested on, that of a random direction of the same norm.

        Each prompt has a direction of its own, so that a score does not hang on one. It is the same
        for all features but for its norm, and so for each whatever others are labelled.
        """
        if not self.steerable:
            return Texts(pd.DataFrame(), pd.DataFrame(), self.spec.example_chars)
        tested = feature_directions(self.sae, self.steerable, "max_act", self.scale)
        d_model, strongest = self.model.cfg.d_model, max(self.spec.strengths)
        options = {"d_model": d_model, "seed": self.spec.seed, "vectors": self.activations}
        drawn = draw_controls(CONTROLS, len(self.prompts), **options)
        places = [i for i, prompt in enumerate(self.prompts) if prompt in self._examples[1]]
        others = [
            write(self.measurement([self.prompts[i]], strongest), _beside(tested, drawn[i : i + 1]))
            for i in places
        ]
        own = write(self.measurement(self.prompts), tested)
        controls = pd.concat(others, ignore_index=True) if others else pd.DataFrame()
        return Texts(own, controls, self.spec.example_chars)

    def gathered(self, texts: Texts) -> Gathered:
        """What each feature is named from and tested on, and what words are common."""
        return Gathered(
            hook_layer(self.hook_name),
            tuple(self._cases(texts)),
            tuple(cached_texts(self.model.tokenizer, self.activations)),
            getattr(self.sae.cfg.metadata, "neuronpedia_id", None),
        )

    def _cases(self, texts: Texts) -> list[LabelCase]:
        tokenizer = self.model.tokenizer
        written = written_tokens(self.model, self.sae, self.features, self.hook_name, TOKENS)
        known = firing_of(tokenizer, self.sae, self.activations, self.features, self.spec)
        triples = zip(self.features, written, known, strict=True)
        return [self._case(feature, *tokens, own, texts) for feature, tokens, own in triples]

    def _case(
        self, feature: int, raised: Any, lowered: Any, known: FiringRecord, texts: Texts
    ) -> LabelCase:
        shown, kept = self._examples
        own = known.top, known.rates or {}, raised, lowered, texts.shown(feature, shown)
        trials = LabelTrials(known.firing, known.silent, texts.pairs(feature, kept))
        return LabelCase(
            LabelEvidence(feature, self.sides.get(feature, ""), *own).only(self.spec.evidence),
            trials,
            steering_effect([self._ids(text) for text in texts.steered(feature)]),
        )

    @cached_property
    def _examples(self) -> tuple[list[Prompt], list[Prompt]]:
        """The prompts whose texts are shown, and those that names are tested on."""
        shown = some_prompts(self.prompts, self.spec.examples, self.spec.seed)
        return shown, [prompt for prompt in self.prompts if prompt not in shown]

    def _ids(self, text: str) -> list[int]:
        return self.model.tokenizer(text, add_special_tokens=False)["input_ids"]


def _beside(tested: Directions, direction: Vectors) -> Directions:
    """One direction for each that is tested, of its norm and under its name."""
    each = [own_controls(CONTROLS, direction, tested.take([i])) for i in range(len(tested))]
    return reduce(add, each)
