"""Load an SAE from a folder, a file, a SAELens release or the hub; check and save it."""

from __future__ import annotations

import difflib
import glob
import json
import re
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

from saelens_steer.errors import InputError, one_line
from saelens_steer.files import file_digest, write_with
from saelens_steer.model import same_places
from saelens_steer.progress import say
from saelens_steer.sae.conversion import (
    SIDECARS,
    SUFFIXES,
    checkpoint_in,
    load_checkpoint,
    refusing,
)

SAELENS = ("cfg.json", "sae_weights.safetensors")
"""The files of an SAE in SAELens's format."""
DAMAGE = (
    *(OSError, LookupError, TypeError, AttributeError, ValueError, RuntimeError),
    SafetensorError,
)
"""What SAELens raises for files it cannot load."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
REASONS = (
    (hub.GatedRepoError, "it is gated: accept its terms on the hub and set HF_TOKEN"),
    (
        hub.RepositoryNotFoundError,
        "the hub has no such repository: check the name, or set HF_TOKEN if it is private",
    ),
    (
        hub.LocalEntryNotFoundError,
        "it is not in the cache, and the hub cannot be reached: go online and unset HF_HUB_OFFLINE",
    ),
)
"""Exception → what it means and what to do; subclasses before their base."""


def load_sae(
    source: str | Path,
    sae_id: str | None = None,
    *,
    device: str = "cpu",
    d_model: int | None = None,
    hook_name: str | None = None,
) -> SAE[Any]:
    """Load an SAE from a folder, a file, a SAELens release or a Hugging Face repository.

    `source`, in order of precedence: a local folder in SAELens's format, or a checkpoint in another
    format (see `conversion/`; a file, or a folder with one); a SAELens release and its `sae_id`;
    `owner/name` on the hub, with a folder or file in it as `sae_id`. `d_model` and `hook_name` fill
    in for checkpoints that do not record them. Raises InputError for an unknown source or id (the
    closest is named), for files neither cached nor reachable, and for a file that is damaged,
    ambiguous or could run code.
    """
    found = Path(source).expanduser()
    if not found.exists():
        found = _elsewhere(str(source), sae_id, device)
    elif sae_id is not None:
        kind = "folder" if found.is_dir() else "file"
        raise InputError(f"{found} is a {kind}, which holds one SAE: leave out sae_id")
    if isinstance(found, SAE):
        return found
    if found.is_dir() and _is_saelens(found):
        if not (found / SAELENS[0]).is_file():
            raise InputError(f"{found} has no cfg.json: it is not an SAE in SAELens's format")
        with refusing(f"SAELens cannot load {found}", DAMAGE):
            return SAE.load_from_disk(str(found), device=device)
    file = found if found.is_file() else checkpoint_in(found)
    sae = load_checkpoint(file, device=device, d_model=d_model, hook_name=hook_name)
    say(f"{file}: {_summary(sae)}")
    return sae


def source_version(source: str) -> str | None:
    """A digest of a local SAE's files, which can change in place; None for other sources."""
    found = Path(source).expanduser()
    if not found.exists():
        return None
    if found.is_dir() and _is_saelens(found):
        return sae_fingerprint(found) if all((found / n).is_file() for n in SAELENS) else None
    file = found if found.is_file() else checkpoint_in(found)
    settings = (file.with_name(name) for name in SIDECARS)
    return file_digest(file, *(path for path in settings if path.is_file()))


def check_sae(sae: SAE[Any], model: Any, hook_name: str) -> None:
    """Raise InputError unless the SAE has the model's width and was made for this hook."""
    check_sae_at(sae, model.cfg.d_model, hook_name)


def check_sae_at(sae: SAE[Any], d_model: int, hook_name: str) -> None:
    """Raise InputError unless the SAE has d_in = d_model and, if it records a hook, this one."""
    made_for = sae.cfg.metadata.hook_name
    if made_for is not None and hook_name not in (places := same_places(made_for)):
        right = " or ".join(places)
        raise InputError(f"the SAE was made for {made_for}, not for {hook_name}: use {right}")
    if sae.cfg.d_in != d_model:
        raise InputError(
            f"the SAE reads {sae.cfg.d_in} dimensions, but activations have {d_model}: "
            "choose an SAE of this model"
        )


