"""SAELens's releases and repositories of the Hugging Face hub."""

from __future__ import annotations

import glob
import re
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import errors as hub
from huggingface_hub import snapshot_download
from sae_lens import SAE
from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface
from sae_lens.loading.pretrained_saes_directory import (
    get_pretrained_saes_directory,
    get_releases_for_repo_id,
)

from saelens_steer.errors import InputError, one_line
from saelens_steer.sae.conversion import SIDECARS, SUFFIXES, refusing
from saelens_steer.sae.saelens_format import DAMAGE, check_kind

REASONS = (
    (hub.GatedRepoError, "it is gated: accept its terms on the hub and set HF_TOKEN"),
    (
        hub.RepositoryNotFoundError,
        "the hub has no such repository: check the name, or set HF_TOKEN if it is private",
    ),
    (
        hub.LocalEntryNotFoundError,
        "there is no such folder, it is not in the cache, and the hub cannot be reached: check the "
        "path, or go online and unset HF_HUB_OFFLINE",
    ),
)
"""Exception → what it means and what to do; subclasses before their base."""
REFUSED = {
    "temporal": "a temporal SAE, which reads several tokens at once",
    "mntss_clt_layer_transcoder": "one layer of a cross-layer transcoder, which writes to many",
}
"""SAELens's loader → why its SAEs cannot be used at one hook."""
NAMES_MODEL = (
    *("gemma_2", "gemma_2_transcoder", "llama_scope", "llama_scope_r1_distill", "qwen_scope"),
    *("deepseek_r1", "goodfire", "connor_rob_hook_z"),
)
"""Loaders that name the model themselves, rather than read it from the SAE's files."""


def from_elsewhere(
    source: str, sae_id: str | None, device: str, model_name: str | None
) -> SAE[Any] | Path:
    """The SAE of a release, or the local copy of a hub repository's files. Raises InputError."""
    if source in get_pretrained_saes_directory():
        return _from_release(source, str(sae_id), device, model_name)
    known = known_release(source, sae_id)
    return _from_release(*known, device, model_name) if known else _from_hub(source, sae_id)


def known_release(repository: str, inside: str | None) -> tuple[str, str] | None:
    """SAELens's release and id for a folder of a hub repository, if it has them.

    Raises InputError if SAELens knows the repository but `inside` is None or fits several folders.
    """
    directory, releases = get_pretrained_saes_directory(), get_releases_for_repo_id(repository)
    if releases and inside is None:
        some = "; ".join(f"{name} (sae_id like {_example(name)})" for name in releases)
        which = "release" if len(releases) == 1 else "releases"
        raise InputError(
            f"{repository} belongs to SAELens's {which} {some}: pass a release as source"
        )
    part = str(inside).strip("/")
    found = {
        path: (release, sae_id)
        for release in reversed(releases)
        for sae_id, path in directory[release].saes_map.items()
        if part in (sae_id, path)
    }
    if len(found) > 1:
        choices = "; ".join(f"{release} ({path})" for path, (release, _) in found.items())
        raise InputError(
            f"{part!r} matches several SAEs of {repository}: give the release as source, or the "
            f"folder as sae_id: {choices}"
        )
    return next(iter(found.values()), None)


def _example(release: str) -> str:
    return min(get_pretrained_saes_directory()[release].saes_map)


def _from_release(release: str, sae_id: str, device: str, model_name: str | None) -> SAE[Any]:
    entry = get_pretrained_saes_directory()[release]
    name = f"{release}/{sae_id}"
    if why := REFUSED.get(str(entry.conversion_func)):
        raise InputError(f"{name} is {why}: it is not supported")
    if re.search(r"(^|[/_-])clt([/_-]|$)", entry.saes_map[sae_id]):
        raise InputError(f"{name} is {REFUSED['mntss_clt_layer_transcoder']}: it is not supported")
    with refusing(f"SAELens cannot load {name}", DAMAGE):
        try:
            model_name = _model_of(release, sae_id, model_name)
            sae = check_kind(SAE.from_pretrained(release, sae_id, device=device), name)
        except OSError as error:
            why = f"cannot fetch {name}, and it is not cached: {one_line(error)}"
            raise InputError(why) from None
    if sae.cfg.normalize_activations == "expected_average_only_in":
        raise InputError(
            f"{name} expects scaled activations, but SAELens's list of SAEs has no "
            "norm_scaling_factor for it: choose another id"
        )
    if model_name is not None:
        sae.cfg.metadata.model_name = model_name
    return sae


def _model_of(release: str, sae_id: str, given: str | None) -> str | None:
    """The model given for a release, or None if directory and loader agree on it.

    SAELens's list of SAEs and its loader name different models for two releases, and one of them is
    wrong. Raises InputError unless the user says which.
    """
    entry = get_pretrained_saes_directory()[release]
    if entry.conversion_func not in NAMES_MODEL:
        return given
    settings = load_sae_config_from_huggingface(release, sae_id)
    names = [entry.model, settings["metadata"]["model_name"]]
    if given is not None and _short(given) not in map(_short, names):
        both = " or ".join(dict.fromkeys(names))
        raise InputError(f"{release} was trained on {both}, not on {given}: correct model_name")
    if given is None and len(set(map(_short, names))) > 1:
        raise InputError(
            f"SAELens's list of SAEs says that {release} was trained on {names[0]}, its loader "
            f"says {names[1]}, and an SAE for the wrong model gives wrong features: give the right "
            f'one, model_name="{names[0]}" or model_name="{names[1]}"'
        )
    return given


def _short(model_name: str) -> str:
    """A model's name without its owner."""
    return model_name.rstrip("/").split("/")[-1].lower()


def _from_hub(repository: str, inside: str | None) -> Path:
    """Download one SAE's weights and settings: those `inside` the repository, or at its top.

    Returns the local file or folder. Raises InputError.
    """
    part = PurePosixPath(inside or ".")
    if part.is_absolute() or ".." in part.parts:
        raise InputError(f"sae_id must name a folder or file in {repository}, not {inside!r}")
    wanted = _patterns(part)
    deeper = glob.escape(f"{part}/") * (str(part) != ".") + "*/*"
    try:
        snapshot = snapshot_download(repository, allow_patterns=wanted, ignore_patterns=deeper)
    except Exception as error:  # hub, network and disk errors share no base class
        why = next((why for kind, why in REASONS if isinstance(error, kind)), one_line(error))
        raise InputError(f"cannot load {repository} as an SAE: {why}") from None
    found = Path(snapshot) / part
    if not found.exists():
        raise InputError(
            f"{repository} has no {part} (or it is not cached, if the hub cannot be reached): "
            "give one of its folders or files as sae_id"
        )
    return found


def _patterns(part: PurePosixPath) -> list[str]:
    """Patterns for a file and its settings, or for the weights and settings of a folder.

    Settings in the folder above count too.
    """
    folder = part.parent if part.suffix in SUFFIXES else part
    beside = [folder.parent / name for name in SIDECARS if folder != folder.parent]
    if part.suffix in SUFFIXES:
        names = [part, part.with_name(f"{part.stem}_cfg.json"), *(folder / n for n in SIDECARS)]
        return [glob.escape(str(name)) for name in (*names, *beside)]
    start = "" if str(part) == "." else glob.escape(f"{part}/")
    own = [f"{start}*{suffix}" for suffix in (*SUFFIXES, ".json")]
    return [*own, *(glob.escape(str(name)) for name in beside)]
