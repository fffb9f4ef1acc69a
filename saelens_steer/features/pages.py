"""Feature pages: firing, logit effects, neighbours and topic strengths."""

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
from saelens_steer.features.activity import (
    FeatureActivity,
    Histogram,
    TokenOrigins,
    feature_activity,
)
from saelens_steer.features.contexts import Context, best_rows, contexts_at, shown_tokens
from saelens_steer.features.decoder import Neighbour, WrittenToken, neighbours, written_tokens
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.sae import DENSE, check_feature, check_sae_at, counts_firing, steers_at


@dataclass(frozen=True)
class DomainRate:
    """How often a feature fires on the prompts of one domain."""

    domain: str
    n_tokens: int
    firing_rate: float
    """Share of the domain's cached tokens."""
    n_prompts: int
    prompt_rate: float
    """Share of the domain's prompts with a token on which the feature fires."""


@dataclass(frozen=True)
class Firing:
    """How a feature fires on the cached tokens."""

    firing_rate: float
    """Share of all cached tokens."""
    a_max: float
    """The largest activation z; 0 if the feature never fires."""
    contexts: tuple[Context, ...]
    """Contexts of the largest activations, one per prompt, largest first."""
    histogram: Histogram
    domains: tuple[DomainRate, ...]


@dataclass(frozen=True)
class FeaturePage:
    """The page of one feature."""

    feature: int
    side: str
    """The side it is a candidate of, or an empty string."""
    firing: Firing | None
    """None for an SAE without an encoder."""
    raised: tuple[WrittenToken, ...]
    lowered: tuple[WrittenToken, ...]
    neighbours: tuple[Neighbour, ...]
    """Live features; any features for an SAE without an encoder."""


@dataclass(frozen=True)
class TopicStrengths:
    """How strongly each feature responds to each category of a topic."""

    categories: tuple[str, ...]
    n_prompts: tuple[int, ...]
    strengths: tuple[tuple[float, ...], ...]
    """[feature][category]: mean over prompts of the largest activation in the prompt's own text."""


@dataclass(frozen=True)
class FeaturePageData:
    """Pages of some features, and counts over the whole SAE."""

    hook_name: str
    d_sae: int
    n_tokens: int
    n_prompts: int
    n_alive: int | None
    """Features that fire on a cached token; None for an SAE without an encoder."""
    n_dense: int | None
    """Features that fire on more than a tenth of the cached tokens."""
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
) -> FeaturePageData:
    """Pages of the features and of `spec.also`, from activations at the SAE's hook.

    `topic`: activations of prompts whose domains are categories. `sides`: feature → the side it is
    a candidate of. If firing cannot be counted (`counts_firing`), pages have only tokens and
    neighbours. Raises InputError for an unknown feature, or activations of another hook or width.
    """
    features, sides = list(dict.fromkeys([*features, *spec.also])), sides or {}
    for feature in features:
        check_feature(sae, feature)
    for read in (activations,) if topic is None else (activations, topic):
        check_sae_at(sae, read.d_model, read.hook_name)
    n_tokens = len(activations)
    live, n_alive, n_dense = torch.ones(sae.cfg.d_sae, dtype=torch.bool), None, None
    firing: Sequence[Firing | None] = [None] * len(features)
    strengths = None
    if counts_firing(sae):
        shown = shown_tokens(tokenizer_of(model), activations)
        found = feature_activity(sae, activations, features, shown)
        top = [best_rows(found, column)[: spec.contexts] for column in range(len(features))]
        contexts = contexts_at(tokenizer_of(model), sae, activations, found, top, spec.window)
        firing = _firing(found, contexts, n_tokens)
        live, n_dense = found.fired > 0, int((found.fired > DENSE * n_tokens).sum())
        n_alive = int(live.sum())
        strengths = None if topic is None else topic_strengths(sae, topic, features)
    tokens = written_tokens(
        model, sae, features, steers_at(sae) or activations.hook_name, spec.tokens
    )
    near = neighbours(sae, features, live, spec.neighbours, sides)
    pages = tuple(
        FeaturePage(feature, sides.get(feature, ""), own, *written, others)
        for feature, own, written, others in zip(features, firing, tokens, near, strict=True)
    )
    n_prompts = len(set(activations.index["prompt_id"]))
    sizes = sae.cfg.d_sae, n_tokens, n_prompts, n_alive, n_dense
    return FeaturePageData(activations.hook_name, *sizes, pages, strengths)


def _firing(
    found: FeatureActivity, contexts: Sequence[tuple[Context, ...]], n_tokens: int
) -> list[Firing]:
    rates = (found.fired[list(found.features)].double() / n_tokens).tolist()
    a_max, domains = found.largest.amax(0).tolist(), _domains(found)
    fields = zip(rates, a_max, contexts, found.histograms, domains, strict=True)
    return [Firing(*of_feature) for of_feature in fields]


def _domains(found: FeatureActivity) -> list[tuple[DomainRate, ...]]:
    """For each feature, its firing rates in each domain."""
    origins, of_prompt = found.origins, found.origins.domain_of_prompt
    n = len(origins.domains)
    tokens = torch.bincount(origins.domain_of, minlength=n)
    prompts = torch.bincount(of_prompt, minlength=n)
    hits = torch.zeros_like(found.fired_in).index_add_(0, of_prompt, (found.largest > 0).long())
    rates = found.rates.tolist()
    shares = (hits.double() / prompts[:, None]).T.tolist()
    sizes = list(zip(origins.domains, tokens.tolist(), prompts.tolist(), strict=True))
    return [
        tuple(
            DomainRate(domain, n_tokens, rate, n_prompts, share)
            for (domain, n_tokens, n_prompts), rate, share in zip(sizes, own, hit, strict=True)
        )
        for own, hit in zip(rates, shares, strict=True)
    ]


def topic_strengths(sae: SAE[Any], topic: Activations, features: Sequence[int]) -> TopicStrengths:
    """Mean over each category's prompts of the largest activation in the prompt's own text, ≥ 0.

    A prefix or suffix shared by all prompts, like a chat template, is ignored.
    """
    found = feature_activity(sae, topic, features, own_text(topic))
    of_prompt, categories = found.origins.domain_of_prompt, found.origins.domains
    n = torch.bincount(of_prompt, minlength=len(categories))
    total = torch.zeros(len(categories), len(features), dtype=torch.float64)
    mean = total.index_add_(0, of_prompt, found.peak.double()) / n[:, None]
    return TopicStrengths(categories, tuple(n.tolist()), tuple(map(tuple, mean.T.tolist())))


def own_text(activations: Activations) -> Bool[Tensor, " n"]:
    """False on the prefix and suffix that all prompts share; each keeps at least one token."""
    tokens = activations.index["token"].to_numpy()
    origins = TokenOrigins.of(activations)
    rows = [origins.rows_of(prompt) for prompt in range(len(origins.prompts))]
    texts = [tokens[own.numpy()].tolist() for own in rows]
    if all(text == texts[0] for text in texts):
        return torch.ones(len(tokens), dtype=torch.bool)
    head = _common_prefix(texts)
    tail = _common_prefix([text[head:][::-1] for text in texts])
    kept = torch.zeros(len(tokens), dtype=torch.bool)
    for own in rows:
        start = min(head, len(own) - 1)
        kept[own[start : max(start + 1, len(own) - tail)]] = True
    return kept


def _common_prefix(texts: Sequence[Sequence[int]]) -> int:
    """Length of the common prefix."""
    together = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, together))
