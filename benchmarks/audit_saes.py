"""Small SAEs of several kinds, trained in seconds, and what can go wrong with their files."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from torch import Tensor

KINDS: dict[str, tuple[Any, Any]] = {
    "topk": (TopKSAE, TopKSAEConfig),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
    "standard": (StandardSAE, StandardSAEConfig),
}
L1, SWITCH = 0.03, 0.6
"""Penalty of the standard SAEs, on activations of mean norm √d; it acts after this share of the
steps, in which they are trained as BatchTopK: the penalty alone needs far more steps."""


def train(x: Tensor, kind: str, k: int, *, steps: int = 250, subtract: bool = True) -> SAE[Any]:
    """An SAE on activations [n, d_in], of 2 d_in features and at least 192; it reads them as is.

    topk: k features a token. jumprelu: as BatchTopK, with one threshold. standard: the same
    without its threshold, then an L1 penalty.
    subtract: whether b_dec is subtracted from the input.
    """
    draw, d = torch.Generator().manual_seed(0), x.shape[1]
    scale = float(d**0.5 / x.norm(dim=-1).mean())
    x, d_sae = x * scale, max(192, 2 * d)
    rows = torch.randn(d_sae, d, generator=draw)
    rows /= rows.norm(dim=-1, keepdim=True)
    W_enc, b_enc, W_dec, b_dec = rows.T.clone(), torch.zeros(d_sae), rows.clone(), x.mean(0)
    parameters = [p.requires_grad_(True) for p in (W_enc, b_enc, W_dec, b_dec)]
    adam, threshold = torch.optim.Adam(parameters, lr=3e-3), torch.zeros(())
    for step in range(steps):
        adam.param_groups[0]["lr"] = 3e-3 * min(1.0, 2 * (1 - step / steps))
        batch = x[torch.randint(len(x), (256,), generator=draw)]
        dense = kind == "standard" and step >= round(SWITCH * steps)
        if kind == "standard" and step == round(SWITCH * steps):
            b_enc.data -= threshold
        before = torch.relu((batch - subtract * b_dec) @ W_enc + b_enc)
        z, least = (before, threshold) if dense else _active(before, kind, k)
        threshold = least if step == 0 else 0.95 * threshold + 0.05 * least
        loss = (batch - z @ W_dec - b_dec).pow(2).sum(-1).mean()
        if dense:
            loss = loss + L1 * d**0.5 * (z * W_dec.norm(dim=-1)).sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = {"W_enc": W_enc, "b_enc": b_enc / scale, "W_dec": W_dec, "b_dec": b_dec / scale}
    if kind == "jumprelu":
        found["threshold"] = (threshold / scale).expand(d_sae).clone()
    return made(kind, found, k, subtract)


def _active(before: Tensor, kind: str, k: int) -> tuple[Tensor, Tensor]:
    """z of one batch, and the smallest activation that BatchTopK leaves."""
    if kind == "topk":
        kept, where = before.topk(k, dim=-1)
        return torch.zeros_like(before).scatter(1, where, kept), kept.detach().min()
    least = before.detach().flatten().topk(k * len(before)).values[-1]
    return before * (before >= least), least


def made(kind: str, state: dict[str, Tensor], k: int, subtract: bool) -> SAE[Any]:
    """An SAELens SAE with these weights."""
    sae_class, config = KINDS[kind]
    d_in, d_sae = state["W_enc"].shape
    own = {"k": k, "rescale_acts_by_decoder_norm": False} if kind == "topk" else {}
    sae = sae_class(config(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=subtract, **own))
    names = {name for name, _ in sae.named_parameters()}
    sae.load_state_dict({n: w.detach().clone() for n, w in state.items() if n in names})
    return sae


def changed(sae: SAE[Any], **settings: Any) -> SAE[Any]:
    """The same weights under other settings."""
    other = type(sae)(dataclasses.replace(sae.cfg, **settings))
    other.load_state_dict(sae.state_dict())
    return other


def edited(sae: SAE[Any], edits: dict[str, Callable[[Tensor], Tensor]]) -> SAE[Any]:
    """A copy with some weights put through functions."""
    other = copy.deepcopy(sae)
    for name, edit in edits.items():
        if hasattr(other, name):
            getattr(other, name).data = edit(getattr(other, name).data)
    return other


def as_kind(sae: SAE[Any], kind: str, k: int) -> SAE[Any]:
    """The same weights read as another architecture; a threshold that is missing is 0."""
    state = dict(sae.state_dict())
    state.setdefault("threshold", torch.zeros(sae.cfg.d_sae))
    return made(kind, state, k, sae.cfg.apply_b_dec_to_input)


def damaged(sae: SAE[Any], x: Tensor) -> Iterator[tuple[str, SAE[Any]]]:
    """What a wrong conversion, another SAE's config or a damaged file makes of an SAE of x."""
    draw, kind = torch.Generator().manual_seed(1), sae.cfg.architecture()
    scale = float(x.shape[1] ** 0.5 / x.norm(dim=-1).mean())
    features = torch.randperm(sae.cfg.d_sae, generator=draw)
    dimensions = torch.randperm(sae.cfg.d_in, generator=draw)
    biases = ("b_enc", "b_dec", "threshold")

    def times(factor: float, *names: str) -> SAE[Any]:
        return edited(sae, {name: lambda w: factor * w for name in names})

    yield "scale of the input lost", times(scale, *biases)
    yield "scale of the input applied twice", times(1 / scale, *biases)
    yield "b_dec lost", times(0.0, "b_dec")
    yield "b_dec of opposite sign", times(-1.0, "b_dec")
    yield "W_dec doubled", times(2.0, "W_dec")
    yield "W_dec halved", times(0.5, "W_dec")
    yield "features of W_enc permuted", edited(sae, {"W_enc": lambda w: w[:, features]})
    yield "features of W_dec permuted", edited(sae, {"W_dec": lambda w: w[features]})
    yield "dimensions of W_dec permuted", edited(sae, {"W_dec": lambda w: w[:, dimensions]})
    yield "W_enc replaced by W_decᵀ", edited(sae, {"W_enc": lambda _: sae.W_dec.data.T.clone()})
    yield "W_enc reshaped, not transposed", edited(sae, {"W_enc": lambda w: w.T.reshape(w.shape)})
    yield (
        "b_dec subtracted or not",
        changed(sae, apply_b_dec_to_input=not sae.cfg.apply_b_dec_to_input),
    )
    yield "normalised by LayerNorm", changed(sae, normalize_activations="layer_norm")
    yield "normalised to norm √d", changed(sae, normalize_activations="constant_norm_rescale")
    yield "weights of 3 bits", edited(sae, dict.fromkeys(("W_enc", "W_dec"), _rounded))
    yield "one weight not a number", edited(sae, {"W_enc": _with(float("nan"))})
    yield "one weight infinite", edited(sae, {"b_dec": _with(float("inf"))})
    yield "an exponent damaged", edited(sae, {"b_dec": lambda w: _with(float(1e4 * w.norm()))(w)})
    if kind == "topk":
        yield "k an eighth", changed(sae, k=max(1, sae.cfg.k // 8))
        yield "k eightfold", changed(sae, k=min(8 * sae.cfg.k, sae.cfg.d_sae))
        yield "read as ReLU", as_kind(sae, "standard", 1)
    if kind == "jumprelu":
        yield "threshold lost", times(0.0, "threshold")
        yield "threshold fourfold", times(4.0, "threshold")
        yield "read as TopK", as_kind(sae, "topk", 2)
    if kind == "standard":
        yield "read as TopK", as_kind(sae, "topk", 4)


def _rounded(weight: Tensor) -> Tensor:
    step = weight.abs().max() / 3
    return (weight / step).round() * step


def _with(value: float) -> Callable[[Tensor], Tensor]:
    def put(weight: Tensor) -> Tensor:
        weight = weight.clone()
        weight.view(-1)[0] = value
        return weight

    return put
