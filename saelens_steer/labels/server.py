"""One request to an OpenAI-compatible server: its answer, or the reason it failed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from saelens_steer.config import ServerSpec, key_of
from saelens_steer.labels.labeller import LabelError, writable
from saelens_steer.labels.transfer import joined, within

TRANSIENT = (408, 409, 429)
"""Statuses that are worth a retry, besides 5xx."""
MOVED = (301, 302, 303, 307, 308)
"""Redirects. They are not followed: another host must not see the key or the texts."""
FATAL = (401, 404)
"""Statuses about the key or the model, so no other question would be answered either.
A 403 may also be about the content of one question, so it ends that question alone."""
SUSPECT = (401, 403, 404)
"""Statuses that the key or the model may have caused."""
ABOUT_SCHEMA = (400, 422)
"""Statuses by which a server may reject the schema."""
LONGEST_MESSAGE = 300
"""Characters kept of a server's error message."""
NO_KEY = "none"
"""A placeholder, since the client requires a key. It is never sent."""
HEADERS = {
    "host", "accept", "accept-encoding", "connection", "content-type", "content-length",
    "user-agent", "authorization", "x-stainless-raw-response",
}  # fmt: skip
"""The headers that are sent; the client itself reads the last. It would add others that it finds
in the environment."""
LEAST_SECRET = 8
"""Shorter keys are not masked: they may be words such as `test`, which texts contain."""
REASONING = ("reasoning_content", "reasoning")
"""Where servers put a model's reasoning. If they take an answer for reasoning, it is there too."""
UNREACHED = ("ConnectError", "ConnectTimeout")
"""Errors of the transport if no server was reached."""


@dataclass(frozen=True)
class Question:
    """The messages of a request, and the JSON schema of its answer."""

    name: str
    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """A server's answer, possibly empty."""

    text: str
    cut: bool
    """Whether it ran into the token limit."""
    model: str
    """The model's name, as the server reports it."""
    server: str = ""
    """The server's base_url."""
    thought: bool = False
    """Whether the text is the model's reasoning, since the server sent no other text."""
    refusal: str = ""
    """Why the server or the model refused to answer; empty if it did not."""


class TransientFailure(Exception):
    """A failure that a retry may fix."""

    def __init__(self, why: str, wait: float | None = None, free: bool = False) -> None:
        """`wait`: seconds requested by the server. `free`: the request cannot have cost tokens."""
        super().__init__(why)
        self.wait, self.free = wait, free


class SchemaRefused(Exception):
    """The server refused a request with a JSON schema."""


class ServerRefusal(LabelError):
    """A refusal that holds for every other question too."""


