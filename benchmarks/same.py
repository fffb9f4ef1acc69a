"""Compares two run folders number for number: `python -m benchmarks.same OLD NEW [--pages]`.

Prints one line per difference and a summary. Exits 0 if the folders hold the same answers, 1 if
they differ, 2 for bad usage. Floats must agree bit for bit (NaN equals NaN), rows and list items
in order; the order of columns and JSON keys does not matter. Rows count from 1, list items from 0.
sweep/ counts as one table. Whatever was renamed may have either name in either folder.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import filecmp
import itertools
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from benchmarks.same_files import TEXTS, Column, Lines, Paths, read

# Old name -> new name. Entries that end in * rename a folder or another prefix.
RENAMED_FILES = {
    "matrix.csv": "tradeoffs_by_domain.csv",
    "front.csv": "tradeoffs.csv",
    "matrix_rows.parquet": "tradeoffs_rows.parquet",
    "patch.csv": "compare_edits.csv",
    "patch.json": "compare_edits.json",
    "twin/*": "frozen_decoder_baseline/*",
    "plots/choices.html": "plots/compare_directions.html",
    "plots/front.html": "plots/tradeoffs.html",
    "plots/matrix.html": "plots/tradeoffs_by_domain.html",
}
# New file name, or a pattern ("*" for every file) -> {old: new}.
# Columns, and JSON keys at any depth:
RENAMED_COLUMNS: dict[str, dict[str, str]] = {
    "tradeoffs.csv": {"on_front": "on_pareto_front"},
    "provenance.json": {"twin": "frozen_decoder_baseline"},
}
# Whole cells and JSON strings:
RENAMED_VALUES: dict[str, dict[str, str]] = {
    "frozen_decoder_baseline/features.json": {"twin/sae": "frozen_decoder_baseline/sae"},
    "tradeoffs*": {
        "keep_norm@last": "add(keep_norm)@last",
        "where@last": "add(gate=probe)@last",
        "apart": "add(orthogonal_to=domains)",
        "fires": "add(gate=feature)",
        "clamp": "set_to",
    },
}

IGNORED_FILES = (
    *(".*", "*/.*", "*checkpoints/*", "*tensorboard/*", "config.yaml"),
    *("plots/*", "*.html", "*.png", "report.pdf"),
)
# Compared with --pages.
PAGES = ("plots/*.html", "grid/frontier.html", *TEXTS)
# New file name, or a pattern -> keys that describe the machine and the versions, not the answer.
IGNORED_KEYS = {
    "provenance.json": ("saelens_steer", "python", "packages*", "device", "model.folder"),
    "*cfg.json": ("*sae_lens_version", "*sae_lens_training_version"),
}
PRINTED = 20
"""Differences printed per file."""
SWEEP = "sweep/*.parquet"
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Difference = tuple[str, Any, Any]
"""Where, the old value, the new value."""


class Absent:
    """A column, key or line that one side lacks."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Print how NEW differs from OLD; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare two run folders number for number.")
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--pages", action="store_true", help="also compare figures and page texts")
    given = parser.parse_args(argv)
    old, new = (answers(folder, given.pages) for folder in (given.old, given.new))
    for folder, found in ((given.old, old), (given.new, new)):
        if not found:
            parser.error(f"{folder} holds no answers: give the folders of two runs")
    counts = [
        show(name, lines(name, old.get(name, []), new.get(name, []))) for name in {**old, **new}
    ]
    total, unlike = sum(counts), sum(map(bool, counts))
    found = (
        f"{total:,} difference{'s' * (total > 1)} in {unlike} of" if total else "no differences in"
    )
    print(f"{found} {len(counts)} files")
    return int(total > 0)