def check_feature(sae: SAE[Any], feature: int) -> int:
    """Return the feature index, or raise InputError if the SAE has no such feature."""
    if not 0 <= feature < sae.cfg.d_sae:
        raise InputError(f"feature {feature} is out of range: the SAE has 0 to {sae.cfg.d_sae - 1}")
    return feature


def save_sae(sae: SAE[Any], folder: str | Path) -> Path:
    """Write an SAE in SAELens's format, all or nothing."""
    return write_with(Path(folder), lambda path: canonicalise(sae.save_model(path)[1]))


def convert_sae(
    source: str | Path, folder: str | Path, sae_id: str | None = None, **given: Any
) -> Path:
    """Load with `load_sae(source, sae_id, **given)` and save in SAELens's format, all or nothing.

    Raises the InputErrors of load_sae, and one for a folder that is not empty.
    """
    folder = Path(folder).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: choose another folder")
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
    """Whether the folder is in SAELens's format, even if incomplete."""
    others = [p for p in folder.iterdir() if p.suffix in SUFFIXES and p.name != SAELENS[1]]
    return (folder / SAELENS[1]).is_file() or ((folder / SAELENS[0]).is_file() and not others)


def _elsewhere(source: str, sae_id: str | None, device: str) -> SAE[Any] | Path:
    """The SAE of a release, or the local copy of a hub repository's files."""
    directory = get_pretrained_saes_directory()
    if source in directory:
        return _from_release(source, sae_id, device)
    if not HUB_ID.fullmatch(source):
        near = difflib.get_close_matches(source, directory, n=3, cutoff=0.5)
        hint = f"; SAELens has {', '.join(near)}" if near else ""
        raise InputError(
            f"{source!r} is not an existing file or folder, a SAELens release, or a hub repository "
            f"(owner/name){hint}"
        )
    known = _known_release(source, sae_id)
    return _from_release(*known, device) if known else _from_hub(source, sae_id)


def _known_release(repository: str, inside: str | None) -> tuple[str, str] | None:
    """SAELens's release and id for a folder of a hub repository, if it has them.

    Raises InputError if SAELens knows the repository but `inside` is None.
    """
    directory, releases = get_pretrained_saes_directory(), get_releases_for_repo_id(repository)
    if releases and inside is None:
        some = ", ".join(sorted(directory[releases[0]].saes_map)[:3])
        raise InputError(
            f"{repository} is SAELens's release {releases[0]}: give a sae_id like {some}"
        )
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
    with refusing(f"SAELens cannot load {release}/{sae_id}", DAMAGE):
        try:
            return SAE.from_pretrained(release, sae_id, device=device)
        except OSError as error:
            why = f"cannot fetch {release}/{sae_id}, and it is not cached: {one_line(error)}"
            raise InputError(why) from None


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
    """Patterns for a file and its settings, or for the weights and settings of a folder."""
    if part.suffix in SUFFIXES:
        names = [part, *(part.parent / name for name in SIDECARS)]
        return [glob.escape(str(name)) for name in names]
    folder = "" if str(part) == "." else glob.escape(f"{part}/")
    return [f"{folder}*{suffix}" for suffix in (*SUFFIXES, ".json")]


def _summary(sae: SAE[Any]) -> str:
    """How the checkpoint was interpreted, for the user to check."""
    sizes = f"{sae.cfg.d_sae} features of {sae.cfg.d_in} dimensions"
    if sae.cfg.metadata.decoder_only:
        return f"only a decoder, {sizes}: it can steer along W_dec but not compute activations"
    bias = "" if sae.cfg.apply_b_dec_to_input else "not "
    norm = "; its input has unit norm per token" if sae.cfg.metadata.unit_norm_per_token else ""
    kind = sae.cfg.architecture()
    return f"a {kind} SAE, {sizes}; b_dec is {bias}subtracted from its input{norm}"
