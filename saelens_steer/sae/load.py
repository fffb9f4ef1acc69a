"""Load an SAE from a folder, a file, a SAELens release or the hub; check and save it."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, SupportsIndex

from sae_lens import SAE

from saelens_steer.config import check_sae_source, plain, whole
from saelens_steer.errors import InputError
from saelens_steer.files import file_digest, write_with
from saelens_steer.model.model_class import Model
from saelens_steer.progress import say
from saelens_steer.sae.auditing import audit
from saelens_steer.sae.centring import for_plain_weights
from saelens_steer.sae.conversion import checkpoint_in, load_checkpoint, settings_files
from saelens_steer.sae.finite import check_finite
from saelens_steer.sae.promises import promises
from saelens_steer.sae.saelens_format import SAELENS, is_saelens, load_folder, settings_of
from saelens_steer.sae.sites import check_hook, is_transcoder
from saelens_steer.sae.sources import from_elsewhere
from saelens_steer.tensors import FeatureLike


def load_sae(
    source: str | Path,
    sae_id: str | None = None,
    *,
    device: str = "cpu",
    d_model: int | None = None,
    hook_name: str | None = None,
    model_name: str | None = None,
    model: Model | None = None,
) -> SAE[Any]:
    """Load an SAE from a folder, a file, a SAELens release or a Hugging Face repository.

    `source`, in order of precedence: a local folder in SAELens's format, or a checkpoint in another
    format (see `conversion/`; a file, or a folder with one); a SAELens release and its `sae_id`;
    `owner/name` on the hub, with a folder or file in it as `sae_id`. `d_model`, `hook_name` and
    `model_name` supply what the source does not state. With `model`, the SAE must pass an audit on
    that model. If the SAE was trained on centred writing weights, the centring is folded into it,
    provided that `model`, or else the name of the SAE's model, shows that the norms are LayerNorms.
    Raises InputError for an unknown source or id (the closest is named), for a hook other than the
    SAE's own, for files neither cached nor reachable, and for a file that is damaged, ambiguous,
    holds NaN or an infinity, or could run code.
    """
    if model is not None:
        width = model.cfg.d_model if d_model is None else d_model
        given = {"device": device, "d_model": width, "hook_name": hook_name}
        sae = load_sae(source, sae_id, model_name=model_name, **given)
        return _check_fit(model, for_plain_weights(sae, model), source, sae_id)
    found = Path(source).expanduser()
    check_sae_source(str(source), sae_id)
    if not found.exists():
        found = from_elsewhere(str(source), sae_id, device, model_name)
    if isinstance(found, SAE):
        return _at(found, hook_name)
    folder = _saelens_folder(found)
    if folder is not None:
        return _at(load_folder(folder, device), hook_name)
    file = found if found.is_file() else checkpoint_in(found)
    return _at(
        load_checkpoint(file, device=device, d_model=d_model, hook_name=hook_name), hook_name
    )


def _check_fit(
    model: Model, sae: SAE[Any], source: str | Path, sae_id: str | None = None
) -> SAE[Any]:
    """The SAE loaded from `source`, if it fits the model; prints what was measured.

    Raises InputError with the figures if its audit fails.
    """
    found = audit(model, sae, promised=promises(sae, source, sae_id))
    if not found.passed:
        raise InputError(
            f"the SAE {source} does not fit {model.cfg.model_name}: {found} "
            "(load it without model= to skip this check)"
        )
    say(f"{source}: {found}")
    if found.figures:
        _FITS[sae] = (weakref.ref(model), _versions(sae))
    return sae


_FITS: weakref.WeakKeyDictionary[SAE[Any], tuple[weakref.ref[Model], list[int]]] = (
    weakref.WeakKeyDictionary()
)
"""SAEs that were audited as they were loaded: for which model, and their weights' state then."""


