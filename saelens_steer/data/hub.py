"""Rows of a Hugging Face dataset, named as `name[:config[:split]]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets.config

from saelens_steer.errors import InputError


def dataset_rows(source: str) -> Iterator[dict[str, Any]]:
    """The rows of `name[:config[:split]]` (split: train), one after the other.

    Rows are streamed, so a large dataset is not downloaded whole; with HF_HUB_OFFLINE set they
    come from the local cache. `name` may be a local folder. Raises InputError.
    """
    name, config, split = _parts(source)
    streaming = not datasets.config.HF_HUB_OFFLINE
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=streaming)
        yield from map(dict, rows)
    except Exception as error:
        raise InputError(
            f"cannot load the dataset {name!r} (config {config}, split {split}), give it as "
            f"name:config:split: {_first_line(error)}"
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


def encodable(text: str, where: str) -> str:
    """The text itself, unless a lone surrogate keeps it from being UTF-8. Raises InputError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} holds half of a surrogate pair, which is no text") from None
    return text


def _parts(source: str) -> tuple[str, str | None, str]:
    name, *rest = source.split(":")
    if not name or len(rest) > 2:
        raise InputError(f"a dataset is named as name:config:split, not {source!r}")
    config, split = (*rest, "", "")[:2]
    return name, config or None, split or "train"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
