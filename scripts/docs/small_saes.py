"""Small stand-ins of released SAEs, which `load_sae` reads as it would read the real ones.

Nothing is downloaded. SAELens's own loaders make the config from the directory's ids and paths, and
from the few settings that they look for in a repository; these are written here. Widths shrink to
a small model's, and weights are random.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from sae_lens.registry import get_sae_class

from saelens_steer.model import hook_width
from saelens_steer.model.hooks import BLOCK
from saelens_steer.model.model_class import Model
from saelens_steer.sae import load_sae

D_SAE = 128  # at least the k of any release
HOOKS = ("hook_name", "hook_name_out", "hf_hook_name", "hf_hook_name_out")
LLAMA_SCOPE = {"a": "hook_attn_out", "m": "hook_mlp_out", "r": "hook_resid_post"}
"""The letter after the layer's number in an id of Llama Scope."""
TRAINERS = {
    "matryoshka": "MatryoshkaBatchTopKSAE",
    "_topk_": "AutoEncoderTopK",
    "gated": "GatedAutoEncoder",
    "andyrdt": "BatchTopKSAE",
}
"""Words of a repository or path → dictionary_learning's class; others have a plain AutoEncoder."""
Settings = dict[str, Any]


def _saelens(release: str, sae_id: str, path: str) -> Settings:  # noqa: ARG001
    """cfg.json, which states the hook that the id begins with."""
    found = re.match(r"blocks\.\d+\.\w+?(?=_\d+$|$)", sae_id)
    about = {"hook_name": found[0] if found else sae_id, "model_name": model_of(release)}
    return {**about, "architecture": "standard", "d_in": 32, "d_sae": D_SAE, "dtype": "float32"}


def _hook_z(release: str, sae_id: str, path: str) -> Settings:  # noqa: ARG001
    return {"act_size": 32, "dict_size": D_SAE, "act_name": sae_id.replace("hook", "attn.hook")}


def _llama_scope(release: str, sae_id: str, path: str) -> Settings:  # noqa: ARG001
    layer, letter = re.match(r"l(\d+)([amr])_", sae_id).groups()  # pyright: ignore
    norm = {"dataset_average_activation_norm": {"in": 1.0}, "jump_relu_threshold": 0.1}
    hook = {"hook_point_in": f"blocks.{layer}.{LLAMA_SCOPE[letter]}"}
    return {**norm, **hook, "d_model": 32, "d_sae": D_SAE, "expansion_factor": 4}


def _dictionary_learning(release: str, sae_id: str, path: str) -> Settings:  # noqa: ARG001
    words = f"{release}/{path}".lower()
    trainer = {
        "layer": int(re.search(r"layer_(\d+)", path)[1]),  # pyright: ignore
        "dict_class": next((c for word, c in TRAINERS.items() if word in words), "AutoEncoder"),
        "lm_name": model_of(release),
    }
    sizes = {"activation_dim": 32, "dict_size": D_SAE, "k": 4}
    return {"trainer": {**trainer, **sizes}, "buffer": {"ctx_len": 128}}


def _mwhanna(release: str, sae_id: str, path: str) -> Settings:  # noqa: ARG001
    sizes = {"d_model": 32, "d_feature": D_SAE, "batch_size": 128}
    return {"model_name": model_of(release), **{k: {"value": v} for k, v in sizes.items()}}


SETTINGS: dict[str | None, Callable[[str, str, str], Settings]] = {
    None: _saelens,
    "connor_rob_hook_z": _hook_z,
    "llama_scope": _llama_scope,
    "llama_scope_r1_distill": _llama_scope,
    "dictionary_learning_1": _dictionary_learning,
    "mwhanna_transcoder": _mwhanna,
}
"""Loader → the settings that it downloads; the others read ids and paths alone."""


def model_of(release: str) -> str:
    """The model that the directory names."""
    return get_pretrained_saes_directory()[release].model


def settings_of(release: str, sae_id: str) -> Settings:
    """What the settings files of an SAE would hold; empty if its loader reads none."""
    entry = get_pretrained_saes_directory()[release]
    make = SETTINGS.get(entry.conversion_func)
    return make(release, sae_id, entry.saes_map[sae_id]) if make else {}


def small_sae(release: str, sae_id: str, model: Model, model_name: str | None = None) -> SAE[Any]:
    """`load_sae(release, sae_id)`, with random weights that fit a small model.

    Layers beyond the model's wrap around. Raises the InputErrors of load_sae.
    """
    loader = get_pretrained_saes_directory()[release].conversion_func or "sae_lens"
    small = {loader: lambda *args, **given: _small(loader, model, *args, **given)}
    with (
        _settings_instead_of_downloads(release, sae_id),
        patch.dict(loaders.NAMED_PRETRAINED_SAE_LOADERS, small),
    ):
        return load_sae(release, sae_id, model_name=model_name)


@contextlib.contextmanager
def _settings_instead_of_downloads(release: str, sae_id: str) -> Iterator[None]:
    """Let SAELens's loaders find the settings of one SAE, and no other file."""
    found = settings_of(release, sae_id)
    with TemporaryDirectory() as folder:

        def download(repo_id: str, filename: str, **_: Any) -> str:
            if not found:
                raise LocalEntryNotFoundError(f"{repo_id} has no {filename}")
            file = Path(folder) / Path(filename).name
            plain = file.suffix == ".json"
            file.write_text(json.dumps(found) if plain else yaml.safe_dump(found))
            return str(file)

        shapes = {"w_enc": [32, D_SAE], "w_dec": [D_SAE, 32]}
        with (
            patch.object(loaders, "hf_hub_download", download),
            patch.object(loaders, "get_safetensors_tensor_shapes", lambda *_: shapes),
        ):
            yield


def _small(
    loader: str, model: Model, repo_id: str, folder_name: str, device: str, force_download: bool,
    cfg_overrides: Settings,
) -> tuple[Settings, dict[str, torch.Tensor], None]:  # fmt: skip
    """What a loader returns: its config, at a small model's layers and widths, and weights."""
    read = loaders.NAMED_PRETRAINED_SAE_CONFIG_GETTERS[loader]
    settings = read(repo_id, folder_name, device, force_download, cfg_overrides)
    for key in HOOKS:
        if settings.get(key):
            settings[key] = shallow(settings[key], model)
    where = settings.get("hook_name_out") or settings["hook_name"]
    width = hook_width(model, where) if BLOCK.match(where) else model.cfg.d_model
    settings |= {"d_in": width, "d_sae": D_SAE, "dtype": "float32"}
    settings |= {"d_out": width} if "d_out" in settings else {}
    final = loaders.handle_config_defaulting(dict(settings))
    kind, config = get_sae_class(final["architecture"])
    torch.manual_seed(0)
    weights = kind(config.from_dict(final)).state_dict()
    return settings, {k: torch.randn_like(w).abs_() / 8 for k, w in weights.items()}, None


def shallow(hook_name: str, model: Model) -> str:
    """The hook in the layer of a small model that plays the part of a deeper one."""
    n = model.cfg.n_layers
    return re.sub(r"(?<=\.)\d+(?=\.|$)", lambda layer: str(int(layer[0]) % n), hook_name)
