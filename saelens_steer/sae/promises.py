"""Figures stated for an SAE's fit: by its config, its names, SAELens, or its training here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from saelens_steer.installed import HUB_ID
from saelens_steer.sae.sources import known_release
from saelens_steer.sae.verdict import read_quality

TOPK = ("topk", "abstopk")
"""Architectures with exactly k active features, if as many have a positive pre-activation."""
L0_IN_NAME = re.compile(r"(?<![a-z0-9])(?:average_)?l0[_-](\d+(?:\.\d+)?)(?![a-z0-9])", re.I)
L0_KEYS = ("l0", "average_l0", "expected_l0")

Promises = dict[str, int | float]
"""Any of l0, explained_variance and mean_norm (the mean ‖x‖ in training)."""


def promises(
    sae: SAE[Any], source: str | Path | None = None, sae_id: str | None = None
) -> Promises:
    """Figures stated for an SAE, each from its most reliable source.

    source, sae_id: where it was loaded from. For a folder, the source is the quality.json that this
    package writes; for a release, SAELens's directory; for either, an L0 in its name.
    """
    folder = Path(source).expanduser() if source is not None and Path(source).exists() else None
    found: Promises = {}
    for stated in (
        _named(str(source or ""), str(sae_id or ""), str(sae.cfg.metadata.neuronpedia_id or "")),
        _listed(str(source), sae_id),
        _recorded(sae),
        _measured(folder),
    ):
        found |= dict(stated)
    if sae.cfg.architecture() in TOPK:
        found.setdefault("l0", float(sae.cfg.k))
    return found


def _named(*names: str) -> Iterator[tuple[str, float]]:
    """The last L0 in the last name that has one, as in `average_l0_71`."""
    for name in names:
        if every := L0_IN_NAME.findall(name):
            yield "l0", float(every[-1])


def _listed(release: str, sae_id: str | None) -> Iterator[tuple[str, float]]:
    """SAELens's directory, in which an L0 of 0 and a variance of 1 mean unknown.

    A repository of the hub counts by the release that it resolves to.
    """
    if sae_id is None:
        return
    if HUB_ID.fullmatch(release) and not Path(release).expanduser().exists():
        release, sae_id = known_release(release, sae_id) or (release, sae_id)
    entry = get_pretrained_saes_directory().get(release)
    if entry is None:
        return
    if l0 := entry.expected_l0.get(sae_id):
        yield "l0", l0
    if 0 < (explained := entry.expected_var_explained.get(sae_id) or 0.0) < 1:
        yield "explained_variance", explained


def _recorded(sae: SAE[Any]) -> Iterator[tuple[str, float]]:
    """The metadata and the config of the SAE itself."""
    metadata = sae.cfg.metadata
    for key in L0_KEYS:
        if isinstance(value := metadata.get(key), int | float) and value > 0:
            yield "l0", float(value)
    if metadata.activation_scale is not None:  # mean ‖x − μ‖, beside ‖μ‖
        yield "mean_norm", math.hypot(metadata.activation_scale, metadata.activation_mean_norm)


def _measured(folder: Path | None) -> Iterator[tuple[str, float]]:
    """The figures on held-out text in quality.json, if this package trained the SAE."""
    quality = read_quality(folder) if folder is not None and folder.is_dir() else {}
    if "verdict" in quality:
        yield from ((key, float(quality[key])) for key in ("l0", "explained_variance"))
