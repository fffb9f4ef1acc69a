"""Read rows of text from shipped sets, files and datasets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets.config

from saelens_steer.errors import InputError, first_line
from saelens_steer.files import read_jsonl, read_text

SHIPPED = Path(__file__).parent / "prompts"
TEXT_COLUMNS = ("text", "prompt")

SourceRow = tuple[str, int, dict[str, Any]]
"""Location of the row (for messages), its number from 1, and its columns."""


def source_rows(source: str) -> Iterator[SourceRow]:
    """Rows of a shipped set, a .jsonl or .txt file, or a dataset `name[:config[:split]]`.

    A file is read whole; a dataset only as far as it is iterated.
    """
    path = source_file(source)
    if path is None:
        return _dataset(source)
    return text_rows(path) if path.suffix == ".txt" else json_lines(path)


def source_file(source: str) -> Path | None:
    """The file behind a source, which may not exist; None for a dataset."""
    if source in shipped_prompts():
        return SHIPPED / f"{source}.jsonl"
    named = source.endswith((".jsonl", ".txt")) or Path(source).is_file()
    return Path(source) if named else None


def shipped_prompts() -> list[str]:
    """Names of the shipped prompt sets."""
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl"))


def text_rows(path: Path) -> Iterator[SourceRow]:
    """The texts of a .txt file, stripped; they are separated by blank lines."""
    texts = (block.strip() for block in re.split(r"\n[ \t\r]*\n", read_text(path)))
    for number, text in enumerate(filter(None, texts), start=1):
        yield f"{path} text {number}", number, {"text": text}


def json_lines(path: Path) -> Iterator[SourceRow]:
    """The objects of a .jsonl file, numbered by line. InputError for invalid JSON."""
    for number, row in read_jsonl(path):
        yield f"{path} line {number}", number, row


def _dataset(source: str) -> Iterator[SourceRow]:
    near = difflib.get_close_matches(source, shipped_prompts(), n=2, cutoff=0.7)
    if near and not Path(source).exists() and not set("/:") & set(source):  # before a slow search
        raise InputError(f"there is no shipped set {source!r}; did you mean {' or '.join(near)}?")
    try:
        for number, row in enumerate(dataset_rows(source), start=1):
            yield f"{source} row {number}", number, row
    except InputError as error:
        names = ", ".join(shipped_prompts())
        raise InputError(
            f"{source!r} is neither a .txt or .jsonl file nor a shipped set ({names}); {error}"
        ) from error.__cause__


def dataset_rows(source: str) -> Iterator[dict[str, Any]]:
    """The rows of `name[:config[:split]]` (default split: train); `name` may be a local folder.

    Rows are streamed, so that a large dataset is not downloaded whole; with HF_HUB_OFFLINE set they
    come from the local cache. InputError if the dataset cannot be loaded.
    """
    name, *rest = source.split(":")
    if not name or len(rest) > 2:
        raise InputError(f"give a dataset as name:config:split, not {source!r}")
    config, split = (part or None for part in (*rest, "", "")[:2])
    split = split or "train"
    streaming = not datasets.config.HF_HUB_OFFLINE
    try:
        rows = datasets.load_dataset(
            name, config, split=split, streaming=streaming, trust_remote_code=False
        )
        yield from map(dict, rows)
    except Exception as error:
        raise InputError(
            f"cannot load the dataset {name!r} (config {config}, split {split}; the format is "
            f"name:config:split): {first_line(error)}"
        ) from error


def text_of(row: dict[str, Any], where: str, columns: tuple[str, ...]) -> str:
    """The text in the first of `columns` that the row has. InputError unless it is non-empty."""
    column = next((c for c in columns if c in row), None)
    if column is None:
        wanted = " or ".join(repr(c) for c in columns)
        raise InputError(f"{where} has no {wanted}, only {', '.join(map(str, row)) or 'nothing'}")
    text = row[column]
    if not isinstance(text, str):
        raise InputError(f"{where}: {column!r} must be a string, not {type(text).__name__}")
    if not text.strip():
        raise InputError(f"{where}: {column!r} is empty")
    return encodable(text, where)


def text_if_any(row: dict[str, Any], where: str, columns: tuple[str, ...]) -> str:
    """`text_of`, but '' if the text is null or blank."""
    text = next((row[c] for c in columns if c in row), ...)
    blank = text is None or (isinstance(text, str) and not text.strip())
    return "" if blank else text_of(row, where, columns)


def encodable(text: str, where: str) -> str:
    """Return the text. InputError if a lone surrogate keeps it from being UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} contains half of a surrogate pair; remove it") from None
    return text
