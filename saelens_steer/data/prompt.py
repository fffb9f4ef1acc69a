"""One prompt: text, a conversation or token ids; and lists of prompts as code gives them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from saelens_steer.config import plain
from saelens_steer.data.sources import encodable
from saelens_steer.errors import InputError, one_string

Message: TypeAlias = Mapping[str, object]
"""A turn of a conversation: `role` and `content`; other keys are ignored."""
ROLES = ("system", "user", "assistant")
MOST_IDS = 2**31
"""More than any tokenizer has."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, given as text, messages or token ids (exactly one of them), and any known answer.

    In a list, prompts without an id are numbered from 1. Raises InputError for messages that no
    chat template could write, and for fields that should be text but are not.
    """

    id: str = ""
    text: str = ""
    """What tables and pages show: a conversation's last user turn, or the decoded token ids."""
    domain: str = ""
    answer: str | None = None
    messages: Sequence[Message] | None = field(default=None, hash=False)
    """A conversation. If its last turn is the assistant's, the model continues that turn."""
    ids: Sequence[int] | None = field(default=None, hash=False)
    """Token ids that the model reads as they are, without a BOS or a template."""

    def __post_init__(self) -> None:
        named = f"prompt {self.id!r}" if self.id else "a prompt"
        for name in ("id", "text", "domain", "answer"):
            value = getattr(self, name)
            if isinstance(value, str):
                encodable(value, f"{name} of {named}")
            elif name != "answer" or value is not None:
                raise InputError(f"{name} of {named} is {value!r}: give a string")
        if self.messages is not None and self.ids is not None:
            raise InputError(f"{named} has both messages and ids: give one of the two")
        if self.messages is not None:
            messages = conversation(self.messages, named)
            shown = next(m["content"] for m in reversed(messages) if m["role"] == "user")
            if self.text not in ("", shown):
                raise InputError(f"{named} has both text and messages: give one of the two")
            self._set(messages=messages, text=shown)
        elif self.ids is not None:
            self._set(ids=_token_ids(self.ids, named))

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def content(self) -> tuple[tuple[str, object], ...]:
        """All that the model is asked; plain text counts as a user turn."""
        if self.ids is not None:
            return (("ids", self.ids),)
        if self.messages is None:
            return (("user", self.text),)
        return tuple((str(m["role"]), m["content"]) for m in self.messages)

    @property
    def turns(self) -> tuple[str, ...]:
        """The texts of all turns; of plain text and token ids, their text."""
        return tuple(str(m["content"]) for m in self.messages or ({"content": self.text},))

    def to_row(self) -> dict[str, object]:
        """The prompt as `load_prompts` reads it; a conversation's answer is its last turn."""
        if self.messages is not None:
            answer = [{"role": "assistant", "content": self.answer}] if self.answer else []
            return {"id": self.id, "messages": [*self.messages, *answer], "domain": self.domain}
        asked = {"text": self.text} if self.ids is None else {"prompt": list(self.ids)}
        return {"id": self.id, **asked, "domain": self.domain, "answer": self.answer}

    def followed_by(self, words: str) -> Prompt:
        """The prompt with words added to its text, or to its last turn if that is the user's.

        InputError for token ids and for a conversation that ends otherwise.
        """
        if self.messages is None and self.ids is None:
            return replace(self, text=f"{self.text} {words}")
        if not self.messages or self.messages[-1]["role"] != "user":
            raise InputError(
                f"prompt {self.id!r} does not end in a user turn, so {words!r} cannot be "
                "added: give text or a conversation that does"
            )
        asked = {"role": "user", "content": f"{self.text} {words}"}
        return replace(self, text="", messages=(*self.messages[:-1], asked))


PromptLike: TypeAlias = str | Prompt | Sequence[Message] | Sequence[int]
"""Text, a Prompt, a conversation, or token ids."""


def listed_prompts(prompts: Iterable[PromptLike]) -> list[Prompt]:
    """The prompts, numbered from 1 where they have no id.

    InputError for a prompt outside a list, and for one that is none of the kinds or has no text.
    """
    words = isinstance(prompts, np.ndarray) and prompts.dtype.kind in "OU"
    alone = isinstance(prompts, str | Mapping | Prompt) or _is_array(prompts) or _is_table(prompts)
    if not words and (alone or not isinstance(prompts, Iterable)):
        raise _bare(prompts)
    listed = list(prompts)
    first: Any = listed[0] if listed else None
    if isinstance(first, Mapping) and not {"role", "content"} & first.keys():
        key = next((key for key in ("messages", "text", "prompt") if key in first), "text")
        raise InputError(
            f"prompts are rows of a table: write prompts=[row[{key!r}] for row in rows], or give "
            "their file to ss.load_prompts"
        )
    if listed and all(isinstance(one, Mapping) for one in listed):
        raise InputError(
            "prompts is a single conversation: write prompts=[messages], a list of conversations"
        )
    if listed and all(_is_id(one) for one in listed):
        raise InputError(
            "prompts is a single list of token ids: write prompts=[ids], a list of such lists"
        )
    return [_prompt(one, number) for number, one in enumerate(listed)]


