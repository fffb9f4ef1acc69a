"""Which of SAELens's architectures a checkpoint of others is: ReLU, TopK or JumpReLU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saelens_steer.errors import InputError

STATED_BY = (
    *("architecture", "dict_class", "sae_type", "sae_class"),
    *("activation", "activation_fn", "activation_fn_str"),
)
MEANT = (
    ("batchtopk", "jumprelu"),
    ("jumprelu", "jumprelu"),
    ("topk", "topk"),
    ("gated", "gated"),
    ("relu", "standard"),
    ("standard", "standard"),
)
"""What any of these settings contains, and what it means: `activation_fn: topk` counts for more
than `architecture: standard`. A BatchTopK SAE is run with its threshold."""
NEEDS = {"topk": "k", "jumprelu": "threshold"}


def architecture_of(
    file: Path, settings: dict[str, Any], has_threshold: bool, d_sae: int
) -> dict[str, Any]:
    """`architecture`, and `k` for topk: what the settings say, or else what is there.

    Raises InputError where it is another architecture, needs something that is not there, or may
    be either TopK or JumpReLU.
    """
    k = next((settings[name] for name in ("k", "topk", "top_k") if name in settings), None)
    there = {"topk": k is not None, "jumprelu": has_threshold}
    kind = _stated(settings) or _found(file, there)
    if kind == "standard" and has_threshold:
        kind = "jumprelu"
    if kind == "gated":
        raise InputError(f"{file} is a gated SAE: only ReLU, TopK and JumpReLU are converted")
    if not there.get(kind, True):
        raise InputError(f"{file} says it is {kind}, but holds no {NEEDS[kind]}")
    return {"architecture": kind, **({"k": _checked(file, k, d_sae)} if kind == "topk" else {})}


def _stated(settings: dict[str, Any]) -> str | None:
    said = [str(settings.get(key, "")).lower() for key in STATED_BY]
    plain = [text.replace("_", "").replace("-", "") for text in said]
    return next((kind for part, kind in MEANT if any(part in text for text in plain)), None)


def _found(file: Path, there: dict[str, bool]) -> str:
    if all(there.values()):
        raise InputError(
            f"{file} holds both k and threshold: say which counts with "
            '{"architecture": "topk"} or {"architecture": "jumprelu"} in a config.json beside it'
        )
    return next((kind for kind, held in there.items() if held), "standard")


def _checked(file: Path, k: Any, d_sae: int) -> int:
    whole = isinstance(k, int | float) and not isinstance(k, bool) and k == int(k)
    if not whole or not 1 <= k <= d_sae:
        raise InputError(f"{file}: k must be a whole number from 1 to {d_sae}, not {k!r}")
    return int(k)
