"""Earlier and edited versions of files, kept beside the new ones under another name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from saelens_steer.numbers import count
from saelens_steer.progress import say

NAMED_BY_FREE_NAME = re.compile(r".+\.(earlier|edited)-\d+(\.[^.]*)?")


def free_name(path: Path, word: str) -> Path:
    """The first of name.word-1.suffix, name.word-2.suffix … beside `path` that is free.

    `word`: earlier or edited.
    """
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    names = (path.with_name(f"{stem}.{word}-{n}{suffix}") for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def say_aside(paths: Iterable[Path]) -> None:
    """Print the total size of the files and folders that `free_name` named, if there are several.

    Everything else among `paths` is ignored, and so is what lies in a folder that counts.
    """
    found = sorted(path for path in paths if NAMED_BY_FREE_NAME.fullmatch(path.name))
    kept = [path for path in found if not {*path.parents} & {*found}]
    if len(kept) < 2:
        return
    inside = [one for path in kept for one in (path, *path.rglob("*")) if not one.is_dir()]
    more = f" and {len(kept) - 3:,} more" if len(kept) > 3 else ""
    say(
        f"{count(len(kept), 'earlier or edited version')} take "
        f"{sum(one.lstat().st_size for one in inside) / 1e6:,.1f} MB: "
        f"{', '.join(map(str, kept[:3]))}{more}; delete what you no longer need"
    )
