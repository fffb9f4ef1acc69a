"""Load and sample prompts, and keep steered prompts apart from selection prompts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from saelens_steer.config import PromptSpec, SampleSpec, counted
from saelens_steer.data.prompt import Prompt, conversation
from saelens_steer.data.sources import (
    TEXT_COLUMNS,
    SourceRow,
    encodable,
    source_file,
    source_rows,
    text_if_any,
    text_of,
)
from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.numbers import count
from saelens_steer.progress import say_once

ROW_KEYS = ("id", "domain", "messages", "answer", *TEXT_COLUMNS)
"""The keys of a row that are read."""


def steered_prompts(spec: PromptSpec) -> list[Prompt]:
    """The prompts of a config: all of a source, the first few, or a sample."""
    if spec.sample is not None:
        return sample_prompts(spec.source, spec.sample)
    return load_prompts(spec.source, spec.limit)


def load_prompts(source: str | Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of a shipped set, a .jsonl or .txt file, or a dataset `name[:config[:split]]`.

    Each row has `messages`, a conversation, or `text`; `prompt` may be either, or a list of token
    ids. It may have `id` (default: its line or row number, from 1), `domain` and `answer`. A final
    assistant turn is the answer. In a .txt file, texts are separated by blank lines. `limit`
    keeps the first prompts only. InputError for a bad row.
    """
    if not isinstance(source, str | Path):
        raise InputError(
            "load_prompts reads a set, a file or a dataset, given by name; a list of prompts needs "
            "no loading: pass it as prompts="
        )
    limit = None if limit is None else counted("limit", limit)
    found = _unique(source_rows(str(source)))
    if source_file(str(source)):
        found = iter(list(found))  # check the whole file, even beyond the limit
    prompts = list(islice(found, limit))
    if not prompts:
        raise InputError(f"{source} holds no prompts")
    return prompts


def sample_prompts(source: str | Path, spec: SampleSpec) -> list[Prompt]:
    """Draw `spec.n` prompts from a source (as in `load_prompts`), equally many per stratum.

    Prompts keep the order of the rows. The same rows and spec always give the same prompts, and a
    larger n only adds prompts. The id is the row's number, from 1; the domain is its stratum: the
    column's value, or length_1of5 for the shortest fifth. InputError if there are too few usable
    rows, no text, or no such column.
    """
    source = str(source)
    pool = list(islice(_usable(source, spec), spec.pool))
    if len(pool) < spec.n:
        raise InputError(
            f"{source} has only {len(pool)} usable rows with distinct texts for a sample of "
            f"{spec.n}: lower prompts.sample.n or min_chars"
        )
    strata = _by_value(pool, source, spec) if spec.by else _by_length(pool, spec.strata)
    drawn = sorted(_drawn(strata, spec.n, spec.seed), key=lambda drawn: drawn[1].number)
    return [replace(row.prompt, id=str(row.number), domain=name) for name, row in drawn]


def some_prompts(prompts: Sequence[Prompt], n: int, seed: int = 0) -> list[Prompt]:
    """Up to n of the prompts, equally many per domain, drawn at random, in their original order."""
    strata: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        strata.setdefault(prompt.domain, []).append(prompt)
    drawn = {prompt.id for _, prompt in _drawn(strata, n, seed)}
    return [prompt for prompt in prompts if prompt.id in drawn]