def conversation(messages: Sequence[Message], named: str) -> tuple[dict[str, str], ...]:
    """Role and content of each message, with text parts joined. InputError for a bad one."""
    if not messages:
        raise InputError(f"{named} has no messages: leave it out")
    found = tuple(_message(m, f"messages[{i}] of {named}") for i, m in enumerate(messages))
    if not any(m["role"] == "user" for m in found):
        raise InputError(f"{named} has no user turn: add {{'role': 'user', 'content': …}}")
    return found


def _message(message: Message, where: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise InputError(f"{where} is a {type(message).__name__}, not {{'role': …, 'content': …}}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise InputError(f"{where} has the role {role!r}: it should be system, user or assistant")
    if message.get("tool_calls"):
        raise InputError(f"{where} calls tools, which is not supported: leave the conversation out")
    text = content if isinstance(content, str) else _joined(content, where)
    if role != "system" and not text.strip():
        raise InputError(f"{where} is empty: leave it out")
    return {"role": str(role), "content": encodable(text, where)}


def _joined(content: object, where: str) -> str:
    """The text of content given as parts."""
    if content is None:
        raise InputError(
            f"{where} has no content: give {{'role': …, 'content': …}}, or leave it out"
        )
    if not isinstance(content, Sequence):
        raise InputError(f"{where} has content of type {type(content).__name__}: give a string")
    texts = list[str]()
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if not isinstance(part, Mapping) or kind != "text" or not isinstance(part.get("text"), str):
            raise InputError(f"{where} has a part of type {kind!r}: only text is read here")
        texts.append(str(part["text"]))
    return "".join(texts)


def _is_array(value: object) -> bool:
    torch = sys.modules.get("torch")  # not imported for this: it takes seconds
    return isinstance(value, np.ndarray) or (torch is not None and torch.is_tensor(value))


def _is_table(value: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _is_id(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _token_ids(ids: Any, named: str) -> tuple[int, ...]:
    listed: Any = plain(ids)
    if not isinstance(listed, Sequence) or not len(listed):
        raise InputError(f"{named} has no token ids: give a list of them")
    wrong = next((i for i in listed if not _is_id(i) or not 0 <= i < MOST_IDS), None)
    if wrong is not None:
        raise InputError(f"{named} has the token id {wrong!r}: ids are whole numbers from 0")
    return tuple(map(int, listed))


def _bare(prompts: object) -> InputError:
    if _is_array(prompts):
        return InputError(
            "prompts is a tensor: write prompts=[row.tolist() for row in tensor], without padding"
        )
    if _is_table(prompts):
        return InputError(
            "prompts is a table: write prompts=list(table['prompt']) to pass its texts"
        )
    if isinstance(prompts, str) and prompts.endswith((".jsonl", ".txt")):
        return InputError(f"prompts is the name of a file: write ss.load_prompts({prompts!r})")
    if isinstance(prompts, str):
        return one_string("prompts", prompts)
    if isinstance(prompts, Mapping):
        return InputError("prompts is a single message: write prompts=[[message]]")
    return InputError(f"prompts is a single {type(prompts).__name__}: write prompts=[prompt]")


def _prompt(given: Any, number: int) -> Prompt:
    """The prompt at this place, from 0."""
    where, id_ = f"prompts[{number}]", str(number + 1)
    given = plain(given)
    if isinstance(given, str):
        given = Prompt(id_, encodable(given, where))
    elif isinstance(given, list | tuple):
        if given and all(isinstance(m, Mapping) for m in given):
            given = replace(Prompt(messages=conversation(given, where)), id=id_)
        elif given and all(map(_is_id, given)):
            given = Prompt(id_, ids=_token_ids(given, where))
        else:
            kinds = " and ".join(sorted({type(one).__name__ for one in given}))
            what = f"a list of {kinds}" if kinds else "an empty list"
            raise InputError(
                f"{where} is {what}: a list holds the messages of a conversation, or token ids"
            )
    if isinstance(given, Mapping):
        raise InputError(f"{where} is a single message: write [message], a conversation")
    if not isinstance(given, Prompt):
        raise InputError(
            f"{where} is a {type(given).__name__}: it should be text, a Prompt, a list of messages "
            "or a list of token ids"
        )
    if given.ids is None and not given.text.strip():
        raise InputError(f"{where} has no text: leave it out")
    return given if given.id else replace(given, id=id_)
