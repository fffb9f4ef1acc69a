"""How strongly features respond to the categories of a topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Bool
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.features.responses import Places, responses


@dataclass(frozen=True)
class TopicStrengths:
    """How strongly each feature responds to each category of a topic."""

    categories: tuple[str, ...]
    n_prompts: tuple[int, ...]
    strengths: tuple[tuple[float, ...], ...]
    """Feature × category: mean over prompts of the largest activation in the prompt's own text."""


def topic_strengths(sae: SAE[Any], topic: Activations, features: Sequence[int]) -> TopicStrengths:
    """Mean over each category's prompts of the largest activation in a prompt's own text, ≥ 0.

    What all prompts begin or end with, such as a chat template, is left out.
    """
    found = responses(sae, topic, features, own_text(topic))
    of_prompt, categories = found.places.domain_of_prompt, found.places.domains
    n = torch.bincount(of_prompt, minlength=len(categories))
    total = torch.zeros(len(categories), len(features), dtype=torch.float64)
    mean = total.index_add_(0, of_prompt, found.peak.double()) / n[:, None]
    return TopicStrengths(categories, tuple(n.tolist()), tuple(map(tuple, mean.T.tolist())))


def own_text(activations: Activations) -> Bool[Tensor, " n"]:
    """False on the tokens that all prompts begin with, or end with; each keeps one at least."""
    tokens = activations.index["token"].to_numpy()
    places = Places.of(activations)
    rows = [places.rows_of(prompt) for prompt in range(len(places.prompts))]
    texts = [tokens[own.numpy()].tolist() for own in rows]
    if all(text == texts[0] for text in texts):
        return torch.ones(len(tokens), dtype=torch.bool)
    head = _shared(texts)
    tail = _shared([text[head:][::-1] for text in texts])
    kept = torch.zeros(len(tokens), dtype=torch.bool)
    for own in rows:
        start = min(head, len(own) - 1)
        kept[own[start : max(start + 1, len(own) - tail)]] = True
    return kept


def _shared(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all texts begin with."""
    together = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, together))
