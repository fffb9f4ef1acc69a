"""Steer language models along SAE features, and know whether to believe the result.

    import saelens_steer as ss

Names are imported when first used, so that the command line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from saelens_steer.version import __version__

_HOMES = {
    "Activations": "activations",
    "Edit": "steering",
    "InputError": "errors",
    "LogSpec": "config",
    "Prompt": "data",
    "Result": "pipeline.result",
    "RunSpec": "config",
    "TrainSpec": "config",
    "ablate": "steering",
    "add": "steering",
    "cache_activations": "activations",
    "code_validity": "metrics",
    "default_hook_name": "model",
    "draw_controls": "directions",
    "export_images": "report",
    "feature_pages": "pipeline.notebook",
    "label_features": "pipeline.notebook",
    "latex_validity": "metrics",
    "load_config": "config",
    "load_model": "model",
    "load_prompts": "data",
    "load_sae": "sae",
    "load_vectors": "steering",
    "compare_edits": "pipeline.notebook",
    "per_row": "steering",
    "project_out": "steering",
    "rank_features": "pipeline.notebook",
    "read_quality": "sae",
    "reconstruct": "steering",
    "run": "pipeline.run",
    "sae_quality": "sae",
    "save_vectors": "steering",
    "scale": "steering",
    "select_features": "features",
    "set_to": "steering",
    "steered": "steering",
    "suppress_and_boost": "steering",
    "sweep": "pipeline.notebook",
    "train_grid": "pipeline.run",
    "train_sae": "sae",
}

__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"saelens_steer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'saelens_steer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from saelens_steer.activations import Activations, cache_activations
    from saelens_steer.config import LogSpec, RunSpec, TrainSpec, load_config
    from saelens_steer.data import Prompt, load_prompts
    from saelens_steer.directions import draw_controls
    from saelens_steer.errors import InputError
    from saelens_steer.features import select_features
    from saelens_steer.metrics import code_validity, latex_validity
    from saelens_steer.model import default_hook_name, load_model
    from saelens_steer.pipeline.notebook import (
        compare_edits,
        feature_pages,
        label_features,
        rank_features,
        sweep,
    )
    from saelens_steer.pipeline.result import Result
    from saelens_steer.pipeline.run import run, train_grid
    from saelens_steer.report import export_images
    from saelens_steer.sae import load_sae, read_quality, sae_quality, train_sae
    from saelens_steer.steering import (
        Edit,
        ablate,
        add,
        load_vectors,
        per_row,
        project_out,
        reconstruct,
        save_vectors,
        scale,
        set_to,
        steered,
        suppress_and_boost,
    )
