"""Texts steered along features, and along random directions beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from saelens_steer.config import GenerateSpec, LabelSpec, PromptSpec, SweepSpec
from saelens_steer.data import Prompt
from saelens_steer.labels import Pair, SteeredTexts
from saelens_steer.study import Study

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
) -> Study:
    """A study that only writes texts, at multiples of A_max: those of `spec` by default. Where is
    steered is as in `sweep`."""
    changes = {
        "features": "candidates",
        "alphas": (0.0, *(alphas or spec.strengths)),
        "alpha_unit": "max_act",
        "match": None,
        "n_controls": 0,
        "cache_logits": False,
        "generate": GenerateSpec(max_new_tokens=spec.max_new_tokens, n_controls=0),
    }
    settings = sweep.model_copy(update=changes)
    return Study(model, None, hook_name, tuple(prompts), settings, METRICS, prompt_spec)


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

    def pairs(self, feature: int, prompts: Sequence[Prompt]) -> tuple[Pair, ...]:
        """The feature's text at the largest strength beside that of its random direction."""
        own, found = self._steered.get(feature, {}), list[Pair]()
        for prompt in prompts:
            if prompt.id in own:
                alpha, other = self._others[f"feature_{feature}", prompt.id]
                texts = prompt.text, own[prompt.id][alpha], other
                found.append(Pair(*(text[: self.chars] for text in texts)))
        return tuple(found)

    def steered(self, feature: int) -> list[str]:
        """Every text of the feature at a strength other than 0."""
        own = self._steered.get(feature, {}).values()
        return [text for texts in own for alpha, text in texts.items() if alpha != 0]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # pyright: ignore[reportReturnType]
