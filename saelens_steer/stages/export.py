"""Steering vectors of a finished run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saelens_steer.errors import InputError
from saelens_steer.report import read_mapping, side_names
from saelens_steer.sae import check_feature, load_sae
from saelens_steer.steering import file_kind, save_vectors


def export_vectors(
    run_dir: str | Path, file: str | Path, features: Sequence[int] = (), alpha: float = 1.0
) -> Path:
    """Write α · W_dec[f] of a run's candidates, or of the features named; returns the file.

    The model itself is not needed. Raises InputError where the folder holds no SAE or no choice of
    features, for an unknown feature, and unless a .gguf file gets exactly one.
    """
    folder, file = Path(run_dir), Path(file)
    if not math.isfinite(alpha):
        raise InputError(f"alpha should be a finite number, not {alpha}")
    kind = file_kind(file)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    known = read_mapping(folder / "features.json")
    chosen = list(dict.fromkeys(features or _candidates(known)))
    if not chosen:
        raise InputError(
            f"{folder} names no candidates: run the selection there, or give --feature"
        )
    if kind == ".gguf" and len(chosen) > 1:
        raise InputError(
            f"a .gguf file holds one vector a layer, not {len(chosen)}: name one with --feature"
        )
    if not (folder / "sae").is_dir():
        raise InputError(f"{folder} holds no SAE: there is no folder {folder / 'sae'}")
    sae, about = load_sae(folder / "sae"), read_mapping(folder / "provenance.json")
    rows = {f"feature_{f}": sae.W_dec[check_feature(sae, f)].detach().float() for f in chosen}
    return save_vectors(
        file,
        {name: row * alpha for name, row in rows.items()},
        _hook_name(known, about, sae),
        model=str(about.get("model", {}).get("name") or "unknown"),
        about={f"feature_{f}": {"feature": f, "alpha": alpha} for f in chosen},
    )


def _candidates(known: dict[str, Any]) -> list[int]:
    """The candidates of features.json, the positive side first."""
    return [f for side in side_names(known) for f in known.get(f"{side}_candidates", [])]


def _hook_name(known: dict[str, Any], about: dict[str, Any], sae: Any) -> str:
    """Where the run steers: what it wrote down, or where its SAE belongs."""
    found = known.get("hook_name") or about.get("hook_name") or sae.cfg.metadata.hook_name
    if not found:
        raise InputError("neither the run nor its SAE says which hook it belongs to")
    return found
