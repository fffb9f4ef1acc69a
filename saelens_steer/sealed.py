"""Files that show when they have changed: by the digest they state, or by a recorded one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from saelens_steer.files import digest, write_text


def sealed(content: Mapping[str, Any]) -> str:
    """A JSON object as text that begins with the digest of the rest."""
    stated = {"digest": digest(content), **content}
    return json.dumps(stated, indent=2, ensure_ascii=False) + "\n"


def unsealed(text: str) -> dict[str, Any]:
    """The object that `sealed` gave this text. Raises ValueError if any byte has changed."""
    try:
        content = json.loads(text)
        del content["digest"]
        if sealed(content) == text:
            return content
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    raise ValueError("its digest does not match")


def write_sealed(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a sealed JSON object, atomically."""
    return write_text(path, sealed(content))


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed file. Raises ValueError if it has changed, OSError if unreadable."""
    return unsealed(path.read_text(encoding="utf-8"))


def content_digest(path: Path) -> str | None:
    """sha256 (first 16 hex digits) of a file's content alone; None if it cannot be read.

    Content is read once per change of inode, size or times.
    """
    try:
        about = path.stat()
        return _digest_at(path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _digest_at(path: Path, *_: int) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def digest_of(data: bytes) -> str:
    """sha256 (first 16 hex digits) of bytes, as of a file with this content."""
    return hashlib.sha256(data).hexdigest()[:16]
