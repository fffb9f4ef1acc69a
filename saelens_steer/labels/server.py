"""One request to an OpenAI-compatible server, and what can come of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from saelens_steer.config import ServerSpec
from saelens_steer.errors import InputError
from saelens_steer.labels.labeller import LabelError, writable

PASSING = (408, 409, 429)
"""Statuses that may pass, besides 5xx."""
FOR_ALL = (401, 403, 404)
"""Statuses about the key or the model: no other question would be answered either."""
ABOUT_SCHEMA = (400, 422)
"""Statuses of a server that rejects schemas, or this question."""
MOST_SAID = 300
"""Characters kept of what a server says when it refuses."""
NO_KEY = "none"
"""The client requires a key; this one is not sent."""
HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length"} | {
    "user-agent",
    "authorization",
    "x-stainless-raw-response",  # by which the client knows what it was asked for
}
"""The headers sent. The client would add those it finds in the environment."""
LEAST_SECRET = 8
"""A shorter key is a word such as `test`, which texts may hold."""
UNREACHED = ("ConnectError", "ConnectTimeout")
"""The transport's errors for a request that reached no server."""


@dataclass(frozen=True)
class Question:
    """Messages, and the JSON schema of the answer."""

    name: str
    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """A server's answer."""

    text: str
    cut: bool
    """Whether the limit of tokens ended it."""
    model: str
    """As the server says."""
    server: str = ""
    """Its address."""


class TransientFailure(Exception):
    """A request that may be answered the next time."""

    def __init__(self, why: str, wait: float | None = None, free: bool = False) -> None:
        """`wait`: seconds, if the server gave any. `free`: it cannot have cost any tokens."""
        super().__init__(why)
        self.wait, self.free = wait, free


class SchemaRefused(Exception):
    """The server refused a question that came with a schema."""


class ServerRefusal(LabelError):
    """A refusal for a reason that holds for every other question too."""


def key_of(spec: ServerSpec) -> str | None:
    """The key from the environment. Raises InputError if the variable is not set or holds none."""
    if spec.key_env is None:
        return None
    key = os.environ.get(spec.key_env, "").strip()
    if not key:
        raise InputError(f"label.server.key_env: the variable {spec.key_env} is not set")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(f"label.server.key_env: what {spec.key_env} holds is no key")
    return key


class Server:
    """Sends requests; nothing that it returns or raises holds the key."""

    def __init__(self, spec: ServerSpec) -> None:
        self._spec, self._key = spec, key_of(spec)
        transport = openai.DefaultHttpxClient(event_hooks={"request": [self._drop_other_headers]})
        self._client = openai.OpenAI(
            api_key=self._key or NO_KEY,
            base_url=spec.base_url,
            timeout=spec.timeout,
            http_client=transport,
            max_retries=0,  # Client counts and pays for every try
        )

    def request(self, question: Question, with_schema: bool) -> tuple[Answer, int | None]:
        """The answer, which may be empty, and the tokens it took if the server counts them.

        Raises TransientFailure, SchemaRefused, ServerRefusal, or LabelError if no retry would help.
        """
        try:
            body = self._body(question, with_schema)
        except openai.APIStatusError as error:
            raise self._refusal(error, with_schema) from None
        except (openai.OpenAIError, OSError) as error:
            why = f"the connection failed: {self._said(error)}"
            if isinstance(error, openai.APITimeoutError):
                why = f"no answer within {self._spec.timeout:g} s"
            unheard = type(error.__cause__).__name__ in UNREACHED
            raise TransientFailure(why, free=unheard) from None
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
            choice = data["choices"][0]
            text = self.clean(choice["message"].get("content") or "")
            cut, model = choice.get("finish_reason") == "length", data.get("model")
            answer = Answer(text, cut, self.clean(str(model or "")), self._spec.base_url)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            beginning = " ".join(self.clean(body)[:80].split())
            raise TransientFailure(
                f"there was no answer in what came back: {beginning!r}"
            ) from None
        usage = data.get("usage")
        spent = usage.get("total_tokens") if isinstance(usage, dict) else None
        return answer, spent if isinstance(spent, int) and spent >= 0 else None

    def _refusal(self, error: openai.APIStatusError, with_schema: bool) -> Exception:
        status = error.status_code
        why = f"status {status}: {self._said(error)}"
        if status in PASSING or status >= 500:
            return TransientFailure(why, _asked_wait(error), free=True)
        if with_schema and status in ABOUT_SCHEMA:
            return SchemaRefused()
        if status in FOR_ALL:
            return ServerRefusal("refused", f"{why} ({self._suspects(status)})")
        return LabelError("refused", why)

    def _suspects(self, status: int) -> str:
        """The settings that a refusal may be about."""
        where = f"model {self._spec.model} at {self._spec.base_url}"
        if status == 404 and not self._spec.base_url.rstrip("/").endswith("/v1"):
            return f"{where}; base_url mostly ends in /v1"
        key = f"the key of {self._spec.key_env}" if self._key else "no key: label.server.key_env"
        return where if status == 404 else f"{where}, with {key}"

    def _said(self, error: Exception) -> str:
        """An error's message on one line; its cause's, if it only says that there is one."""
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
        body = getattr(error, "body", None)
        said = [body.get(key) for key in ("message", "detail")] if isinstance(body, dict) else []
        texts = [text for text in said if isinstance(text, str)]
        text = self.clean(texts[0] if texts else str(cause or error))
        return " ".join(text.split())[:MOST_SAID] or type(cause or error).__name__

    def clean(self, text: str) -> str:
        """Text from the server as a file can hold it, without the key in it."""
        text = writable(text)
        if self._key is None or len(self._key) < LEAST_SECRET:
            return text
        for form in (self._key, self._key.replace("/", "\\/")):  # as some write it in JSON
            text = text.replace(form, "[key]")
        return text

    def _drop_other_headers(self, request: Any) -> None:
        """Drop what the client found in the environment: organisations, custom headers."""
        allowed = HEADERS if self._key else HEADERS - {"authorization"}
        for name in {name.lower() for name in request.headers} - allowed:
            del request.headers[name]


def _asked_wait(error: openai.APIStatusError) -> float | None:
    """Seconds that the server asks us to wait."""
    try:
        return float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
