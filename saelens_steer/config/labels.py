"""Specs of the feature pages and the labels."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from saelens_steer.config.base import Anything, Seed, Spec
from saelens_steer.config.inputs import PromptSpec
from saelens_steer.config.sizes import Count, CountOrZero, check_texts


class FeaturesSpec(Spec):
    """Feature pages: the contexts that activate each feature, what it writes, its neighbours."""

    also: tuple[int, ...] = ()
    """Features to show besides the candidates, by index."""
    contexts: Count = 8
    """Contexts per feature: those with the largest activations, one per prompt."""
    window: Count = 12
    """Tokens shown on either side of the peak."""
    tokens: Count = 10
    """Number of tokens shown that the decoder row promotes, and of those that it suppresses."""
    neighbours: CountOrZero = 6
    """Neighbours shown: the features with the largest decoder cosines."""
    topic: str | None = "tiny-transport-topic"
    """Prompts of one topic, with its categories as domains; pages then show each feature's strength
    by category. null, the default for any model but the tiny one: omit them."""


WIDE = (-8.0, -6.0, -4.0, -3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""The fourteen strengths of `alphas: wide`."""
QUESTIONS = 3
"""Questions to a labelling server per feature, at most."""
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


class ServerSpec(Spec):
    """An OpenAI-compatible server: vLLM, OpenRouter, `transformers serve`."""

    base_url: str
    """The address up to and including /v1, such as http://localhost:8000/v1."""
    model: str = Field(min_length=1)
    """The model's name on the server."""
    key_env: str | None = None
    """The environment variable that holds the API key; null: the server needs no key. Never put the
    key itself into a config."""
    concurrency: Count = 8
    """Features that are labelled in parallel."""
    timeout: float = Field(default=120.0, gt=0, le=86_400)
    """Seconds before a request times out."""
    retries: int = Field(default=4, ge=0, le=1000)
    """Retries of a request after a 408, 409, 429 or 5xx, a timeout or a broken connection."""
    backoff: float = Field(default=1.0, ge=0, le=3600)
    """Seconds of the first wait. Waits double up to a minute, and begin once the time that the
    server asks for (Retry-After, up to an hour) has passed."""
    ask_again: bool = False
    """Repeat questions whose stored answers are unreadable or refusals. Otherwise no question that
    was answered is asked, and paid for, again."""
    max_answer_tokens: Count = 1024
    """Token limit of each answer, including the model's reasoning."""
    structured: Literal["auto", "off"] = "auto"
    """auto: request JSON that follows a schema, unless the server rejects it. off: no schema."""
    extra: dict[str, Anything] = Field(default_factory=dict)
    """Additional request fields, such as {chat_template_kwargs: {enable_thinking: false}}. null
    omits a field: {max_tokens: null, temperature: null, max_completion_tokens: 4000}."""
    max_requests: Count | None = None
    """Requests per run, retries included; null: no limit."""
    max_tokens: Count | None = None
    """Tokens per run, of questions and answers; null: no limit. A request is sent only if enough is
    left for its maximum cost: one token per byte of the question, plus max_answer_tokens."""

    @field_validator("base_url")
    @classmethod
    def _an_address_without_secrets(cls, value: str) -> str:
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("should be a URL such as http://localhost:8000/v1")
        if address.username or address.password or address.query or address.fragment:
            raise ValueError(
                "should have no user, query or fragment: put the key into the environment variable "
                "that key_env names"
            )
        return value

    @field_validator("key_env")
    @classmethod
    def _a_name_and_not_a_key(cls, value: str | None) -> str | None:
        if value is not None and not VARIABLE.fullmatch(value):
            raise ValueError("should be the name of an environment variable, such as MY_API_KEY")
        return value


class LabelSpec(Spec):
    """Labels for the features on the pages, from what activates them and what they write."""

    provider: Literal["offline", "openai-compatible"] = "offline"
    """offline: words from the contexts, promoted tokens and steered texts, without any model."""
    server: ServerSpec | None = None
    """Required for openai-compatible."""
    evidence: Literal["both", "input", "output"] = "both"
    """What the labeller sees. input: the contexts that activate a feature most. output: steered
    texts, and the tokens that its decoder row promotes and suppresses."""
    alphas: Literal["wide"] | tuple[float, ...] = (-2.0, -1.0, 1.0, 2.0)
    """Strengths of the steered texts, as multiples of A_max. wide: fourteen from -8 to 8."""
    prompts: PromptSpec | None = None
    """Prompts to steer for the labels, such as a `sample` of a source; null: `n_prompts` of the
    run's prompts, the same number from each domain."""
    n_prompts: Count = 12
    max_new_tokens: Count = 48
    examples: CountOrZero = 2
    """Prompts whose steered texts the labeller sees; the rest are for the causal score."""
    example_chars: Count = 200
    """Characters of each text that the labeller sees."""
    contexts: Count = 5
    """Contexts that the labeller sees, in decreasing order of activation."""
    detection: CountOrZero = 20
    """Held-out contexts in the detection score on which the feature fires, and as many on which it
    does not."""
    neuronpedia: str | None = "https://www.neuronpedia.org"
    """The site with labels of published SAEs; null: do not look them up."""
    seed: Seed = 0

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths of the steered texts, as multiples of A_max, without 0."""
        return WIDE if self.alphas == "wide" else self.alphas

    def n_texts(self, n_features: int, n_prompts: int) -> int:
        """Steered and unsteered texts for the labels and their tests, at most."""
        pairs = max(0, n_prompts - self.examples)
        shown = n_prompts * (n_features * len(self.strengths) + 1)
        return shown + pairs * (n_features + 1)

    def check_size(self, n_features: int, n_prompts: int) -> None:
        """Raise InputError if the texts for this many labels, or the answers, exceed the memory."""
        check_texts(
            self.n_texts(n_features, n_prompts),
            self.max_new_tokens,
            "features × strengths × prompts of label",
            "label fewer features (select.k), or lower label.n_prompts or label.max_new_tokens",
        )
        if self.server:
            check_texts(
                QUESTIONS * n_features,
                self.server.max_answer_tokens,
                "features × questions",
                "label fewer features (select.k), or lower label.server.max_answer_tokens",
            )

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
            raise ValueError("needs a strength above 0, which the causal score tests")
        return kept

    @model_validator(mode="after")
    def _a_server_to_ask(self) -> LabelSpec:
        if self.provider == "openai-compatible" and self.server is None:
            raise ValueError("provider: openai-compatible needs server: {base_url: …, model: …}")
        if self.provider == "offline" and self.server is not None:
            raise ValueError(
                "provider: offline uses no server: leave server out, or set provider: "
                "openai-compatible"
            )
        return self
