"""Every edit twice: ours, and a plain one on vectors that shares no code with the package."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sae_lens import SAE
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

Plain = Callable[[torch.Tensor], torch.Tensor]
F, G = 5, 9


def firing_sae(width: int, scale: float = 1.0, hook_name: str | None = None) -> SAE:
    """64 features that fire on about half of all vectors; feature 63 never fires."""
    sae = StandardSAE(StandardSAEConfig(d_in=width, d_sae=64))
    draw = torch.Generator().manual_seed(3)
    sae.W_dec.data = torch.randn(64, width, generator=draw) / width**0.5
    sae.W_enc.data = sae.W_dec.data.T.clone()
    sae.b_enc.data = 0.1 * scale * torch.randn(64, generator=draw)
    sae.b_enc.data[63] = -1e6
    sae.b_dec.data = 0.1 * scale * torch.randn(width, generator=draw)
    if hook_name is not None:
        sae.cfg.metadata.hook_name = hook_name
    return sae


def encoded(sae: SAE, x: torch.Tensor) -> torch.Tensor:
    """z by hand."""
    return torch.relu((x - sae.b_dec) @ sae.W_enc + sae.b_enc).detach()


def decoded(sae: SAE, z: torch.Tensor) -> torch.Tensor:
    """x̂ by hand."""
    return (z @ sae.W_dec + sae.b_dec).detach()


def changed(z: torch.Tensor, feature: int, value: torch.Tensor | float) -> torch.Tensor:
    """A copy of z with one feature replaced."""
    z = z.clone()
    z[..., feature] = value
    return z


def plain_edits(sae: SAE, push: torch.Tensor) -> dict[str, Plain]:
    """Name → what the edit of that name does, written out."""

    def kept(x: torch.Tensor, to: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        z = encoded(sae, x)
        return x + decoded(sae, to(z)) - decoded(sae, z)

    def boosted(z: torch.Tensor) -> torch.Tensor:
        return changed(0.5 * z, F, 0.5 * z[..., F] + 3.0)

    unit = push / push.norm()
    return {
        "add": lambda x: x + 2.0 * push,
        "project_out": lambda x: x - (x @ unit)[..., None] * unit,
        "ablate": lambda x: kept(x, lambda z: changed(z, F, 0.0)),
        "scale": lambda x: kept(x, lambda z: changed(z, F, 4.0 * z[..., F])),
        "set": lambda x: kept(x, lambda z: changed(z, F, 2.5)),
        "suppress_and_boost": lambda x: kept(x, boosted),
        "reconstruct": lambda x: decoded(sae, encoded(sae, x)),
        "ablate:drop": lambda x: decoded(sae, changed(encoded(sae, x), F, 0.0)),
        "set two": lambda x: kept(x, lambda z: changed(changed(z, F, 2.5), G, 0.0)),
    }


def our_edits(sae: SAE, push: torch.Tensor) -> dict:
    """The same edits, ours."""
    import saelens_steer as ss

    return {
        "add": ss.add(push, 2.0),
        "project_out": ss.project_out(push),
        "ablate": ss.ablate(sae, F),
        "scale": ss.scale(sae, F, 4.0),
        "set": ss.set_to(sae, F, 2.5),
        "suppress_and_boost": ss.suppress_and_boost(sae, F, boost=3.0),
        "reconstruct": ss.reconstruct(sae),
        "ablate:drop": ss.ablate(sae, F, error="drop"),
        "set two": [ss.set_to(sae, F, 2.5), ss.ablate(sae, G)],
    }


EDITS = (
    "add",
    "project_out",
    "ablate",
    "scale",
    "set",
    "suppress_and_boost",
    "reconstruct",
    "ablate:drop",
    "set two",
)
