"""Ask a server: kept answers first, then requests within the budget."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from saelens_steer.config import ServerSpec
from saelens_steer.files import digest, write_json
from saelens_steer.labels.labeller import Failed
from saelens_steer.labels.server import Answer, Closed, Lost, NoSchema, Question, Server
from saelens_steer.progress import say


@dataclass(frozen=True)
class Answers:
    """A folder with a file for each question: the question, the answer, what it took."""

    folder: Path | None
    """None: nothing is kept."""

    def find(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """The kept answer; None where there is none, or none that could be used."""
        if self.folder is None:
            return None
        try:
            kept = json.loads((self.folder / _name(question)).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        usable = isinstance(kept, dict) and kept.get("question") == question
        return kept["answer"] if usable and kept.get("read") else None

    def keep(self, question: Mapping[str, Any], answer: Mapping[str, Any], read: bool) -> None:
        """Keep an answer. One that could not be read is kept to be looked at, and asked again."""
        if self.folder is not None:
            kept = {"question": question, "answer": answer, "read": read}
            write_json(self.folder / _name(question), kept)


def _name(question: Mapping[str, Any]) -> str:
    return f"{digest(question)}.json"


@dataclass
class Budget:
    """Requests and tokens that are spent; safe to use from several threads."""

    max_requests: int | None = None
    max_tokens: int | None = None
    requests: int = 0
    tokens: int = 0
    waiting: int = 0
    """Tokens that are set aside for requests under way."""
    _change: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def promise(self, tokens: int) -> None:
        """Set aside one request and so many tokens. Raises Failed where they are not left.

        Where they would be left if requests under way took less than is set aside for them, waits.
        """
        with self._change:
            while self._full(self.tokens + self.waiting + tokens) and self.waiting:
                self._change.wait()
            self._check(tokens)
            self.requests += 1
            self.waiting += tokens

    def settle(self, promised: int, spent: int) -> None:
        """Replace the tokens that were set aside by those that were spent."""
        with self._change:
            self.waiting -= promised
            self.tokens += spent
            self._change.notify_all()

    def _full(self, tokens: int) -> bool:
        return self.max_tokens is not None and tokens > self.max_tokens

    def _check(self, tokens: int) -> None:
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise Failed("over_budget", f"all {self.max_requests:,} requests are spent")
        if self._full(self.tokens + tokens):
            left = max(0, (self.max_tokens or 0) - self.tokens)
            raise Failed(
                "over_budget",
                f"a question may take {tokens:,} tokens, and {left:,} of {self.max_tokens:,} "
                "are left",
            )


LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more is asked again after these."""

Read = TypeVar("Read")


@dataclass
class Client:
    """Asks one server; safe to use from several threads."""

    spec: ServerSpec
    answers: Answers
    plain: bool = False
    """Whether the server has shown that it takes no schema."""
    closed: Closed | None = None
    """Why no further question is sent."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _locks: dict[str, threading.Lock] = field(default_factory=dict, repr=False)
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        self.server = Server(self.spec)
        self.budget = Budget(self.spec.max_requests, self.spec.max_tokens)

    def ask(self, question: Question, read: Callable[[Answer], Read]) -> Read:
        """The answer as `read` gives it. Raises Failed, as `read` may.

        An answer that could be read is kept and never asked for again.
        """
        asked = self._identity(question)
        with self._lock_of(digest(asked)):  # two features may have one question
            if (kept := self.answers.find(asked)) is not None:
                with suppress(Failed, TypeError):  # what cannot be read today is asked again
                    return read(Answer(**kept))
            return self._asked_now(question, asked, read)

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(name, threading.Lock())

    def _asked_now(
        self, question: Question, asked: dict[str, Any], read: Callable[[Answer], Read]
    ) -> Read:
        answer = self._answer(question)
        try:
            found = read(answer)
        except Failed:
            self.answers.keep(asked, vars(answer), read=False)
            raise
        self.answers.keep(asked, vars(answer), read=True)
        return found

    def stop(self) -> None:
        """Send nothing more."""
        self.closed = Closed("unanswered", "stopped")
        self._stopped.set()

    def sleep(self, seconds: float) -> None:
        """Wait, unless stopped."""
        self._stopped.wait(seconds)

    def _identity(self, question: Question) -> dict[str, Any]:
        """What decides the answer."""
        return {
            "model": self.spec.model,
            "max_tokens": self.spec.max_answer_tokens,
            "messages": [dict(message) for message in question.messages],
            "schema": dict(question.schema) if self.spec.structured == "auto" else None,
            "extra": self.spec.extra,
        }

    def _answer(self, question: Question) -> Answer:
        if self.spec.structured == "off" or self.plain:
            return self._persist(question, with_schema=False)
        try:
            return self._persist(question, with_schema=True)
        except NoSchema:
            answer = self._persist(question, with_schema=False)
        with self._lock:
            if not self.plain:
                say(f"{self.spec.base_url} takes no JSON schema: answers are asked for without")
            self.plain = True
        return answer

    def _persist(self, question: Question, with_schema: bool) -> Answer:
        """Try until there is an answer, or no hope."""
        for tried in range(self.spec.retries):
            try:
                return self._paid(question, with_schema)
            except Lost as lost:
                wait = self._wait(tried, lost.wait)
            self.sleep(wait)
        try:
            return self._paid(question, with_schema)
        except Lost as lost:
            n = self.spec.retries + 1
            raise Failed("unanswered", f"{lost}" + f" ({n} tries)" * (n > 1)) from None

    def _wait(self, tried: int, asked: float | None) -> float:
        """Seconds until the next try: as the server asks, or twice as long each time; some less,
        so that features do not all come back at once."""
        wait = asked if asked is not None else self.spec.backoff * 2**tried * random.uniform(0.5, 1)
        return min(LONGEST_WAIT, max(0.0, wait))

    def _paid(self, question: Question, with_schema: bool) -> Answer:
        """One request, counted; what it cost is taken to be the most where nobody says."""
        if self.closed:
            raise self.closed
        letters = sum(len(message["content"].encode()) for message in question.messages)
        promised = letters + self.spec.max_answer_tokens  # a token has one byte at least
        self.budget.promise(promised)
        spent = promised
        try:
            answer, counted = self.server.request(question, with_schema)
            spent = promised if counted is None else counted
        except Lost as lost:
            spent = 0 if lost.free else promised
            raise
        except (NoSchema, Failed) as refusal:
            spent = 0
            if isinstance(refusal, Closed):
                self.closed = refusal
            raise
        finally:
            self.budget.settle(promised, spent)
        if answer.text.strip():
            return answer
        if answer.cut:
            raise Failed("unreadable", "max_answer_tokens were spent before there was an answer")
        raise Lost("the answer was empty")
