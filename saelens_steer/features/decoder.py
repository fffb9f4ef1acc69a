"""What the decoder says about features: logit effects and nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.data import describe, ordinary_entries, special_ids
from saelens_steer.model import direct_logits, writes_to_stream
from saelens_steer.model.model_class import tokenizer_of

AT_ONCE = 64
"""Features whose full-vocabulary logits are held at once."""
ROWS = 8192
"""Decoder rows compared at once."""


@dataclass(frozen=True)
class WrittenToken:
    """A token and the decoder row's direct effect on its logit, up to the final norm's scale."""

    token: int
    text: str
    logit: float


@dataclass(frozen=True)
class Neighbour:
    """Another feature, and the cosine of the two decoder rows."""

    feature: int
    cosine: float
    side: str
    """The side it is a candidate of, or an empty string."""


Written = tuple[tuple[WrittenToken, ...], tuple[WrittenToken, ...]]
"""Tokens whose logits a decoder row raises most and lowers most, strongest first."""


@torch.no_grad()
def written_tokens(
    model: Any, sae: SAE[Any], features: Sequence[int], hook_name: str, most: int
) -> list[Written]:
    """For each feature, the tokens whose logits W_dec[f] raises and lowers most (`direct_logits`).

    Only tokens in the tokenizer count; ties are in order of token id. Empty at a hook that does not
    write to the residual stream.
    """
    if not writes_to_stream(hook_name):
        return [((), ()) for _ in features]
    tokenizer, size = tokenizer_of(model), model.cfg.d_vocab
    special = {i for i in special_ids(tokenizer) if i < size}
    known = torch.tensor(sorted({*ordinary_entries(tokenizer, size)} | special))
    found: list[Written] = []
    for start in range(0, len(features), AT_ONCE):
        rows = sae.W_dec[list(features[start : start + AT_ONCE])].detach()
        for logits in direct_logits(model, rows).cpu()[:, known]:
            ends = (torch.argsort(sign * logits, stable=True)[:most] for sign in (-1, 1))
            raised, lowered = ([(int(known[i]), float(logits[i])) for i in end] for end in ends)
            found.append((_texts(tokenizer, raised), _texts(tokenizer, lowered)))
    return found


def _texts(tokenizer: Any, chosen: Sequence[tuple[int, float]]) -> tuple[WrittenToken, ...]:
    texts = describe([i for i, _ in chosen], tokenizer)
    return tuple(
        WrittenToken(i, text, value) for (i, value), text in zip(chosen, texts, strict=True)
    )


@torch.no_grad()
def neighbours(
    sae: SAE[Any],
    features: Sequence[int],
    live: Bool[Tensor, " d_sae"],
    most: int,
    sides: Mapping[int, str],
) -> list[tuple[Neighbour, ...]]:
    """For each feature, the live others of largest decoder cosine; ties in order of index."""
    cosines = _cosines(sae, features)
    found = []
    for feature, own in zip(features, cosines, strict=True):
        allowed = live.clone()
        allowed[feature] = False
        order = torch.argsort(own.masked_fill(~allowed, -torch.inf), descending=True, stable=True)
        best = [int(i) for i in order[: min(most, int(allowed.sum()))]]
        found.append(tuple(Neighbour(i, float(own[i]), sides.get(i, "")) for i in best))
    return found


def _cosines(sae: SAE[Any], features: Sequence[int]) -> Float[Tensor, "feature d_sae"]:
    """Cosines of these decoder rows with all rows, float32 on the CPU; 0 for a zero row."""
    own = _unit(sae.W_dec[list(features)])
    parts = [own @ _unit(rows).T for rows in sae.W_dec.split(ROWS)]
    return torch.cat(parts, dim=1).cpu()


def _unit(rows: Tensor) -> Float[Tensor, "n d_model"]:
    rows = rows.detach().float()
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
