"""What a run is made from: versions, hashes, seeds, token sets."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from saelens_steer.config import RunSpec
from saelens_steer.data import Prompt, prompts_hash
from saelens_steer.metrics import metric_provenance
from saelens_steer.model import model_provenance
from saelens_steer.version import __version__

LIBRARIES = (
    "torch",
    "transformer-lens",
    "sae-lens",
    "transformers",
    "tokenizers",
    "datasets",
    "numpy",
    "scipy",
    "pandas",
)


def library_versions() -> dict[str, str]:
    """Versions of this package and of the libraries that decide the numbers."""
    return {"saelens-steer": __version__, **{name: version(name) for name in LIBRARIES}}


def provenance(
    spec: RunSpec,
    model: Any,
    hook_name: str,
    steered: Sequence[Prompt],
    selection: Sequence[Prompt],
) -> dict[str, Any]:
    """The content of provenance.json."""
    versions = library_versions()
    train = spec.sae.train
    return {
        "saelens_steer": versions.pop("saelens-steer"),
        "python": platform.python_version(),
        "packages": versions,
        "device": str(model.cfg.device),
        "model": model_provenance(model),
        "hook_name": hook_name,
        "sae": spec.sae.model_dump(exclude_none=True),
        "prompts": _about(spec.prompts.source, steered),
        "selection_prompts": _about(spec.select.prompts, selection),
        "token_sets": metric_provenance(spec.metrics, model.tokenizer, model.cfg.d_vocab),
        "seeds": {"sweep": spec.sweep.seed, **({"sae": train.seed} if train else {})},
    }


def _about(source: str, prompts: Sequence[Prompt]) -> dict[str, Any]:
    return {"source": source, "hash": prompts_hash(prompts), "n": len(prompts)}
