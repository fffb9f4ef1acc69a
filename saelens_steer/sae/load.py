"""Loading SAEs that exist already, and checking that one fits a model and a hook."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from safetensors import SafetensorError

from saelens_steer.errors import InputError
from saelens_steer.files import file_digest, write_with


def load_sae(source: str | Path, sae_id: str | None = None, *, device: str = "cpu") -> SAE[Any]:
    """A SAELens SAE from a folder in SAELens's format, or from one of its releases with an id.

    Raises InputError for an unknown folder, release or id (with the nearest known), or when a
    release is not in the cache and there is no network.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if sae_id is not None:
            raise InputError(f"{folder} is a folder, which holds one SAE: leave sae_id out")
        return _from_folder(folder, device)
    return _from_release(str(source), sae_id, device)


def _from_folder(folder: Path, device: str) -> SAE[Any]:
    if not (folder / "cfg.json").is_file():
        raise InputError(f"{folder} has no cfg.json: it is not an SAE in SAELens's format")
    try:
        return SAE.load_from_disk(str(folder), device=device)
    except FileNotFoundError as error:
        raise InputError(f"{folder} lacks a file that SAELens needs: {error}") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{folder}/cfg.json is not an SAE config: {error!r}") from None
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: SAELens cannot load it: {_one_line(error)}") from None


def _from_release(release: str, sae_id: str | None, device: str) -> SAE[Any]:
    directory = get_pretrained_saes_directory()
    if release not in directory:
        near = difflib.get_close_matches(release, directory, n=3, cutoff=0.5)
        hint = f"; SAELens has {', '.join(near)}" if near else ""
        raise InputError(f"{release!r} is neither a folder nor a SAELens release{hint}")
    ids = sorted(directory[release].saes_map)
    if sae_id not in ids:
        near = difflib.get_close_matches(sae_id or "", ids, n=3, cutoff=0.3) or ids[:3]
        raise InputError(f"release {release} has no sae_id {sae_id!r}; try {', '.join(near)}")
    try:
        return SAE.from_pretrained(release, sae_id, device=device)
    except OSError as error:
        why = _one_line(error)
        raise InputError(f"cannot fetch {release}/{sae_id} and it is not cached: {why}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or repr(error)


def check_sae(sae: SAE[Any], model: Any, hook_name: str) -> None:
    """Raise InputError unless the SAE's width and hook are the model's."""
    check_sae_at(sae, model.cfg.d_model, hook_name)


def check_sae_at(sae: SAE[Any], d_model: int, hook_name: str) -> None:
    """Raise InputError unless the SAE reads d_model entries, at this hook if it names one."""
    made_for = sae.cfg.metadata.hook_name
    if made_for is not None and made_for != hook_name:
        raise InputError(f"the SAE was made for {made_for}, not for {hook_name}: use that hook")
    if sae.cfg.d_in != d_model:
        raise InputError(f"the SAE reads {sae.cfg.d_in} dimensions, the residual has {d_model}")


def check_feature(sae: SAE[Any], feature: int) -> int:
    """Return the feature index, or raise InputError when the SAE has no such feature."""
    if not 0 <= feature < sae.cfg.d_sae:
        raise InputError(f"feature {feature} is out of range: the SAE has 0 to {sae.cfg.d_sae - 1}")
    return feature


def save_sae(sae: SAE[Any], folder: str | Path) -> Path:
    """Write an SAE in SAELens's format, all or nothing."""
    return write_with(Path(folder), lambda path: settled(sae.save_model(path)[1]))


def settled(config: Path) -> None:
    """Sort the keys of one of SAELens's JSON files: their order changes from process to process.

    The name of the temporary folder goes too, so that equal SAEs leave equal bytes.
    """
    data = json.loads(config.read_text(encoding="utf-8"))
    data.pop("output_path", None)
    config.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def sae_fingerprint(folder: str | Path) -> str:
    """A digest of a saved SAE's config and weights."""
    return file_digest(Path(folder) / "cfg.json", Path(folder) / "sae_weights.safetensors")
