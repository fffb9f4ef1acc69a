"""Prompt sets: shipped ones, .jsonl files and Hugging Face datasets."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from saelens_steer.data.hub import dataset_rows, encodable, text_of
from saelens_steer.errors import InputError
from saelens_steer.files import digest

SHIPPED = Path(__file__).parent / "prompts"
TEXT_COLUMNS = ("text", "prompt")


@dataclass(frozen=True)
class Prompt:
    """One user request; `answer`, when known, is what the assistant says to it."""

    id: str
    text: str
    domain: str = ""
    answer: str | None = None


def load_prompts(source: str | Path, limit: int | None = None) -> list[Prompt]:
    """Prompts of a shipped name, a .jsonl path, or a dataset `name[:config[:split]]`.

    Each row has `text` (or `prompt`) and may have `id` (default: its line or row number, counted
    from 1), `domain` and `answer`. `limit` keeps the first so many. Raises InputError.
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


def shipped_prompts() -> list[str]:
    """The names of the prompt sets that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl"))


def _prompts(source: str) -> Iterator[Prompt]:
    if source in shipped_prompts():
        source = str(SHIPPED / f"{source}.jsonl")
    if source.endswith(".jsonl") or Path(source).is_file():
        # the whole file is checked, also what a limit leaves out
        return iter(list(_unique(json_lines(Path(source)))))
    return _unique(_dataset(source))


def _dataset(source: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    _refuse_near_miss(source)
    try:
        for number, row in enumerate(dataset_rows(source), start=1):
            yield f"{source} row {number}", number, row
    except InputError as error:
        names = ", ".join(shipped_prompts())
        raise InputError(f"{source!r} is no .jsonl file and not shipped ({names}); {error}") from (
            error.__cause__
        )


def _refuse_near_miss(source: str) -> None:
    """A slip in a shipped name is told at once, not after a search on the network."""
    near = difflib.get_close_matches(source, shipped_prompts(), n=2, cutoff=0.7)
    if near and not Path(source).exists() and not set("/:") & set(source):
        raise InputError(f"no shipped prompts {source!r}; did you mean {' or '.join(near)}?")


def json_lines(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Each object of a .jsonl file as (where, line number, row). Raises InputError."""
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


def _unique(rows: Iterable[tuple[str, int, dict[str, Any]]]) -> Iterator[Prompt]:
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
