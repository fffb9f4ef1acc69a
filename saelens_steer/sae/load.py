"""Loading an SAE from a folder, a file, a SAELens release or the hub; checking and saving it."""

from __future__ import annotations

import contextlib
import difflib
import glob
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import errors as hub
from huggingface_hub import snapshot_download
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import (
    get_pretrained_saes_directory,
    get_releases_for_repo_id,
)
from safetensors import SafetensorError

from saelens_steer.errors import InputError
from saelens_steer.files import file_digest, write_with
from saelens_steer.model import same_places
from saelens_steer.progress import say
from saelens_steer.sae.conversion import (
    SIDECARS,
    SUFFIXES,
    checkpoint_in,
    load_checkpoint,
    one_line,
)

SAELENS = ("cfg.json", "sae_weights.safetensors")
"""The files of a folder in SAELens's format."""
DAMAGE = (
    *(OSError, LookupError, TypeError, AttributeError, ValueError, RuntimeError),
    SafetensorError,
)
"""Exceptions that SAELens raises for files it cannot load."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
REASONS = (
    (hub.GatedRepoError, "it is gated: accept its terms on the hub and set HF_TOKEN"),
    (
        hub.RepositoryNotFoundError,
        "the hub has no such repository: check the name, or set HF_TOKEN",
    ),
    (
        hub.LocalEntryNotFoundError,
        "it is not in the cache, and the hub cannot be reached: go online (HF_HUB_OFFLINE=0)",
    ),
)
"""Subclasses before their base."""


def load_sae(
    source: str | Path,
    sae_id: str | None = None,
    *,
    device: str = "cpu",
    d_model: int | None = None,
    hook_name: str | None = None,
) -> SAE[Any]:
    """A SAELens SAE from a folder, a file, a release of SAELens or a Hugging Face repository.

    A path on this machine takes precedence: a folder in SAELens's format, or a checkpoint in
    another (see `conversion/`), a file or the only one in its folder. Then a SAELens release with
    an id, then `owner/name` on the hub with a folder or file inside as `sae_id`. The model's width
    `d_model` and `hook_name` are for checkpoints that do not say. Raises InputError for an unknown
    source or id (with the nearest known), for what is not in the cache without a network, and for a
    file that is damaged, ambiguous or would run code.
    """
    found = Path(source).expanduser()
    if not found.exists():
        found = _elsewhere(str(source), sae_id, device)
    elif sae_id is not None:
        kind = "folder" if found.is_dir() else "file"
        raise InputError(f"{found} is a {kind}, which holds one SAE: leave sae_id out")
    if isinstance(found, SAE):
        return found
    if found.is_dir() and _is_saelens(found):
        if not (found / SAELENS[0]).is_file():
            raise InputError(f"{found} has no cfg.json: it is not an SAE in SAELens's format")
        with _refusing(f"{found}: SAELens cannot load it"):
            return SAE.load_from_disk(str(found), device=device)
    file = found if found.is_file() else checkpoint_in(found)
    sae = load_checkpoint(file, device=device, d_model=d_model, hook_name=hook_name)
    say(f"{file}: {_described(sae)}")
    return sae


def source_version(source: str) -> str | None:
    """A digest of a local SAE's files, which may change under their name; None for others."""
    found = Path(source).expanduser()
    if not found.exists():
        return None
    if found.is_dir() and _is_saelens(found):
        return sae_fingerprint(found) if all((found / n).is_file() for n in SAELENS) else None
    file = found if found.is_file() else checkpoint_in(found)
    beside = (file.with_name(name) for name in SIDECARS)
    return file_digest(file, *(path for path in beside if path.is_file()))


def check_sae(sae: SAE[Any], model: Any, hook_name: str) -> None:
    """Raise InputError unless the SAE's width and hook are the model's."""
    check_sae_at(sae, model.cfg.d_model, hook_name)


def check_sae_at(sae: SAE[Any], d_model: int, hook_name: str) -> None:
    """Raise InputError unless the SAE reads d_model entries, at this hook if it names one."""
    made_for = sae.cfg.metadata.hook_name
    if made_for is not None and hook_name not in (places := same_places(made_for)):
        right = " or ".join(places)
        raise InputError(f"the SAE was made for {made_for}, not for {hook_name}: use {right}")
    if sae.cfg.d_in != d_model:
        raise InputError(f"the SAE reads {sae.cfg.d_in} dimensions, the residual has {d_model}")


def check_feature(sae: SAE[Any], feature: int) -> int:
    """Return the feature index, or raise InputError when the SAE has no such feature."""
    if not 0 <= feature < sae.cfg.d_sae:
        raise InputError(f"feature {feature} is out of range: the SAE has 0 to {sae.cfg.d_sae - 1}")
    return feature


def save_sae(sae: SAE[Any], folder: str | Path) -> Path:
    """Write an SAE in SAELens's format, all or nothing."""
    return write_with(Path(folder), lambda path: canonicalise(sae.save_model(path)[1]))


def convert_sae(
    source: str | Path, folder: str | Path, sae_id: str | None = None, **given: Any
) -> Path:
    """Load with `load_sae(source, sae_id, **given)`, and save in SAELens's format, all or nothing.

    Raises InputError as load_sae does, and for a folder that is not empty.
    """
    folder = Path(folder).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty: name a new folder")
    return save_sae(load_sae(source, sae_id, **given), folder)


