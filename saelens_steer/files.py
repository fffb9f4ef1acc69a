"""Write files so that readers never see half of one, remove them, and hash their contents."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

from saelens_steer.errors import InputError

UNWRITABLE = {
    errno.EACCES,
    errno.EROFS,
    errno.EPERM,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}
"""Errors of the system for a path that cannot be written."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` (a file or a folder), renamed to it on success.

    On any error the temporary is removed and what stood at `path` stays. A full disk, or a path
    that cannot be written, raises InputError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _make_folder(path.parent)
    try:
        remove(temporary)  # left by a killed process that had the same id
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    except BaseException as error:
        _remove_if_there(temporary)
        if _is_disk_full(error):
            raise InputError(f"the disk is full: free some space for {path}") from None
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        raise


def inside(folder: str | Path, name: str) -> Path:
    """The path inside a folder for a name that comes from a file or a config.

    Raises InputError for an absolute name, for one that leads out of the folder by `..` or through
    a link, for the folder itself, and for an impossible path. The path itself may be a link.
    """
    given, path = PurePath(name), Path(folder, name)
    try:
        within = path.parent.resolve().is_relative_to(Path(folder).resolve())
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, ValueError, RuntimeError):  # too long, no text, or links in a circle
        within = False
    if not given.parts or given.is_absolute() or ".." in given.parts or not within:
        raise InputError(
            f"{name!r} names no place inside {folder}: absolute names, .. and links that lead out "
            "of it are refused"
        )
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove the temporaries that killed processes left anywhere in the folder."""
    for path in sorted(folder.rglob(".*.tmp")):
        pid = path.name.split(".")[-2]
        if pid.isdigit() and not _is_running(int(pid)):
            _remove_if_there(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}") from None


def _is_disk_full(error: BaseException) -> bool:
    """Libraries that write files, such as safetensors, report it in their own exceptions."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, Exception) and os.strerror(errno.ENOSPC) in str(error)


def _remove_if_there(path: Path) -> None:
    """`remove`, without hiding an error that is already propagating."""
    with contextlib.suppress(OSError):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_with(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write(temporary)` make the file or folder, then move it to `path`."""
    with replacing(path) as temporary:
        write(temporary)
    return Path(path)


def write_text(path: Path, text: str) -> Path:
    """Write text as UTF-8, all or nothing."""
    return write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, data: bytes) -> Path:
    """Write bytes, all or nothing."""
    return write_with(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, data: Any) -> Path:
    """Write indented JSON, all or nothing; NaN and infinities become null."""
    text = json.dumps(_without_nan(data), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write one JSON object per line, all or nothing; NaN and infinities become null."""
    lines = (json.dumps(_without_nan(row), ensure_ascii=False, allow_nan=False) for row in rows)
    return write_text(path, "".join(line + "\n" for line in lines))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _without_nan(data: Any) -> Any:
    """The data with null for NaN and infinities, which JSON does not have."""
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def digest(*parts: Any) -> str:
    """sha256 (first 16 hex digits) of JSON-like parts: equal parts, equal digest."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(*paths: Path) -> str:
    """sha256 (first 16 hex digits) over the names and bytes of files, in the order given."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(path.name.encode())
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()[:16]