class Server:
    """Sends requests. Nothing that it returns or raises contains the key."""

    def __init__(self, spec: ServerSpec) -> None:
        self._spec, self._key = spec, key_of(spec)
        transport = BoundedClient(
            event_hooks={"request": [self._drop_other_headers]}, follow_redirects=False
        )
        self._client = openai.OpenAI(
            api_key=self._key or NO_KEY,
            base_url=spec.base_url,
            timeout=spec.timeout,
            http_client=transport,
            max_retries=0,  # Client retries, and counts every try against the budget
        )

    def request(self, question: Question, with_schema: bool) -> tuple[Answer, int | None]:
        """The answer, and the tokens it cost if the server reports usage.

        Raises TransientFailure, SchemaRefused, ServerRefusal, or LabelError if no retry can help.
        """
        try:
            body = within(self._spec.timeout, lambda: self._body(question, with_schema))
        except openai.APIStatusError as error:
            raise self._refusal(error, with_schema) from None
        except (openai.OpenAIError, OSError) as error:
            why = f"the connection failed: {self._message(error)}"
            if isinstance(error, openai.APITimeoutError | TimeoutError):
                why = f"no answer within {self._spec.timeout:g} s"
            unreached = type(error.__cause__).__name__ in UNREACHED
            raise TransientFailure(why, free=unreached) from None
        return self._parsed(body)

    def _body(self, question: Question, with_schema: bool) -> str:
        fields: dict[str, Any] = {"max_tokens": self._spec.max_answer_tokens, "temperature": 0}
        if with_schema:
            schema = {"name": question.name, "schema": dict(question.schema), "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        fields |= self._spec.extra
        kept = {name: value for name, value in fields.items() if value is not None}
        messages: Any = [dict(message) for message in question.messages]
        raw = self._client.chat.completions.with_raw_response.create(
            model=self._spec.model, messages=messages, extra_body=kept
        )
        return raw.http_response.text

    def _parsed(self, body: str) -> tuple[Answer, int | None]:
        try:
            data = json.loads(body)
            answer = self._answer(data["choices"][0], self.clean(str(data.get("model") or "")))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            beginning = " ".join(self.clean(body)[:80].split())
            raise TransientFailure(
                f"the response contained no answer; it began {beginning!r}"
            ) from None
        usage = data.get("usage")
        spent = usage.get("total_tokens") if isinstance(usage, dict) else None
        return answer, spent if isinstance(spent, int) and spent >= 0 else None

    def _answer(self, choice: Any, model: str) -> Answer:
        """The answer in one of the choices of a response."""
        message, finish = choice["message"], choice.get("finish_reason")
        content = message.get("content")
        refusal = _joined(message.get("refusal"), "text") or _joined(content, "refusal")
        if finish == "content_filter":
            refusal = refusal or "the server filtered the answer's content"
        text = _joined(content, "text")
        reasoning = (_joined(message.get(key), "text") for key in REASONING)
        thought = "" if text.strip() else next(filter(str.strip, reasoning), "")
        return Answer(
            self.clean(thought or text),
            finish == "length",
            model,
            self._spec.base_url,
            bool(thought),
            self.clean(refusal),
        )

    def _refusal(self, error: openai.APIStatusError, with_schema: bool) -> Exception:
        status = error.status_code
        if status in MOVED:
            to = self.clean(error.response.headers.get("location", "another address"))
            why = f"{self._spec.base_url} redirects to {to[:LONGEST_MESSAGE]}, which is not "
            return ServerRefusal("refused", why + "followed: set label.server.base_url")
        why = f"status {status}: {self._message(error)}"
        if status in TRANSIENT or status >= 500:
            return TransientFailure(why, _retry_after(error), free=True)
        if with_schema and status in ABOUT_SCHEMA:
            return SchemaRefused()
        kind = ServerRefusal if status in FATAL else LabelError
        return kind("refused", f"{why} ({self._suspects(status)})" if status in SUSPECT else why)

    def _suspects(self, status: int) -> str:
        """The settings that may have caused a refusal."""
        where = f"model {self._spec.model} at {self._spec.base_url}"
        if status == 404 and not self._spec.base_url.rstrip("/").endswith("/v1"):
            return f"{where}; base_url usually ends in /v1"
        if status == 404:
            return where
        if self._key:
            return f"{where}, with the key of {self._spec.key_env}"
        return f"{where}, with no key: set label.server.key_env"

    def _message(self, error: Exception) -> str:
        """An error's message on one line; for a connection error, that of its cause."""
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
        body = getattr(error, "body", None)
        parts = [body.get(key) for key in ("message", "detail")] if isinstance(body, dict) else []
        texts = [text for text in parts if isinstance(text, str)]
        text = self.clean(texts[0] if texts else str(cause or error))
        return " ".join(text.split())[:LONGEST_MESSAGE] or type(cause or error).__name__

    def clean(self, text: str) -> str:
        """Text from the server that a file can hold, with the key masked."""
        text = writable(text)
        if self._key is None or len(self._key) < LEAST_SECRET:
            return text
        escaped = self._key.replace("/", "\\/")  # some servers escape the slash in JSON
        return text.replace(self._key, "[key]").replace(escaped, "[key]")

    def _drop_other_headers(self, request: Any) -> None:
        """Drop headers that the client took from the environment, such as organisations."""
        allowed = HEADERS if self._key else HEADERS - {"authorization"}
        for name in {name.lower() for name in request.headers} - allowed:
            del request.headers[name]


class BoundedClient(openai.DefaultHttpxClient):
    """Reads an answer only up to a length, and none that is compressed."""

    def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:  # noqa: ARG002
        request.headers["accept-encoding"] = "identity"
        response = super().send(request, stream=True, **options)
        try:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise OSError("the answer is compressed, contrary to the request")
            content = joined(response.iter_raw())
        finally:
            response.close()
        about = {"headers": response.headers, "request": request, "content": content}
        return type(response)(response.status_code, **about)


def _joined(content: Any, kind: str) -> str:
    """The texts of one kind in a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return content if kind == "text" else ""
    parts = content if isinstance(content, list) else [content]
    texts = [
        part if isinstance(part, str) else part.get(kind)
        for part in parts
        if (isinstance(part, str) and kind == "text")
        or (isinstance(part, dict) and str(part.get("type", kind)).endswith(kind))
    ]
    return "".join(text for text in texts if isinstance(text, str))


def _retry_after(error: openai.APIStatusError) -> float | None:
    """The seconds that the server asks to wait, or None if it names no time to come.

    `retry-after-ms` holds milliseconds, `Retry-After` seconds or a date (RFC 9110, 10.2.3), which
    is measured by the server's clock if the response has a Date.
    """
    headers = error.response.headers
    with suppress(ValueError, TypeError, OverflowError):
        if "retry-after-ms" in headers:
            return _to_come(float(headers["retry-after-ms"]) / 1000)
    after = headers.get("retry-after", "")
    with suppress(ValueError):
        return _to_come(float(after))
    with suppress(ValueError, TypeError, OverflowError):
        return _to_come((_date(after) - _now(headers.get("date", ""))).total_seconds())
    return None


def _to_come(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _date(text: str) -> datetime:
    """A date of HTTP, in any of its three formats; all are in UTC. Raises ValueError."""
    found = parsedate_to_datetime(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _now(date: str) -> datetime:
    """The server's time, or that of this machine."""
    with suppress(ValueError, TypeError):
        return _date(date)
    return datetime.now(UTC)
