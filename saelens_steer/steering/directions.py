"""Directions under test and controls, scaled so that α = 1 adds one unit."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, get_args

import torch
from sae_lens import SAE

from saelens_steer.config import AlphaUnit
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale
from saelens_steer.sae import check_feature
from saelens_steer.tensors import Vectors

UNITS_NEEDING_ACTIVATIONS = ("max_act", "resid_norm", "kl")
"""Units that need cached activations."""
CANDIDATE = "candidate"
"""Family of the directions under test."""
SAME_SIZE = 1e-3
"""Relative distance below which norms count as equal: half-precision rows are no closer to 1."""
FEATURE, SPOKEN = re.compile(r"^feature_(?=\d)"), re.compile(r"feature \d")
CONTROL_PREFIX = {"feature": "feature_control"}
"""Prefix of control names, for families whose name already begins candidates' names."""


@dataclass(frozen=True)
class Directions:
    """Named steering vectors, scaled as α = 1 adds them: vectors [n, d_model], float32, CPU."""

    names: tuple[str, ...]
    families: tuple[str, ...]
    features: tuple[int | None, ...]
    vectors: Vectors
    sizes: tuple[float, ...]
    """The norm that a direction shares with its controls."""
    matched_to: tuple[str | None, ...]
    """The only candidate that a control belongs to; None if all of its norm share it."""

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        """How many there are of each family, and the first names."""
        counts = ", ".join(f"{n} {family}" for family, n in Counter(self.families).items())
        first = ", ".join(self.names[:4]) + (", …" if len(self) > 4 else "")
        return f"Directions: {counts}, {self.vectors.shape[1]} wide ({first})"

    def __add__(self, other: Directions) -> Directions:
        one, two = vars(self), vars(other)
        joined = {name: one[name] + two[name] for name in one if name != "vectors"}
        return Directions(**joined, vectors=torch.cat([self.vectors, other.vectors]))

    @property
    def groups(self) -> tuple[str, ...]:
        """Each direction's family and, for a per-candidate control, its candidate."""
        pairs = zip(self.families, self.matched_to, strict=True)
        return tuple(f"{family} of {name}" if name else family for family, name in pairs)

    def take(self, rows: Sequence[int]) -> Directions:
        """The directions at these indices, in that order."""
        columns = {name: column for name, column in vars(self).items() if name != "vectors"}
        taken = {name: tuple(column[i] for i in rows) for name, column in columns.items()}
        return Directions(**taken, vectors=self.vectors[list(rows)])


def feature_directions(
    sae: SAE[Any], features: Sequence[int], alpha_unit: str, scale: Scale = NO_SCALE
) -> Directions:
    """W_dec[f] of each feature, scaled to the unit (see `scaled_vectors`)."""
    rows = [check_feature(sae, f) for f in features]
    names = [f"feature_{f}" for f in rows]
    return tested_vectors(names, [*rows], sae.W_dec[rows], alpha_unit, scale)


def plain_directions(
    vectors: Vectors, alpha_unit: str = "raw", scale: Scale = NO_SCALE
) -> Directions:
    """Vectors as directions under test, named direction_0, direction_1, …"""
    names = [f"direction_{i}" for i in range(len(vectors))]
    return tested_vectors(names, [None] * len(names), vectors, alpha_unit, scale)


def tested_vectors(
    names: Sequence[str], features: list[int | None], vectors: Vectors, unit: str, scale: Scale
) -> Directions:
    """Directions under test, scaled to the unit. Raises InputError for a zero or non-finite one."""
    vectors = vectors.detach().float().cpu()
    for name, norm in zip(names, vectors.norm(dim=-1).tolist(), strict=True):
        if not 0 < norm < math.inf:
            what = "zero" if norm == 0 else "not finite"
            raise InputError(f"direction {name} is {what}: no control can match it")
    vectors = scaled_vectors(vectors, features, unit, scale)
    families, shared = (CANDIDATE,) * len(names), (None,) * len(names)
    sizes = same_sizes(vectors.norm(dim=-1).tolist())
    return Directions(tuple(names), families, tuple(features), vectors, sizes, shared)


def scaled_vectors(
    vectors: Vectors, features: list[int | None], unit: str, scale: Scale = NO_SCALE
) -> Vectors:
    """The vectors as α = 1 adds them, [n, d_model].

    raw: v. unit and kl: v/‖v‖ (for kl, `kl_steps` finds the multiple). max_act: A_max(f) · v.
    resid_norm: mean ‖x‖ · v/‖v‖. Raises InputError if A_max or mean ‖x‖ is needed but unknown.
    """
    if unit == "raw":
        return vectors
    if unit == "max_act":
        sizes = [_max_act(f, scale) for f in features]
        return vectors * torch.tensor(sizes, device=vectors.device)[:, None]
    directions = vectors / vectors.norm(dim=-1, keepdim=True)
    if unit in ("unit", "kl"):
        return directions
    if unit == "resid_norm":
        if scale.resid_norm is None:
            raise InputError("alpha_unit resid_norm needs cached activations, for mean ‖x‖")
        return scale.resid_norm * directions
    raise InputError(f"alpha_unit must be one of {', '.join(get_args(AlphaUnit))}, not {unit!r}")


def _max_act(feature: int | None, scale: Scale) -> float:
    if feature is None:
        raise InputError("alpha_unit max_act applies to SAE features: a vector has no A_max")
    return scale.a_max(feature)


def direction_label(name: str) -> str:
    """A direction's name in a sentence: `feature_12` → `feature 12`; other names as they are.

    No two names have one label: `feature 12` itself is in quotes.
    """
    taken = name.startswith("“") or SPOKEN.match(name)
    return f"“{name}”" if taken else FEATURE.sub("feature ", name)


def matched_controls(family: str, unit_vectors: Vectors, sizes: Sequence[float]) -> Directions:
    """Controls scaled to each distinct size under test, so that pushes have equal norms.

    Each size has a full set of controls. Unit-norm decoder rows have one size and share one set.
    """
    distinct = sorted(set(sizes))
    suffixes = [f"_size{j}" for j in range(len(distinct))] if len(distinct) > 1 else [""]
    sized = zip(distinct, suffixes, strict=True)
    return reduce(add, [_controls(family, unit_vectors, *each) for each in sized])


def per_candidate_controls(family: str, unit_vectors: Vectors, tested: Directions) -> Directions:
    """A full set of controls for each direction under test, of its norm and named after it."""
    named = zip(tested.sizes, tested.names, strict=True)
    sets = [_controls(family, unit_vectors, size, f"_of_{name}", name) for size, name in named]
    return reduce(add, sets)


def _controls(
    family: str, unit_vectors: Vectors, size: float, suffix: str, candidate: str | None = None
) -> Directions:
    n, prefix = len(unit_vectors), CONTROL_PREFIX.get(family, family)
    return Directions(
        tuple(f"{prefix}_{i:04d}{suffix}" for i in range(n)),
        (family,) * n,
        (None,) * n,
        unit_vectors.float() * size,
        (size,) * n,
        (candidate,) * n,
    )


def same_sizes(norms: Sequence[float]) -> tuple[float, ...]:
    """Replace each norm by the mean of the norms that count as equal to it (see SAME_SIZE)."""
    groups: list[list[float]] = []
    for norm in sorted(norms):
        if not groups or norm > groups[-1][0] * (1 + SAME_SIZE):
            groups.append([])
        groups[-1].append(norm)
    mean = {norm: sum(group) / len(group) for group in groups for norm in group}
    return tuple(mean[norm] for norm in norms)
