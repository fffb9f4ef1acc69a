"""Edits of SAE features, which keep or drop the SAE's reconstruction error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.config import ErrorTerm
from saelens_steer.errors import InputError
from saelens_steer.sae import (
    check_splice,
    decode,
    decode_change,
    encode,
    feature_indices,
    rows_at_once,
)
from saelens_steer.steering.edits import Edit
from saelens_steer.tensors import FeatureLike, Resid, as_numbers

Latents = Float[Tensor, "n d_sae"]


@dataclass(frozen=True)
class Change:
    """z ↦ z′ on feature activations [n, d_sae], and the features it changes."""

    name: str
    features: tuple[int, ...]
    fn: Callable[[Latents], Latents]


@dataclass(frozen=True, repr=False)
class SAEEdit(Edit):
    """An edit that applies changes to z in order."""

    sae: SAE[Any] | None = None
    changes: tuple[Change, ...] = ()
    error: ErrorTerm = "keep"

    @property
    def features(self) -> list[int]:
        """The features it changes, in order."""
        return [feature for change in self.changes for feature in change.features]

    @property
    def kind(self) -> tuple[int, str]:
        """Consecutive edits of the same kind share one encode and decode."""
        return id(self.sae), self.error


def ablate(sae: SAE[Any], features: FeatureLike, error: ErrorTerm = "keep") -> Edit:
    """z_f ← 0: removes exactly z_f · W_dec[f] (for a linear decoder)."""
    rows = _features(sae, features)
    change = Change("ablate", rows, lambda z: _put(z, rows, 0.0))
    return _through(sae, (change,), error)


def scale(sae: SAE[Any], features: FeatureLike, factor: float, error: ErrorTerm = "keep") -> Edit:
    """z_f ← factor · z_f."""
    rows, factor = _features(sae, features), _number("factor", factor)
    change = Change(f"scale({factor:g})", rows, lambda z: _put(z, rows, factor * z[:, list(rows)]))
    return _through(sae, (change,), error)


def set_to(
    sae: SAE[Any],
    features: FeatureLike,
    value: float | Sequence[float],
    error: ErrorTerm = "keep",
) -> Edit:
    """z_f ← value, in units of z; one value for all features, or one per feature."""
    rows = _features(sae, features)
    values = _values("value", value, rows)
    change = Change(f"set({_numbers(values)})", rows, lambda z: _put(z, rows, values.to(z)))
    return _through(sae, (change,), error)


def suppress_and_boost(
    sae: SAE[Any],
    features: FeatureLike,
    boost: float | Sequence[float],
    suppress: float = 0.5,
    error: ErrorTerm = "keep",
) -> Edit:
    """z ← suppress · z for every feature, then z_f ← z_f + boost, in units of z."""
    rows, suppress = _features(sae, features), _number("suppress", suppress)
    boosts = _values("boost", boost, rows)

    def change(z: Latents) -> Latents:
        less = suppress * z
        return _put(less, rows, less[:, list(rows)] + boosts.to(z))

    name = f"suppress({suppress:g})_boost({_numbers(boosts)})"
    return _through(sae, (Change(name, rows, change),), error)


def reconstruct(sae: SAE[Any], error: ErrorTerm = "drop") -> Edit:
    """x ← decode(encode(x)), the SAE spliced in; the identity with `error="keep"`."""
    return _through(sae, (), error)


def composed(edits: Sequence[Edit]) -> list[Edit]:
    """The edits in order, with consecutive ones through the same SAE merged into one.

    Raises InputError if two edits change the same feature of an SAE.
    """
    changed = [(e.kind[0], f) for e in edits if isinstance(e, SAEEdit) for f in e.features]
    if doubled := {f for sae, f in changed if changed.count((sae, f)) > 1}:
        raise InputError(f"two edits at one hook change feature {min(doubled)}: keep one")
    groups = groupby(edits, key=lambda e: e.kind if isinstance(e, SAEEdit) else id(e))
    return [_merged(list(group)) for _, group in groups]


def _merged(group: list[Edit]) -> Edit:
    first = group[0]
    if len(group) == 1 or not isinstance(first, SAEEdit) or first.sae is None:
        return first
    changes = [c for edit in group if isinstance(edit, SAEEdit) for c in edit.changes]
    return _through(first.sae, tuple(changes), first.error)


def _through(sae: SAE[Any], changes: tuple[Change, ...], error: ErrorTerm) -> SAEEdit:
    """The edit with these changes to z. Raises InputError if the SAE cannot be spliced in."""
    if error not in ("keep", "drop"):
        raise InputError(f"error must be keep or drop, not {error!r}")
    check_splice(sae)

    def act(resid: Resid) -> Resid:
        if resid.shape[-1] != sae.cfg.d_in:
            raise InputError(
                f"the SAE has d_in {sae.cfg.d_in}, but the hook has width {resid.shape[-1]}"
            )
        parts = resid.flatten(0, 1).split(rows_at_once(sae))
        return torch.cat([_acted(sae, changes, error, x) for x in parts]).view_as(resid)

    names = [f"{c.name}[{','.join(map(str, c.features))}]" for c in changes]
    name = "+".join(names) or "reconstruct"
    of_sae: dict[str, Any] = {"sae": sae, "changes": changes, "error": error}
    return SAEEdit(f"{name}:{error}", act, saes=(sae,), splices=error == "drop", **of_sae)


@torch.no_grad()
def _acted(sae: SAE[Any], changes: tuple[Change, ...], error: ErrorTerm, x: Tensor) -> Tensor:
    """The edited vectors [n, d_model], in their dtype."""
    z = z_new = encode(sae, x)
    for change in changes:
        z_new = change.fn(z_new)
    if error == "drop":
        return decode(sae, z_new, x).to(x)
    step = decode_change(sae, z, z_new, x)
    return (x.float() + step.to(x.device).float()).to(x.dtype)


def _put(z: Latents, rows: tuple[int, ...], value: float | Tensor) -> Latents:
    """A copy of z with z_f = value for these features."""
    z = z.clone()
    z[:, list(rows)] = torch.as_tensor(value).to(z)
    return z


def _features(sae: SAE[Any], features: FeatureLike) -> tuple[int, ...]:
    rows = tuple(feature_indices(sae, features))
    if not rows:
        raise InputError("an edit of features needs at least one feature")
    if len(set(rows)) < len(rows):
        raise InputError(f"an edit names a feature twice: {', '.join(map(str, rows))}")
    return rows


def _values(what: str, value: float | Sequence[float], rows: tuple[int, ...]) -> Tensor:
    values = as_numbers(what, value)
    if values.ndim and len(values) != len(rows):
        raise InputError(
            f"{what} has {len(values)} numbers for {len(rows)} features: give one each"
        )
    return values


def _number(what: str, value: float) -> float:
    """One number for all features. Raises InputError for several."""
    number = as_numbers(what, value)
    if number.ndim:
        raise InputError(f"{what} should be one number: write an edit for each feature")
    return float(value)


def _numbers(values: Tensor) -> str:
    return ",".join(f"{v:.3g}" for v in torch.atleast_1d(values).tolist())
