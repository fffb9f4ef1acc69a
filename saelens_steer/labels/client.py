"""Questions to a server: tried again, paid for, kept."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from saelens_steer.config import ServerSpec
from saelens_steer.files import digest
from saelens_steer.labels.answers import Answers
from saelens_steer.labels.budget import Budget
from saelens_steer.labels.labeller import Failed
from saelens_steer.labels.server import Answer, Closed, Lost, NoSchema, Question, Server
from saelens_steer.progress import say

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
