"""Find the folder with a model's weights, and hash its contents."""

from __future__ import annotations

import difflib
import errno
import functools
import hashlib
import json
import re
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub import errors as hub

from saelens_steer.config import TINY
from saelens_steer.errors import InputError, first_line, is_there, one_line
from saelens_steer.files import inside
from saelens_steer.model.names import hub_ids, only_in_transformer_lens

TINY_WEIGHTS = Path(__file__).parent / "tiny" / "weights"
EXAMPLE_ID = "Qwen/Qwen3-4B-Instruct-2507"
FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model"]
TEXT_FILES = ("*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.txt", "*.model")
"""Config, tokenizer, chat templates and generation settings."""
PICKLED_FILES = ["pytorch_model*.bin"]
"""Read if there are no safetensors, and as tensors only: torch runs no code in them."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The one file of weights, best first; each comes before the files of its index."""
ADAPTER_CONFIG = "adapter_config.json"


def find_snapshot(name: str, revision: str | None = None) -> Path:
    """The folder with the config.json and weights of a model.

    `name` is the shipped model's, a local folder, or a hub id or alias, downloaded unless cached.
    """
    local = Path(name).expanduser()
    if name == TINY:
        folder = TINY_WEIGHTS
    elif name and is_there(name) and local.is_dir():
        folder = local
    else:
        folder = _from_hub(name, revision)
    _check_complete(folder, name)
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    """Download a hub model unless it is cached under any of its ids."""
    if not (ids := hub_ids(name)):
        raise InputError(_not_a_model(name))
    if only_in_transformer_lens(ids[0]):
        raise InputError(
            f"The model {name} is in TransformerLens's own format: pass "
            f"HookedTransformer.from_pretrained({name!r}) where a model is expected."
        )
    hub_id = next((i for i in ids if _is_cached(i)), ids[0])
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=FILES))
        if not any(folder.glob("*.safetensors*")):
            more = [*FILES, *PICKLED_FILES]
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=more))
        return folder
    except Exception as e:  # hub, network and disk errors share no base class
        raise InputError(download_failure(name, revision, e)) from e


def _is_cached(hub_id: str) -> bool:
    """Whether the hub cache has a folder for this id."""
    return (Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}").is_dir()


def _not_a_model(name: str) -> str:
    """The message for a name that is neither a folder nor a hub id."""
    if difflib.get_close_matches(name.lower(), [TINY], cutoff=0.5):
        return f"There is no model {name!r}; did you mean {TINY!r}?"
    if any(sign in name for sign in "/\\~"):
        return f"There is no folder {name!r}; give an existing folder with config.json and weights."
    return f"There is no model {name!r}; give {TINY!r}, a folder, or a hub id such as {EXAMPLE_ID}."


def download_failure(name: str, revision: str | None, error: Exception) -> str:
    """The message for a failed download; the most specific errors are tested first."""
    if isinstance(error, hub.HFValidationError):
        return _not_a_model(name)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return f"The disk is full: free space or point HF_HOME elsewhere to download {name}."
    if isinstance(error, hub.RevisionNotFoundError):
        return (
            f"The model {name} has no revision {revision!r}; give a branch, tag or commit it has."
        )
    if isinstance(error, hub.GatedRepoError):
        return f"The model {name} is gated: accept its terms on the hub and set HF_TOKEN."
    if isinstance(error, hub.RepositoryNotFoundError):
        return (
            f"There is no folder or hub model {name!r}; check the name, or set HF_TOKEN if private."
        )
    if type(error).__name__ == "IncompleteSnapshotError":
        return f"The cached copy of {name} is incomplete and the hub is unreachable: go online."
    if isinstance(error, hub.LocalEntryNotFoundError):
        return (
            f"There is no folder {name!r}, the hub model is not cached, and the hub is "
            "unreachable: go online once (HF_HUB_OFFLINE=0) or give a local folder."
        )
    return f"The model {name} could not be downloaded: {first_line(error)}"


def _check_complete(folder: Path, name: str) -> None:
    """InputError for a folder without config.json or without all of its weights."""
    if (folder / ADAPTER_CONFIG).is_file():  # its base has a config.json
        return
    if not (folder / "config.json").is_file():
        if files := sorted(folder.glob("*.gguf")):
            raise InputError(f"The folder {name!r} holds GGUF files; give one, such as {files[0]}.")
        raise InputError(f"The model {name!r} has no config.json in {folder}; give another folder.")
    files = weight_files(folder)
    if not files:
        raise InputError(
            f"The model {name!r} has no safetensors weights in {folder}, and no {WEIGHTS[1]}; save "
            "it with save_pretrained."
        )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"The model {name!r} lacks {missing[0]} in {folder}; download it again.")


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would read, sorted by name; some of an index may be missing."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if files := _listed(folder / f"{name}.index.json"):
            return files
    return []


def _listed(index: Path) -> list[Path]:
    """The files that an index lists; empty without an index."""
    if not index.is_file():
        return []
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as e:
        raise InputError(f"{index} is damaged ({one_line(e)}); download it again.") from e
    return [inside(index.parent, name) for name in names]


def snapshot_fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of the weights and all `TEXT_FILES`."""
    text = [file for pattern in TEXT_FILES for file in folder.glob(pattern)]
    files = [*sorted(text), *weight_files(folder)]
    lines = [f"{file.relative_to(folder)} {content_hash(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def snapshot_commit(folder: Path) -> str | None:
    """The commit of a folder in the hub cache; None for any other folder."""
    return folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else None


def content_hash(file: Path) -> str:
    """sha256 of one file, taken from its name if it is a large file in the hub cache."""
    real = file.resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    stat = real.stat()
    return _hash_file(real, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash_file(file: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001
    """sha256 of a file's bytes; size and time are part of the cache key, to notice changes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
