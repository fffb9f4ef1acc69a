"""Prompt sets: shipped ones, text and .jsonl files, and Hugging Face datasets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from saelens_steer.data.hub import encodable, text_of
from saelens_steer.data.rows import TEXT_COLUMNS, Row, source_file, source_rows
from saelens_steer.errors import InputError
from saelens_steer.files import digest


@dataclass(frozen=True)
class Prompt:
    """One user request; `answer`, when known, is what the assistant says to it."""

    id: str
    text: str
    domain: str = ""
    answer: str | None = None


def load_prompts(source: str | Path, limit: int | None = None) -> list[Prompt]:
    """Prompts of a shipped name, a .jsonl or .txt path, or a dataset `name[:config[:split]]`.

    Each row has `text` (or `prompt`) and may have `id` (default: its line or row number, counted
    from 1), `domain` and `answer`; in a .txt file a blank line ends a text. `limit` keeps the
    first so many. Raises InputError.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the limit of prompts must be at least 1, not {limit}")
    prompts = list(islice(_prompts(str(source)), limit))
    if not prompts:
        raise InputError(f"{source} holds no prompts")
    return prompts


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """sha256 (first 16 hex digits) over every field of every prompt, in order."""
    return digest([dataclasses.astuple(prompt) for prompt in prompts])


def _prompts(source: str) -> Iterator[Prompt]:
    prompts = _unique(source_rows(source))
    # a file is checked whole, also what a limit leaves out
    return iter(list(prompts)) if source_file(source) else prompts


def _unique(rows: Iterable[Row]) -> Iterator[Prompt]:
    seen: dict[str, str] = {}
    for where, number, row in rows:
        prompt = _prompt(row, where, number)
        if prompt.id in seen:
            raise InputError(f"{where}: the id {prompt.id!r} is already that of {seen[prompt.id]}")
        seen[prompt.id] = where
        yield prompt


def _prompt(row: dict[str, Any], where: str, number: int) -> Prompt:
    text = text_of(row, where, TEXT_COLUMNS)
    name = row.get("id")
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        raise InputError(f"{where}: 'id' must be a string or a whole number")
    return Prompt(
        id=encodable(str(number if name is None or name == "" else name), where),
        text=text,
        domain=_optional(row, "domain", where) or "",
        answer=_optional(row, "answer", where),
    )


def _optional(row: dict[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {key!r} must be a string, not {type(value).__name__}")
    return None if value is None else encodable(value, where)


def check_disjoint(steered: Sequence[Prompt], selecting: Sequence[Prompt]) -> None:
    """Raise InputError if a prompt that is steered was also used to choose the features."""
    shared = {p.text for p in steered} & {p.text for p in selecting}
    if shared:
        example = sorted(shared)[0][:60]
        raise InputError(
            f"{len(shared)} prompts are both steered and used for selection, such as {example!r}: "
            "features must be chosen on other prompts than effects are measured on"
        )
