"""Python source of the running interpreter's standard library, in short pieces."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "encodings"}


def source_files() -> list[Path]:
    """The library's modules in a fixed order, tests left out."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / path for path in sorted(found) if not SKIPPED.intersection(path.parts)]


def python_source(seed: int, pieces: int, lines: int = 12) -> Iterator[str]:
    """`pieces` stretches of source, each of some consecutive lines, drawn at random."""
    rng = random.Random(f"source/{seed}")
    files = source_files()
    for _ in range(pieces):
        text = rng.choice(files).read_text(encoding="utf-8", errors="replace").splitlines()
        start = rng.randrange(max(1, len(text) - lines))
        yield "\n".join(text[start : start + lines]) + "\n"
