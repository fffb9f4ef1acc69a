"""Read rows of text: shipped sets, files, datasets on the hub."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets.config

from saelens_steer.errors import InputError, first_line

SHIPPED = Path(__file__).parent / "prompts"
TEXT_COLUMNS = ("text", "prompt")

SourceRow = tuple[str, int, dict[str, Any]]
"""Where the row is (for messages), its number from 1, and its columns."""


def source_rows(source: str) -> Iterator[SourceRow]:
    """Rows of a shipped name, a .jsonl or .txt file, or a dataset `name[:config[:split]]`.

    A .txt file gives one row per text, which a blank line ends. A dataset is read as far as rows
    are asked for, a file whole. Raises InputError.
    """
    path = source_file(source)
    if path is None:
        return _dataset(source)
    return text_rows(path) if path.suffix == ".txt" else json_lines(path)


def source_file(source: str) -> Path | None:
    """The file that a source names, whether or not it exists; None for a dataset."""
    if source in shipped_prompts():
        return SHIPPED / f"{source}.jsonl"
    named = source.endswith((".jsonl", ".txt")) or Path(source).is_file()
    return Path(source) if named else None


def shipped_prompts() -> list[str]:
    """The names of the prompt sets that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl"))


def text_rows(path: Path) -> Iterator[SourceRow]:
    """Each text of a .txt file, stripped; a blank line ends a text. Raises InputError."""
    texts = (block.strip() for block in re.split(r"\n[ \t\r]*\n", read_text(path)))
    for number, text in enumerate(filter(None, texts), start=1):
        yield f"{path} text {number}", number, {"text": text}


def json_lines(path: Path) -> Iterator[SourceRow]:
    """Each object of a .jsonl file, numbered by its line. Raises InputError."""
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
        yield where, number, row


def read_text(path: Path) -> str:
    """The file's UTF-8 text, a byte order mark left out. Raises InputError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path} line {line} is not UTF-8: save the file as UTF-8") from None


def _dataset(source: str) -> Iterator[SourceRow]:
    _refuse_near_miss(source)
    try:
        for number, row in enumerate(dataset_rows(source), start=1):
            yield f"{source} row {number}", number, row
    except InputError as error:
        names = ", ".join(shipped_prompts())
        raise InputError(
            f"{source!r} is no .txt or .jsonl file and not shipped ({names}); {error}"
        ) from error.__cause__


def _refuse_near_miss(source: str) -> None:
    """Report a misspelt shipped name at once, not after a search on the network."""
    near = difflib.get_close_matches(source, shipped_prompts(), n=2, cutoff=0.7)
    if near and not Path(source).exists() and not set("/:") & set(source):
        raise InputError(f"no shipped prompts {source!r}; did you mean {' or '.join(near)}?")


def dataset_rows(source: str) -> Iterator[dict[str, Any]]:
    """The rows of `name[:config[:split]]` (default split: train), one by one.

    Rows are streamed, so a large dataset is not downloaded whole; with HF_HUB_OFFLINE set they
    come from the local cache. `name` may be a local folder. Raises InputError.
    """
    name, *rest = source.split(":")
    if not name or len(rest) > 2:
        raise InputError(f"a dataset is named as name:config:split, not {source!r}")
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
            f"cannot load the dataset {name!r} (config {config}, split {split}), give it as "
            f"name:config:split: {first_line(error)}"
        ) from error


def text_of(row: dict[str, Any], where: str, columns: tuple[str, ...]) -> str:
    """The first of `columns` that the row has, a non-empty string. Raises InputError."""
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
    """As `text_of`, but empty if the text is null or blank."""
    text = next((row[c] for c in columns if c in row), ...)
    blank = text is None or (isinstance(text, str) and not text.strip())
    return "" if blank else text_of(row, where, columns)


def encodable(text: str, where: str) -> str:
    """The text itself, unless a lone surrogate keeps it from being UTF-8. Raises InputError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} holds half of a surrogate pair, which is no text") from None
    return text
