"""File names for names that users choose."""

from __future__ import annotations

import hashlib
import re

PORTABLE = re.compile(r"[a-z0-9_-]([a-z0-9_.-]*[a-z0-9_-])?")
"""Names that every file system keeps apart, and that are safe as HTML ids."""
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows reserves for devices, with any suffix."""
MARKED = re.compile(r".*-[0-9a-f]{16}")
"""Names that end as those with a digest do."""
LONGEST, READABLE = 100, 60
"""Characters of a name that is kept, and of what is kept before a digest. File systems allow 255
bytes, of which prefixes, suffixes and temporary names take some."""


def file_name(name: str) -> str:
    """A name as a file name or HTML id: the same for no two names, whatever their case.

    Short names of lower-case ASCII letters, digits and `_.-` are kept. Any other gets its readable
    part and a digest. It is never hidden, a device, a path, or longer than 100 bytes.
    """
    kept = PORTABLE.fullmatch(name) and not (DEVICE.fullmatch(name) or MARKED.fullmatch(name))
    if kept and len(name) <= LONGEST:
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:READABLE] or "x"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{readable}-{digest}"