def canonicalise(config: Path) -> None:
    """Rewrite one of SAELens's JSON files so that equal SAEs give equal bytes.

    Sorts the keys, whose order differs between processes, and drops the temporary folder's name.
    """
    data = json.loads(config.read_text(encoding="utf-8"))
    data.pop("output_path", None)
    config.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def sae_fingerprint(folder: str | Path) -> str:
    """A digest of a saved SAE's config and weights."""
    return file_digest(*(Path(folder) / name for name in SAELENS))


def _is_saelens(folder: Path) -> bool:
    """Whether it is meant to be in SAELens's format, even if incomplete."""
    others = [p for p in folder.iterdir() if p.suffix in SUFFIXES and p.name != SAELENS[1]]
    return (folder / SAELENS[1]).is_file() or ((folder / SAELENS[0]).is_file() and not others)


def _elsewhere(source: str, sae_id: str | None, device: str) -> SAE[Any] | Path:
    """An SAE of a release, or the local copy of a hub repository's files."""
    directory = get_pretrained_saes_directory()
    if source in directory:
        return _from_release(source, sae_id, device)
    if not HUB_ID.fullmatch(source):
        near = difflib.get_close_matches(source, directory, n=3, cutoff=0.5)
        hint = f"; SAELens has {', '.join(near)}" if near else ""
        raise InputError(
            f"{source!r} is neither a folder nor a SAELens release, nor a file, "
            f"nor a hub repository such as owner/name{hint}"
        )
    known = _known_release(source, sae_id)
    return _from_release(*known, device) if known else _from_hub(source, sae_id)


def _known_release(repository: str, inside: str | None) -> tuple[str, str] | None:
    """The release and id under which SAELens knows a part of a repository.

    Raises InputError if no part is named.
    """
    directory, releases = get_pretrained_saes_directory(), get_releases_for_repo_id(repository)
    if releases and inside is None:
        some = ", ".join(sorted(directory[releases[0]].saes_map)[:3])
        raise InputError(f"{repository} is SAELens's release {releases[0]}; try sae_id {some}")
    ids = (
        (release, sae_id)
        for release in releases
        for sae_id, path in directory[release].saes_map.items()
        if str(inside).strip("/") in (sae_id, path)
    )
    return next(ids, None)


def _from_release(release: str, sae_id: str | None, device: str) -> SAE[Any]:
    ids = sorted(get_pretrained_saes_directory()[release].saes_map)
    if sae_id is None or sae_id not in ids:
        near = difflib.get_close_matches(sae_id or "", ids, n=3, cutoff=0.3) or ids[:3]
        raise InputError(f"release {release} has no sae_id {sae_id!r}; try {', '.join(near)}")
    with _refusing(f"{release}/{sae_id}: SAELens cannot load it"):
        try:
            return SAE.from_pretrained(release, sae_id, device=device)
        except OSError as error:
            why = f"cannot fetch {release}/{sae_id} and it is not cached: {one_line(error)}"
            raise InputError(why) from None


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn SAELens's exceptions for damaged or unsuitable files into InputError."""
    try:
        yield
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"{what}: a file of it is no pickle of plain tensors, and was not run"
        ) from None
    except DAMAGE as error:
        raise InputError(f"{what}: {type(error).__name__}: {one_line(error)}") from None


def _from_hub(repository: str, inside: str | None) -> Path:
    """The local file or folder of one SAE: `inside` the repository, or its top if None.

    Only that folder is downloaded, and of it weights and settings. Raises InputError.
    """
    part = PurePosixPath(inside or ".")
    if part.is_absolute() or ".." in part.parts:
        raise InputError(f"sae_id must name a folder or file in {repository}, not {inside!r}")
    wanted = _patterns(part)
    deeper = glob.escape(f"{part}/") * (str(part) != ".") + "*/*"
    try:
        snapshot = snapshot_download(repository, allow_patterns=wanted, ignore_patterns=deeper)
    except Exception as error:  # hub, network and disk each have their own, none in common
        why = next((why for kind, why in REASONS if isinstance(error, kind)), one_line(error))
        raise InputError(f"cannot load {repository} as an SAE: {why}") from None
    found = Path(snapshot) / part
    if not found.exists():
        raise InputError(
            f"{repository} has no {part} (in the cache, if the hub cannot be reached): "
            "give a folder or a file of it as sae_id"
        )
    return found


def _patterns(part: PurePosixPath) -> list[str]:
    """The file and the settings beside it, or the weights and settings of a folder."""
    if part.suffix in SUFFIXES:
        names = [part, *(part.parent / name for name in SIDECARS)]
        return [glob.escape(str(name)) for name in names]
    folder = "" if str(part) == "." else glob.escape(f"{part}/")
    return [f"{folder}*{suffix}" for suffix in (*SUFFIXES, ".json")]


def _described(sae: SAE[Any]) -> str:
    """The SAE as the checkpoint was read, for the user to check."""
    sizes = f"{sae.cfg.d_sae} features of {sae.cfg.d_in} dimensions"
    if sae.cfg.metadata.decoder_only:
        return f"a decoder of {sizes} without its encoder: it can steer along W_dec, and no more"
    bias = "" if sae.cfg.apply_b_dec_to_input else "not "
    norm = "; its input has unit norm at each token" if sae.cfg.metadata.unit_norm_per_token else ""
    kind = sae.cfg.architecture()
    return f"a {kind} SAE, {sizes}; b_dec is {bias}subtracted from its input{norm}"