def answers(folder: Path, pages: bool) -> dict[str, list[Path]]:
    """New name -> the files that go by it; all of sweep/ goes by one name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        wanted = not fits(name, IGNORED_FILES) or (pages and fits(name, PAGES))
        if wanted and path.is_file():
            name = SWEEP if fits(name, [SWEEP]) else new_name(name, RENAMED_FILES)
            found.setdefault(name, []).append(path)
    return found


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def new_name(name: str, names: Mapping[str, str]) -> str:
    """The new name of something known by its old or its new name."""
    if name in names:
        return names[name]
    for old, new in names.items():
        if old.endswith("*") and name.startswith(old[:-1]):
            return new[:-1] + name[len(old) - 1 :]
    return name


def show(name: str, found: Iterator[str]) -> int:
    """Print the first differences of a file; return how many it has."""
    count = 0
    for line in found:
        count += 1
        if count <= PRINTED:
            print(f"{name}: {line}")
    if count > PRINTED:
        print(f"{name}: and {count - PRINTED:,} more")
    return count


def lines(name: str, old: Paths, new: Paths) -> Iterator[str]:
    """One line per difference of the file with this new name."""
    for side, paths in (("OLD", old), ("NEW", new)):
        if len(paths) > 1 and name != SWEEP:
            yield f"{side} has it under two names: {', '.join(path.name for path in paths)}"
            return
    if not old or not new:
        yield f"only in {'OLD' if old else 'NEW'}"
    elif len(old) != len(new) or not all(map(identical, old, new)):
        try:
            yield from content_lines(name, old, new)
        except (ValueError, KeyError, OSError, csv.Error, SafetensorError) as error:
            yield f"cannot be read: {error}"


def identical(old: Path, new: Path) -> bool:
    """Whether two files hold the same bytes."""
    return filecmp.cmp(old, new, shallow=False)


def content_lines(name: str, old: Paths, new: Paths) -> Iterator[str]:
    """One line per difference between the parsed contents, under their new names."""
    columns, values = of_file(RENAMED_COLUMNS, name), of_file(RENAMED_VALUES, name)
    contents = [renamed(read(name, paths), columns, values) for paths in (old, new)]
    ignored = [
        key for pattern, keys in IGNORED_KEYS.items() if fits(name, [pattern]) for key in keys
    ]
    for place, before, after in differences("", *contents):
        if not fits(place, ignored):
            where = " ".join(place.split()) or "content"
            yield f"{where}: {' -> '.join(shown(before, after))}"


def of_file(tables: Mapping[str, Mapping[str, str]], name: str) -> dict[str, str]:
    """The renames that apply to one file."""
    own = (table for pattern, table in tables.items() if fits(name, [pattern]))
    return {old: new for table in own for old, new in table.items()}


def shown(old: Any, new: Any) -> list[str]:
    """Two values in brief: floats with all digits, long texts from where they part."""
    if isinstance(old, str) and isinstance(new, str):
        pairs = enumerate(zip(old, new, strict=False))
        start = next((i for i, (a, b) in pairs if a != b), min(len(old), len(new))) - 20
        old, new = ("…" + text[start:] if start > 0 else text for text in (old, new))
    return [SHORT.repr(value).replace("\n", " ") for value in (old, new)]


def renamed(data: Any, columns: Mapping[str, str], values: Mapping[str, str]) -> Any:
    """The data under its new names. An old key stays if the new one is there with other content."""
    if isinstance(data, dict):
        data = {key: renamed(value, columns, values) for key, value in data.items()}
        for key in list(data):
            to = new_name(key, columns)
            if to != key and (to not in data or not any(differences("", data[key], data[to]))):
                data[to] = data.pop(key)
    elif isinstance(data, list):
        return type(data)(renamed(value, columns, values) for value in data)
    return new_name(data, values) if isinstance(data, str) else data


def differences(place: str, old: Any, new: Any) -> Iterator[Difference]:
    """Every place where two parsed contents differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            where = ".".join(filter(None, (place, key)))
            yield from differences(where, old.get(key, ABSENT), new.get(key, ABSENT))
    elif isinstance(old, Lines) and isinstance(new, Lines):
        yield from line_differences(old, new)
    elif isinstance(old, list) and isinstance(new, list):
        yield from item_differences(place, old, new)
    elif isinstance(old, Tensor) and isinstance(new, Tensor):
        yield from tensor_differences(place, old, new)
    elif not same(old, new):
        yield place, old, new


def item_differences(place: str, old: list[Any], new: list[Any]) -> Iterator[Difference]:
    """Where two lists or columns differ, over the items that both have."""
    rows = isinstance(old, Column)
    if len(old) != len(new) and not rows:
        yield f"{place}, length", len(old), len(new)
    for number, (before, after) in enumerate(zip(old, new, strict=False)):
        if not same(before, after):
            where = f"{place}, row {number + 1}".strip(", ") if rows else f"{place}[{number}]"
            yield from differences(where, before, after)


def same(old: Any, new: Any) -> bool:
    """Whether two single values are equal, floats in every bit; False for containers."""
    kinds = {type(old), type(new)}
    if float in kinds and kinds <= {int, float}:
        return repr(float(old)) == repr(float(new))
    return len(kinds) == 1 and not isinstance(old, dict | list | Tensor) and old == new


def tensor_differences(place: str, old: Tensor, new: Tensor) -> Iterator[Difference]:
    """The entries of two tensors that differ in any bit; their type and shape if those do."""
    kinds = [f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}" for one in (old, new)]
    if kinds[0] != kinds[1]:
        yield place, kinds[0], kinds[1]
        return
    bits = [one.contiguous().view(INTEGERS[one.element_size()]) for one in (old, new)]
    unlike = (bits[0] != bits[1]) & ~(old.isnan() & new.isnan())
    for at in unlike.nonzero().tolist():
        yield f"{place}{at}", old[tuple(at)].item(), new[tuple(at)].item()


def line_differences(old: Lines, new: Lines) -> Iterator[Difference]:
    """The lines of two texts that differ, after aligning the texts."""
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind != "equal":
            pairs = itertools.zip_longest(old[i1:i2], new[j1:j2], fillvalue=ABSENT)
            for number, (before, after) in enumerate(pairs, i1 + 1):
                yield f"line {number}", before, after


if __name__ == "__main__":
    sys.exit(main())
