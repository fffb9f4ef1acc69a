"""Specs of feature pages and labels."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from saelens_steer.config.base import Spec
from saelens_steer.config.inputs import PromptSpec


class FeaturesSpec(Spec):
    """What is shown of each candidate: the contexts it fires in, what it writes, its neighbours."""

    also: tuple[int, ...] = ()
    """Further features to show beside the candidates."""
    contexts: int = Field(default=8, gt=0)
    """The contexts with the largest activations, one for each prompt."""
    window: int = Field(default=12, gt=0)
    """Tokens shown on either side of the one with the largest activation."""
    tokens: int = Field(default=10, gt=0)
    """Tokens shown of those that the decoder row raises, and of those it lowers."""
    neighbours: int = Field(default=6, ge=0)
    """Features shown with the largest decoder cosine."""
    topic: str | None = "tiny-transport-topic"
    """Prompts whose domains are the categories of one topic, for the strength of each feature by
    category; null (the default for another model than the tiny one): none."""


WIDE = (-8.0, -6.0, -4.0, -3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""The fourteen strengths of `alphas: wide`."""
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


class ServerSpec(Spec):
    """An OpenAI-compatible server: vLLM, OpenRouter, `transformers serve`."""

    base_url: str
    """Up to and with /v1, such as http://localhost:8000/v1."""
    model: str = Field(min_length=1)
    """As the server calls it."""
    key_env: str | None = None
    """The environment variable that holds the key; null: the server needs none. The key itself
    stands in no config."""
    concurrency: int = Field(default=8, gt=0)
    """Features that are asked about at once."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds until a request counts as lost."""
    retries: int = Field(default=4, ge=0)
    """Further tries of a request that met 408, 409, 429, 5xx, a time-out or a cut connection; the
    waits between them double, or are those the server asks for."""
    backoff: float = Field(default=1.0, ge=0)
    """Seconds of the first wait; none is longer than a minute."""
    max_answer_tokens: int = Field(default=1024, gt=0)
    """Of each answer, a model's reasoning included."""
    structured: Literal["auto", "off"] = "auto"
    """auto: ask for JSON of a given schema, and without it where the server refuses that."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of a request, such as {chat_template_kwargs: {enable_thinking: false}}; null
    leaves one out: {max_tokens: null, temperature: null, max_completion_tokens: 4000}."""
    max_requests: int | None = Field(default=None, gt=0)
    """Send no more requests than this in one go, further tries included."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Spend no more tokens than this in one go, of questions and answers. A request is sent where
    what it may cost is left: a token for each byte of the question, and the longest answer."""

    @field_validator("base_url")
    @classmethod
    def _an_address_without_secrets(cls, value: str) -> str:
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("should be an address such as http://localhost:8000/v1")
        if address.username or address.password or address.query or address.fragment:
            raise ValueError("holds more than an address: a key belongs in the variable of key_env")
        return value

    @field_validator("key_env")
    @classmethod
    def _a_name_and_not_a_key(cls, value: str | None) -> str | None:
        if value is not None and not VARIABLE.fullmatch(value):
            raise ValueError("should be the name of an environment variable, such as MY_API_KEY")
        return value


class LabelSpec(Spec):
    """Names for the features on the feature pages, from what fires them and what they write."""

    provider: Literal["offline", "openai-compatible"] = "offline"
    """offline: words of the contexts and of the raised tokens, no model asked."""
    server: ServerSpec | None = None
    """For openai-compatible."""
    evidence: Literal["both", "input", "output"] = "both"
    """input: the contexts that fire a feature most. output: steered texts, and the tokens that its
    decoder row raises and lowers."""
    alphas: Literal["wide"] | tuple[float, ...] = (-2.0, -1.0, 1.0, 2.0)
    """Strengths of the steered texts, as multiples of A_max. wide: fourteen from -8 to 8."""
    prompts: PromptSpec | None = None
    """Prompts that are steered for the labels, such as a `sample` of a source; null: `n_prompts` of
    the run's own, as many from each domain."""
    n_prompts: int = Field(default=12, gt=0)
    max_new_tokens: int = Field(default=48, gt=0)
    examples: int = Field(default=2, ge=0)
    """Prompts whose texts are shown to whoever names; the others are for the causal score."""
    example_chars: int = Field(default=200, gt=0)
    """Characters shown of a text."""
    contexts: int = Field(default=5, gt=0)
    """Contexts shown to whoever names, the largest first."""
    detection: int = Field(default=20, ge=0)
    """The detection score takes so many other contexts that fire, and as many that do not."""
    neuronpedia: str | None = "https://www.neuronpedia.org"
    """Where to ask for the labels of published SAEs that it covers; null: do not ask."""
    seed: int = 0

    @property
    def strengths(self) -> tuple[float, ...]:
        """The multiples of A_max, without 0."""
        return WIDE if self.alphas == "wide" else self.alphas

    @field_validator("alphas", mode="wrap")
    @classmethod
    def _strengths_or_wide(cls, value: Any, check: Any) -> Any:
        if isinstance(value, str) and value != "wide":
            raise ValueError("should be a list of strengths, or wide")
        alphas = check(value)
        if alphas == "wide":
            return alphas
        kept = tuple(sorted({alpha for alpha in alphas if alpha}))
        if not kept or kept[-1] < 0:
            raise ValueError("needs a strength above 0: that is what the causal score is about")
        return kept

    @model_validator(mode="after")
    def _a_server_to_ask(self) -> LabelSpec:
        if self.provider == "openai-compatible" and self.server is None:
            raise ValueError("provider: openai-compatible needs server: {base_url: …, model: …}")
        if self.provider == "offline" and self.server is not None:
            raise ValueError("provider: offline asks no server: leave server out, or change it")
        return self
