"""Write files atomically, read and remove them, and hash their contents."""

from __future__ import annotations

import contextlib
import glob
import gzip
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path, PurePath
from typing import Any

from saelens_steer.aside import free_name, say_aside
from saelens_steer.errors import InputError, existing, why_not_written
from saelens_steer.progress import say

Watch = Callable[[Path, Path | None], Sequence[Path]]
"""See `watched`."""


def unwatched(path: Path, temporary: Path | None) -> list[Path]:
    """Rename an old folder that has files which the new one lacks or changes."""
    if temporary and temporary.is_dir() and path.is_dir() and not path.is_symlink():
        old, new = ({f.relative_to(p): f for f in files_in(p)} for p in (path, temporary))
        lost = [f for f in old if f not in new or file_digest(old[f]) != file_digest(new[f])]
        if first := min(lost, key=lambda f: (f in new, f), default=None):
            aside = path.rename(free_name(path, "earlier"))
            say(f"{path} held a different {first}: the old folder is now {aside}")
            say_aside(path.parent.glob(f"{glob.escape(path.name)}.*"))
    return []


_watch: ContextVar[Watch] = ContextVar("watch", default=unwatched)


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Inside the context, call `watch` for each file or folder that `replacing` writes.

    Before the work it is called with (path, None), and may refuse. Before the rename it is called
    with (path, temporary), and returns the files of an old folder that stay in the new one.
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path` for a file or folder; rename it to `path` on success.

    On any error the temporary is removed and `path` is left unchanged. InputError if the disk is
    full or `path` cannot be written.
    """
    path = Path(path)
    temporary, watch = path.with_name(f".{path.name}.{os.getpid()}.tmp"), _watch.get()
    watch(path, None)
    _make_folder(path.parent)
    try:
        remove(temporary)  # left by a killed process with the same id
        yield temporary
        flush(temporary)
        kept = watch(path, temporary)
        if temporary.is_dir() and path.is_dir():
            _replace_folder(path, temporary, kept)
        else:
            temporary.replace(path)
    except BaseException as error:
        _remove_if_there(temporary)
        if why := why_not_written(error, path, temporary):
            raise InputError(why) from None
        raise


def flush(path: Path) -> None:
    """Have the disk hold a file, or the files of a folder, before a rename commits them."""
    for file in files_in(path):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _replace_folder(path: Path, temporary: Path, kept: Sequence[Path]) -> None:
    """Put a folder in the place of another, all of whose files go except `kept`."""
    if path.is_symlink():
        path.unlink()  # what it leads to stays
    elif not kept:
        shutil.rmtree(path)
    if not path.exists():
        temporary.replace(path)
        return
    # file by file, since a kept file in a temporary folder would be lost if the process were killed
    for old in files_in(path):
        if old not in kept:
            old.unlink()
    for new in files_in(temporary):
        place = path / new.relative_to(temporary)
        place.parent.mkdir(parents=True, exist_ok=True)
        new.replace(place)
    shutil.rmtree(temporary)


def files_in(path: Path) -> list[Path]:
    """The path itself if it is a file or a link to one, or all files and links of the folder."""
    if path.is_dir():
        return [p for p in sorted(path.rglob("*")) if p.is_symlink() or not p.is_dir()]
    return [path] if os.path.lexists(path) else []


def inside(folder: str | Path, name: str) -> Path:
    """The path of `name`, which comes from a file or a config, inside `folder`.

    InputError if the name is absolute, leads out of the folder by `..` or through a link, is the
    folder itself, or is not a valid path. The path itself may be a link.
    """
    given, path = PurePath(name), Path(folder, name)
    try:
        within = path.parent.resolve().is_relative_to(Path(folder).resolve())
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, or a cycle of links
        within = False
    if not given.parts or given.is_absolute() or ".." in given.parts or not within:
        raise InputError(
            f"{name!r} is not a path inside {folder}: use a relative name without .. or links "
            "that lead out of it"
        )
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove temporaries of killed processes anywhere in the folder."""
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
        return True  # it belongs to another user
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None


def _remove_if_there(path: Path) -> None:
    """`remove`, without masking an error that is already propagating."""
    with contextlib.suppress(OSError):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_with(path: Path, write: Callable[[Path], Any]) -> Path:
    """Call `write(temporary)` to create a file or folder, then rename it to `path`."""
    with replacing(path) as temporary:
        write(temporary)
    return Path(path)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, data: bytes) -> Path:
    """Write bytes atomically."""
    return write_with(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, data: Any) -> Path:
    """Write indented JSON atomically; NaN and infinities become null."""
    text = json.dumps(_without_nan(data), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write one JSON object per line atomically; NaN and infinities become null."""
    lines = (json.dumps(_without_nan(row), ensure_ascii=False, allow_nan=False) for row in rows)
    return write_text(path, "".join(line + "\n" for line in lines))


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark. InputError if unreadable or not UTF-8.

    A file whose name ends in .gz is unpacked.
    """
    try:
        data = existing(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"{path} is damaged or not a gzip file: replace it") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path} line {line} is not UTF-8: save the file as UTF-8") from None


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a .jsonl file, each with the number of its line, from 1. Raises InputError."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{where} must be a JSON object such as {{'text': …}}")
        yield number, row


def read_json(path: Path) -> Any:
    """The data in a JSON file; an empty mapping if the file does not exist. Raises InputError."""
    if not path.is_file():
        return {}
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None


def _without_nan(data: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by None."""
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def digest(*parts: Any) -> str:
    """sha256 (first 16 hex digits) of JSON-like parts."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(*paths: Path) -> str:
    """sha256 (first 16 hex digits) over the names and contents of files, in this order."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(path.name.encode())
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()[:16]
