"""A labeller that asks a server: cached answers first, then requests within a budget."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from saelens_steer.config import ServerSpec
from saelens_steer.files import digest
from saelens_steer.labels.answers import Answers
from saelens_steer.labels.labeller import BlindPair, LabelError, LabelEvidence, Labeller, Name
from saelens_steer.labels.questions import choosing, detecting, naming
from saelens_steer.labels.reading import read_letters, read_name, read_numbers
from saelens_steer.labels.server import (
    Answer,
    Question,
    SchemaRefused,
    Server,
    ServerRefusal,
    TransientFailure,
)
from saelens_steer.progress import say

LONGEST_BACKOFF = 60.0
"""The longest wait before a retry, in seconds, unless the server asks for more."""
LONGEST_WAIT = 3600.0
"""The longest wait that a server may ask for, in seconds; beyond it, a question is unanswered."""
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class ServerLabeller(Labeller):
    """Names features by asking the server. Its methods raise LabelError."""

    client: Client
    provider = "openai-compatible"

    @property
    def model(self) -> str:
        return self.client.spec.model

    @property
    def spent(self) -> str:
        """Requests and tokens; where the server reports no usage, the most they can have cost."""
        budget = self.client.budget
        return f"{budget.requests:,} requests, {budget.tokens:,} tokens"

    def name(self, evidence: LabelEvidence) -> Name:
        return self.client.ask(naming(evidence), self._read_name)

    def _read_name(self, answer: Answer) -> Name:
        """The name without the key, with a remark if another model answered."""
        name, clean = read_name(answer), self.client.server.clean
        name = replace(name, summary=clean(name.summary), analysis=clean(name.analysis))
        if not answer.model or answer.model.startswith(self.model):
            return name
        other = f"the server answered as {answer.model!r}"
        return replace(name, remark=f"{name.remark}; {other}" if name.remark else other)

    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        n = len(contexts)
        numbers = self.client.ask(detecting(name, contexts), lambda a: read_numbers(a, n))
        return {number - 1 for number in numbers}

    def steered(self, name: Name, pairs: Sequence[BlindPair]) -> list[bool]:
        n = len(pairs)
        letters = self.client.ask(choosing(name, pairs), lambda a: read_letters(a, n))
        return [letter == "A" for letter in letters]

    def stop(self) -> None:
        self.client.stop()


@dataclass
class Client:
    """Asks one server. Thread-safe."""

    spec: ServerSpec
    answers: Answers
    no_schema: bool = False
    """Whether the server has refused JSON schemas."""
    closed: ServerRefusal | None = None
    """Why no further request is sent."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _question_locks: dict[str, threading.Lock] = field(default_factory=dict, repr=False)
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        self.server = Server(self.spec)
        self.budget = Budget(self.spec.max_requests, self.spec.max_tokens)

    def ask(self, question: Question, read: Callable[[Answer], Parsed]) -> Parsed:
        """The answer, parsed by `read`. Every answer is kept, readable or not, and the question is
        not asked again, except with `ask_again` if its answer is not readable.

        Raises LabelError, as `read` may.
        """
        identity = self._identity(question)
        with self._lock:
            lock = self._question_locks.setdefault(digest(identity), threading.Lock())
        with lock:  # two features may share a question
            if (kept := self._kept(identity)) is not None:
                try:
                    return _checked(kept, read)
                except LabelError:
                    if not self.spec.ask_again:
                        raise
            answer, status = self._answer(question), "unread"
            try:
                found, status = _checked(answer, read), "read"
                return found
            except LabelError as failure:
                status = failure.status
                raise
            finally:
                self.answers.keep(identity, vars(answer), status)

    def _kept(self, identity: dict[str, Any]) -> Answer | None:
        """The kept answer; None without one, or if its file is damaged."""
        fields = self.answers.find(identity)
        try:
            answer = Answer(**fields) if fields else None
        except TypeError:
            return None
        return answer if answer and isinstance(answer.text, str) else None

    def stop(self) -> None:
        """Send no further requests, and end all waits."""
        self.closed = ServerRefusal("unanswered", "stopped")
        self._stopped.set()

    def sleep(self, seconds: float) -> None:
        """Wait for the time given, or until `stop` is called."""
        self._stopped.wait(seconds)

    def _identity(self, question: Question) -> dict[str, Any]:
        """Everything that determines the answer."""
        return {
            "model": self.spec.model,
            "max_tokens": self.spec.max_answer_tokens,
            "messages": [dict(message) for message in question.messages],
            "schema": dict(question.schema) if self.spec.structured == "auto" else None,
            "extra": self.spec.extra,
        }

    def _answer(self, question: Question) -> Answer:
        if self.spec.structured == "off" or self.no_schema:
            return self._retried(question, with_schema=False)
        try:
            return self._retried(question, with_schema=True)
        except SchemaRefused:
            answer = self._retried(question, with_schema=False)
        with self._lock:
            if not self.no_schema:
                say(f"{self.spec.base_url} rejects JSON schemas: asking without one from now on")
            self.no_schema = True
        return answer

    def _retried(self, question: Question, with_schema: bool) -> Answer:
        """Send a request, and retry it up to `retries` times.

        The waits in between double, after those that the server asks for, with jitter so that the
        threads do not all return at once.
        """
        tried = 0
        while True:
            try:
                return self._request(question, with_schema)
            except TransientFailure as failure:
                asked, tries = failure.wait or 0.0, f" ({tried + 1} tries)" if tried else ""
                if tried >= self.spec.retries:
                    raise LabelError("unanswered", f"{failure}{tries}") from None
                if asked > LONGEST_WAIT:
                    hours = f"the server asks for a wait of {asked / 3600:.1f} hours"
                    raise LabelError("unanswered", f"{failure}; {hours}{tries}") from None
            if asked > LONGEST_BACKOFF:
                say(f"{self.spec.base_url} asks for a wait of {asked:.0f} seconds")
            backoff = self.spec.backoff * 2**tried * random.uniform(0.5, 1)
            self.sleep(asked + min(LONGEST_BACKOFF, backoff))
            tried += 1

    def _request(self, question: Question, with_schema: bool) -> Answer:
        """One request within the budget. Without usage from the server, it costs its maximum."""
        if self.closed:
            raise self.closed
        n_bytes = sum(len(message["content"].encode()) for message in question.messages)
        reserved = n_bytes + self.spec.max_answer_tokens  # a token has at least one byte
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
        return answer


