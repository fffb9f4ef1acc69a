"""Ask a server: kept answers first, then requests within the budget."""

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
from saelens_steer.labels.labeller import LabelError
from saelens_steer.labels.server import (
    Answer,
    Question,
    SchemaRefused,
    Server,
    ServerRefusal,
    TransientFailure,
)
from saelens_steer.progress import say

LONGEST_WAIT = 60.0
"""Seconds; a server that asks for a longer wait is asked again after these."""
AnswerReader = TypeVar("AnswerReader")


@dataclass
class Client:
    """Asks one server; safe to use from several threads."""

    spec: ServerSpec
    answers: Answers
    plain: bool = False
    """Whether the server has refused questions with a schema."""
    closed: ServerRefusal | None = None
    """Why no further question is sent."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _locks: dict[str, threading.Lock] = field(default_factory=dict, repr=False)
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        self.server = Server(self.spec)
        self.budget = Budget(self.spec.max_requests, self.spec.max_tokens)

    def ask(self, question: Question, read: Callable[[Answer], AnswerReader]) -> AnswerReader:
        """The answer as `read` parses it. Raises LabelError, as `read` may.

        An answer that could be read is kept and never asked for again.
        """
        asked = self._identity(question)
        with self._lock:
            of_question = self._locks.setdefault(digest(asked), threading.Lock())
        with of_question:  # two features may have one question
            if (kept := self.answers.find(asked)) is not None:
                with suppress(LabelError, TypeError):  # what cannot be read today is asked again
                    return read(Answer(**kept))
            answer = self._answer(question)
            try:
                found = read(answer)
            except LabelError:
                self.answers.keep(asked, vars(answer), read=False)
                raise
            self.answers.keep(asked, vars(answer), read=True)
            return found

    def stop(self) -> None:
        """Send nothing more."""
        self.closed = ServerRefusal("unanswered", "stopped")
        self._stopped.set()

    def sleep(self, seconds: float) -> None:
        """Wait, unless stopped."""
        self._stopped.wait(seconds)

    def _identity(self, question: Question) -> dict[str, Any]:
        """Everything that decides the answer."""
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
        except SchemaRefused:
            answer = self._persist(question, with_schema=False)
        with self._lock:
            if not self.plain:
                say(f"{self.spec.base_url} takes no JSON schema: answers are asked for without")
            self.plain = True
        return answer

    def _persist(self, question: Question, with_schema: bool) -> Answer:
        """Try up to 1 + retries times.

        Waits as long as the server asks, or twice as long each time; a little less at random, so
        that the threads do not all come back at once.
        """
        tried = 0
        while True:
            try:
                return self._request(question, with_schema)
            except TransientFailure as failure:
                if tried >= self.spec.retries:
                    tries = f" ({tried + 1} tries)" if tried else ""
                    raise LabelError("unanswered", f"{failure}{tries}") from None
                wait = failure.wait
            if wait is None:
                wait = self.spec.backoff * 2**tried * random.uniform(0.5, 1)
            self.sleep(min(LONGEST_WAIT, max(0.0, wait)))
            tried += 1

    def _request(self, question: Question, with_schema: bool) -> Answer:
        """One request, within the budget; it costs the most it may if the server does not count."""
        if self.closed:
            raise self.closed
        letters = sum(len(message["content"].encode()) for message in question.messages)
        reserved = letters + self.spec.max_answer_tokens  # a token has one byte at least
        self.budget.reserve(reserved)
        spent = reserved
        try:
            answer, counted = self.server.request(question, with_schema)
            spent = reserved if counted is None else counted
        except TransientFailure as failure:
            spent = 0 if failure.free else reserved
            raise
        except (SchemaRefused, LabelError) as refusal:
            spent = 0
            if isinstance(refusal, ServerRefusal):
                self.closed = refusal
            raise
        finally:
            self.budget.settle(reserved, spent)
        if answer.text.strip():
            return answer
        if answer.cut:
            raise LabelError(
                "unreadable", "max_answer_tokens were spent before there was an answer"
            )
        raise TransientFailure("the answer was empty")


@dataclass
class Budget:
    """Requests and tokens spent; safe to use from several threads."""

    max_requests: int | None = None
    max_tokens: int | None = None
    requests: int = 0
    tokens: int = 0
    waiting: int = 0
    """Tokens reserved for requests under way."""
    _change: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def reserve(self, tokens: int) -> None:
        """Count one request and reserve its tokens. Raises LabelError if the budget is spent.

        Waits while requests under way may still cost less than is reserved for them.
        """
        with self._change:
            while self._over(self.tokens + self.waiting + tokens) and self.waiting:
                self._change.wait()
            if self.max_requests is not None and self.requests >= self.max_requests:
                raise LabelError("over_budget", f"all {self.max_requests:,} requests are spent")
            if self._over(self.tokens + tokens):
                left = max(0, (self.max_tokens or 0) - self.tokens)
                raise LabelError(
                    "over_budget",
                    f"a question may take {tokens:,} tokens, and {left:,} of {self.max_tokens:,} "
                    "are left",
                )
            self.requests += 1
            self.waiting += tokens

    def settle(self, reserved: int, spent: int) -> None:
        """Replace the reserved tokens by those that were spent."""
        with self._change:
            self.waiting -= reserved
            self.tokens += spent
            self._change.notify_all()

    def _over(self, tokens: int) -> bool:
        return self.max_tokens is not None and tokens > self.max_tokens