def first_of_domains(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """The first `limit` prompts of each domain, domain by domain."""
    by_domain: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_domain.setdefault(prompt.domain, []).append(prompt)
    return [prompt for own in by_domain.values() for prompt in own[:limit]]


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """sha256 (first 16 hex digits) over every field of every prompt, in order."""
    return digest([astuple(prompt) for prompt in prompts])


def check_disjoint(steered: Sequence[Prompt], selecting: Sequence[Prompt]) -> None:
    """InputError if a steered prompt was also used to select features."""
    selected_on = {p.content for p in selecting}
    shared = {p.content: p.text or str(p.ids) for p in steered if p.content in selected_on}
    if shared:
        are, first = ("is", "") if len(shared) == 1 else ("are", "for example ")
        example = min(shared.values())[:60]
        raise InputError(
            f"{count(len(shared), 'prompt')} {are} both steered and used for selection "
            f"({first}{example!r}): select features on different prompts"
        )


def equal_shares(sizes: Sequence[int], n: int) -> list[int]:
    """Divide n over strata as evenly as their sizes allow; the first ones get the remainder."""
    shares = [0] * len(sizes)
    while n > 0 and (room := [i for i, size in enumerate(sizes) if shares[i] < size]):
        each = n // len(room)
        for i in room if each else room[:n]:
            given = min(each or 1, sizes[i] - shares[i])
            shares[i] += given
            n -= given
    return shares


def beginning(text: str, max_chars: int | None) -> str:
    """The first `max_chars` characters, cut back to a word boundary and trailing-stripped.

    A first word that is longer than that is cut anyway.
    """
    if max_chars is None or len(text) <= max_chars:
        return text
    head, after = text[:max_chars], text[max_chars]
    words = head.rsplit(maxsplit=1)
    if head[-1].isspace() or after.isspace() or len(words) < 2:
        return head.rstrip()
    return head[: -len(words[1])].rstrip()


def _unique(rows: Iterable[SourceRow]) -> Iterator[Prompt]:
    seen: dict[str, str] = {}
    for where, number, row in rows:
        prompt = _prompt(row, where, number)
        if prompt.id in seen:
            raise InputError(f"{where}: the id {prompt.id!r} is already used by {seen[prompt.id]}")
        seen[prompt.id] = where
        yield prompt


def _prompt(row: dict[str, Any], where: str, number: int) -> Prompt:
    id_ = row.get("id")
    if isinstance(id_, bool) or not isinstance(id_, str | int | None):
        raise InputError(f"{where}: 'id' must be a string or a whole number")
    id_ = encodable(str(number if id_ is None or id_ == "" else id_), where)
    domain, answer = _optional(row, "domain", where) or "", _optional(row, "answer", where)
    given = _listed(row)
    if isinstance(row.get("messages"), list) and isinstance(row.get("text"), str):
        raise InputError(f"{where} has both 'messages' and 'text': leave one out")
    _say_misspelt(row)
    if given is None:
        return Prompt(id_, text_of(row, where, TEXT_COLUMNS), domain, answer)
    if given and all(isinstance(i, int) for i in given):
        return Prompt(id_, "", domain, answer, ids=given)
    messages, last = _asked(given, where)
    if last and answer:
        raise InputError(f"{where} has two answers, 'answer' and a last turn: leave one out")
    return Prompt(id_, "", domain, answer or last, messages=messages)


def _say_misspelt(row: Mapping[str, Any]) -> None:
    """Say once for each key that looks like one that is read and is not."""
    for key in row:
        near = difflib.get_close_matches(key, ROW_KEYS, n=1, cutoff=0.8)
        if near and key not in ROW_KEYS and near[0] not in row:
            text = f"warning: the key {key!r} of prompts is not read: did you mean {near[0]!r}?"
            say_once(_say_misspelt, text)


def _listed(row: Mapping[str, Any]) -> list[Any] | None:
    """The row's messages or token ids; None if it has text."""
    return next((row[c] for c in ("messages", "prompt") if isinstance(row.get(c), list)), None)


def _asked(messages: Sequence[Any], where: str) -> tuple[tuple[dict[str, str], ...], str | None]:
    """A row's conversation up to its last turn if that is the assistant's, and that turn."""
    found = conversation(messages, where)
    answered = found[-1]["role"] == "assistant"
    return (found[:-1], found[-1]["content"]) if answered else (found, None)


def _optional(row: dict[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {key!r} must be a string, not {type(value).__name__}")
    return None if value is None else encodable(value, where)


@dataclass(frozen=True)
class _Usable:
    """A row that can be drawn."""

    number: int
    prompt: Prompt
    length: int
    """Characters in the text before it is cut; in a conversation's last user turn."""
    value: str
    """The row's value in the column `by`."""

    @property
    def text(self) -> str:
        return self.prompt.text


T = TypeVar("T", Prompt, _Usable)


def _drawn(strata: Mapping[str, Sequence[T]], n: int, seed: int) -> Iterator[tuple[str, T]]:
    """Draw n items, equally many from each stratum; yields (name of stratum, item)."""
    shares = equal_shares([len(items) for items in strata.values()], n)
    for (name, items), share in zip(strata.items(), shares, strict=True):
        for item in sorted(items, key=lambda item: digest(seed, item.text))[:share]:
            yield name, item


def _usable(source: str, spec: SampleSpec) -> Iterator[_Usable]:
    """Rows with enough text and a stratum; duplicates are skipped."""
    seen = set[object]()
    for row in source_rows(source):
        where, number, columns = row
        value, given = _value(row, spec.by), _listed(columns)
        if given is None:
            whole = text_if_any(columns, where, TEXT_COLUMNS).strip()
            prompt = Prompt(text=beginning(whole, spec.max_chars))
        elif not given:
            continue
        else:
            prompt = _uncut(replace(_prompt(columns, where, number), answer=None), spec, where)
            whole = prompt.text
        if len(whole) >= spec.min_chars and value is not None and prompt.content not in seen:
            seen.add(prompt.content)
            yield _Usable(number, prompt, len(whole), value)


def _uncut(prompt: Prompt, spec: SampleSpec, where: str) -> Prompt:
    """The conversation. InputError if it would have to be cut, and for token ids."""
    if prompt.ids is not None:
        raise InputError(f"{where} has token ids, which have no length in characters to sample by")
    if spec.max_chars is not None and len(prompt.text) > spec.max_chars:
        raise InputError(
            f"{where} is a conversation with {len(prompt.text)} characters, which max_chars "
            "(prompts.sample) cannot cut: leave max_chars out"
        )
    return prompt


def _value(row: SourceRow, column: str | None) -> str | None:
    """The row's value in `column` as text; None if it has none."""
    where, _, columns = row
    if column is None:
        return ""
    if column not in columns:
        raise InputError(
            f"{where} has no {column!r} (prompts.sample.by), only {', '.join(map(str, columns))}"
        )
    value = columns[column]
    if not isinstance(value, str | int | float | None):
        raise InputError(
            f"{where}: {column!r} must be a string or a number, not {type(value).__name__}"
        )
    return None if value is None or value == "" else str(value)


def _by_value(pool: Sequence[_Usable], source: str, spec: SampleSpec) -> dict[str, list[_Usable]]:
    strata: dict[str, list[_Usable]] = {value: [] for value in sorted({r.value for r in pool})}
    for row in pool:
        strata[row.value].append(row)
    if len(strata) < 2:
        raise InputError(
            f"the first {len(pool)} usable rows of {source} all have the same {spec.by}, "
            f"{pool[0].value!r}: raise prompts.sample.pool, or leave prompts.sample.by out"
        )
    return strata


def _by_length(pool: Sequence[_Usable], n: int) -> dict[str, list[_Usable]]:
    ranked = sorted(pool, key=lambda row: (row.length, row.number))
    n = min(n, len(ranked))
    cuts = [len(ranked) * i // n for i in range(n + 1)]
    return {f"length_{i + 1}of{n}": ranked[cuts[i] : cuts[i + 1]] for i in range(n)}