def _checked(answer: Answer, read: Callable[[Answer], Parsed]) -> Parsed:
    """The answer, parsed. Raises LabelError, as `read` may, if it is a refusal or empty."""
    if answer.refusal:
        raise LabelError("refused", f"the question was refused: {answer.refusal}")
    if answer.cut and (answer.thought or not answer.text.strip()):
        raise LabelError("unreadable", "the answer was still empty when max_answer_tokens ran out")
    if not answer.text.strip():
        raise LabelError("unreadable", "the answer was empty")
    return read(answer)


@dataclass
class Budget:
    """Requests and tokens spent. Thread-safe."""

    max_requests: int | None = None
    max_tokens: int | None = None
    requests: int = 0
    tokens: int = 0
    waiting: int = 0
    """Tokens reserved for pending requests."""
    _change: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def reserve(self, tokens: int) -> None:
        """Count a request and reserve its tokens. Raises LabelError if the budget is spent.

        Blocks while pending requests hold reservations, since they may cost less.
        """
        with self._change:
            while self._over(self.tokens + self.waiting + tokens) and self.waiting:
                self._change.wait()
            if self.max_requests is not None and self.requests >= self.max_requests:
                raise LabelError(
                    "over_budget", f"all {self.max_requests:,} requests (max_requests) are used up"
                )
            if self._over(self.tokens + tokens):
                left = max(0, (self.max_tokens or 0) - self.tokens)
                raise LabelError(
                    "over_budget",
                    f"a request may cost {tokens:,} tokens, but only {left:,} of max_tokens "
                    f"({self.max_tokens:,}) are left",
                )
            self.requests += 1
            self.waiting += tokens

    def settle(self, reserved: int, spent: int) -> None:
        """Replace a reservation by the tokens actually spent."""
        with self._change:
            self.waiting -= reserved
            self.tokens += spent
            self._change.notify_all()

    def _over(self, tokens: int) -> bool:
        return self.max_tokens is not None and tokens > self.max_tokens
