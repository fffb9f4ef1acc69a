"""How strongly features respond to the categories of a topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Bool
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.config import FeaturesSpec
from saelens_steer.features.contexts import Context, shown_tokens, top_contexts
from saelens_steer.features.decoder import Neighbour, WrittenToken, neighbours, written_tokens
from saelens_steer.features.responses import Histogram, Places, Responses, responses
from saelens_steer.sae import DENSE, check_feature, check_sae_at


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


@dataclass(frozen=True)
class DomainRate:
    """How often a feature fires on the prompts of one domain."""

    domain: str
    n_tokens: int
    firing_rate: float
    """Share of the domain's cached tokens."""
    n_prompts: int
    prompt_rate: float
    """Share of its prompts with any token on which the feature fires."""


@dataclass(frozen=True)
class Firing:
    """What a feature does on the cached tokens."""

    firing_rate: float
    """Share of all cached tokens."""
    a_max: float
    """The largest activation, in units of z; 0 where it never fires."""
    contexts: tuple[Context, ...]
    """The largest activations, one for each prompt, largest first."""
    histogram: Histogram
    domains: tuple[DomainRate, ...]


@dataclass(frozen=True)
class FeaturePage:
    """What is known of one feature."""

    feature: int
    side: str
    """The side it is a candidate of, or an empty text."""
    firing: Firing | None
    """None for an SAE that has only its decoder."""
    raised: tuple[WrittenToken, ...]
    lowered: tuple[WrittenToken, ...]
    neighbours: tuple[Neighbour, ...]
    """Live features; of an SAE that has only its decoder, any."""


@dataclass(frozen=True)
class FeaturePages:
    """Pages of some features, and how many features of the SAE fire in the cache."""

    hook_name: str
    d_sae: int
    n_tokens: int
    n_prompts: int
    n_alive: int | None
    """Features that fire on some cached token; None for an SAE that has only its decoder."""
    n_dense: int | None
    """Features that fire on more than a tenth of them."""
    pages: tuple[FeaturePage, ...]
    topic: TopicStrengths | None

    def to_json(self) -> dict[str, Any]:
        """The content of feature_pages.json."""
        return asdict(self)


def pages_of(
    model: Any,
    sae: SAE[Any],
    activations: Activations,
    features: Sequence[int],
    spec: FeaturesSpec,
    topic: Activations | None = None,
    sides: Mapping[int, str] | None = None,
) -> FeaturePages:
    """Pages of the features (and of `spec.also`), from activations that the SAE reads.

    `topic`: activations of prompts whose domains are categories. `sides`: feature → the side it is
    a candidate of. An SAE that has only its decoder gives tokens and neighbours alone. Raises
    InputError for an unknown feature, or activations of another hook or width.
    """
    features, sides = list(dict.fromkeys([*features, *spec.also])), sides or {}
    given = [activations] if topic is None else [activations, topic]
    _check(sae, features, given)
    known = _known(model.tokenizer, sae, activations, features, spec)
    tokens = written_tokens(model, sae, features, activations.hook_name, spec.tokens)
    near = neighbours(sae, features, known.live, spec.neighbours, sides)
    pages = tuple(
        FeaturePage(feature, sides.get(feature, ""), firing, *written, others)
        for feature, firing, written, others in zip(
            features, known.firing, tokens, near, strict=True
        )
    )
    sizes = sae.cfg.d_sae, len(activations), len(set(activations.index["prompt_id"]))
    by_category = None
    if topic is not None and not sae.cfg.metadata.decoder_only:
        by_category = topic_strengths(sae, topic, features)
    counts = known.n_alive, known.n_dense
    return FeaturePages(activations.hook_name, *sizes, *counts, pages, by_category)


def _check(sae: SAE[Any], features: Sequence[int], given: Sequence[Activations]) -> None:
    for feature in features:
        check_feature(sae, feature)
    for activations in given:
        check_sae_at(sae, activations.d_model, activations.hook_name)


@dataclass(frozen=True)
class _Known:
    """What the activations say: of the features, and how many of the SAE fire."""

    firing: Sequence[Firing | None]
    live: Bool[Tensor, " d_sae"]
    n_alive: int | None = None
    n_dense: int | None = None


def _known(
    tokenizer: Any,
    sae: SAE[Any],
    activations: Activations,
    features: Sequence[int],
    spec: FeaturesSpec,
) -> _Known:
    if sae.cfg.metadata.decoder_only:
        return _Known([None] * len(features), torch.ones(sae.cfg.d_sae, dtype=torch.bool))
    shown = shown_tokens(tokenizer, activations)
    found = responses(sae, activations, features, shown)
    contexts = top_contexts(tokenizer, sae, activations, found, shown, spec.contexts, spec.window)
    live, dense = found.fired > 0, found.fired > DENSE * len(activations)
    return _Known(
        _firing(found, contexts, len(activations)), live, int(live.sum()), int(dense.sum())
    )


def _firing(
    found: Responses, contexts: Sequence[tuple[Context, ...]], n_tokens: int
) -> list[Firing]:
    rates = found.fired[list(found.features)].double() / n_tokens
    sizes = zip(rates.tolist(), found.largest.amax(0).tolist(), strict=True)
    rows = zip(sizes, contexts, found.histograms, _domains(found), strict=True)
    return [Firing(*size, own, histogram, domains) for size, own, histogram, domains in rows]


def _domains(found: Responses) -> list[tuple[DomainRate, ...]]:
    """For each feature, its rates in each domain."""
    places = found.places
    n, of_prompt = len(places.domains), places.domain_of_prompt
    tokens = torch.bincount(places.domain_of, minlength=n)
    prompts = torch.bincount(of_prompt, minlength=n)
    hits = torch.zeros_like(found.fired_in).index_add_(0, of_prompt, (found.largest > 0).long())
    rates = found.rates.tolist()
    shares = (hits.double() / prompts[:, None]).T.tolist()
    sizes = list(zip(places.domains, tokens.tolist(), prompts.tolist(), strict=True))
    return [
        tuple(
            DomainRate(domain, n_tokens, rate, n_prompts, share)
            for (domain, n_tokens, n_prompts), rate, share in zip(sizes, own, hit, strict=True)
        )
        for own, hit in zip(rates, shares, strict=True)
    ]