def fitted(model: Model, sae: SAE[Any]) -> bool:
    """Whether `load_sae(…, model=model)` found that the SAE fits, with the weights it has now."""
    passed = _FITS.get(sae)
    return passed is not None and passed[0]() is model and passed[1] == _versions(sae)


def _versions(sae: SAE[Any]) -> list[int]:
    """For each weight, PyTorch's count of writes to it, with its address."""
    return [n for weight in sae.parameters() for n in (weight._version, weight.data_ptr())]


def source_version(source: str) -> str | None:
    """A digest of a local SAE's files, which can change in place; None for other sources."""
    found = Path(source).expanduser()
    if not found.exists():
        return None
    if (folder := _saelens_folder(found)) is not None:
        whole = all((folder / name).is_file() for name in SAELENS)
        more = settings_of(folder)
        own = sae_fingerprint(folder) if whole else None
        return file_digest(*(folder / name for name in SAELENS), *more) if own and more else own
    file = found if found.is_file() else checkpoint_in(found)
    return file_digest(file, *settings_files(file))


def _saelens_folder(found: Path) -> Path | None:
    """The folder in SAELens's format that a path is, or whose weights it is."""
    if found.is_dir():
        return found if is_saelens(found) else None
    beside = found.with_name(SAELENS[0]).is_file()
    return found.parent if found.name == SAELENS[1] and beside else None


def _at(sae: SAE[Any], hook_name: str | None) -> SAE[Any]:
    """The SAE at the given hook, for models with unprocessed weights.

    Raises InputError if it was made for another hook, or holds NaN.
    """
    check_finite(sae)
    if hook_name is not None:
        check_hook(sae, hook_name)
        if sae.cfg.metadata.hook_name is None and not is_transcoder(sae):
            sae.cfg.metadata.hook_name = hook_name
    return for_plain_weights(sae)


def check_feature(sae: SAE[Any], feature: SupportsIndex) -> int:
    """The index as an int. Raises InputError if the SAE has no such feature."""
    index = whole("a feature", feature)
    if not 0 <= index < sae.cfg.d_sae:
        raise InputError(
            f"feature {index} is out of range: the SAE has features 0 to {sae.cfg.d_sae - 1}"
        )
    return index


def feature_indices(sae: SAE[Any], features: FeatureLike) -> list[int]:
    """One feature or several as ints. Raises InputError if the SAE has no such feature."""
    given: Any = plain(features)
    if hasattr(given, "candidates"):
        raise InputError("features is a Selection: give its .features, or some of its .candidates")
    listed: list[Any] = [given]
    if isinstance(given, Iterable) and not isinstance(given, str):
        listed = list(given)
    return [check_feature(sae, feature) for feature in listed]


def save_sae(sae: SAE[Any], folder: str | Path) -> Path:
    """Write an SAE in SAELens's format, all or nothing."""
    return write_with(Path(folder), lambda path: canonicalise(sae.save_model(path)[1]))


def convert_sae(
    source: str | Path, folder: str | Path, sae_id: str | None = None, **given: Any
) -> Path:
    """Load with `load_sae(source, sae_id, **given)` and save in SAELens's format, all or nothing.

    Warns of normalisation that plain SAELens does not apply. Raises the InputErrors of load_sae,
    and one for a folder that is not empty.
    """
    folder = Path(folder).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: choose another folder")
    sae = load_sae(source, sae_id, **given)
    _warn_of_plain_use(sae)
    return save_sae(sae, folder)


def _warn_of_plain_use(sae: SAE[Any]) -> None:
    """Say if SAELens alone would compute something else than `codec` does."""
    about = sae.cfg.metadata
    if about.unit_norm_per_token:
        say(
            "warning: the SAE reads activations scaled to unit norm per token, which plain SAELens "
            "neither applies nor reverses: encode and decode with saelens_steer.sae"
        )
    if about.centring_folded:
        say(
            "warning: the SAE reconstructs activations without their mean over d_model, which "
            "plain SAELens does not add back when it splices the SAE in: decode with "
            "saelens_steer.sae"
        )


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
