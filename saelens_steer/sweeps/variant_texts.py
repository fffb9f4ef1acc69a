"""Texts of variants of a model, several variants in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saelens_steer.config import CompareEditsSettings
from saelens_steer.data import Encoded, pad_left
from saelens_steer.model import generate
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.progress import Note, unnoted
from saelens_steer.steering import Variant, stacked
from saelens_steer.sweeps.texts import NewTokens
from saelens_steer.tensors import Mask, Tokens


@dataclass(frozen=True)
class VariantTexts:
    """Left-padded prompts, and how variants continue them."""

    model: Any
    spec: CompareEditsSettings
    tokens: Tokens
    real: Mask
    added: list[int]
    """Length of each prompt's BOS that is never steered."""
    temperature: float = 0.0

    @classmethod
    def of(
        cls,
        model: Any,
        prompts: Sequence[Encoded],
        spec: CompareEditsSettings,
        temperature: float = 0.0,
    ) -> VariantTexts:
        cfg, heads = model.cfg, [e.head for e in prompts]
        tokens, real = pad_left(heads, tokenizer_of(model), cfg.device, cfg.d_vocab)
        return cls(model, spec, tokens, real, [e.added for e in prompts], temperature)

    @property
    def where(self) -> dict[str, Any]:
        """Keywords of `steered` for the prompts."""
        return {**self.spec.where, "added": self.added}

    def written(
        self, asked: Sequence[tuple[Variant, int]], note: Note = unnoted
    ) -> list[NewTokens]:
        """The new tokens under each variant with its seed, as in a batch of its own.

        A batch holds as many variants as fit into `spec.batch_size` rows, at least one.
        """
        n, found = len(self.tokens), list[NewTokens]()
        size = max(1, self.spec.batch_size // n)
        for start in range(0, len(asked), size):
            found += self._together(asked[start : start + size])
            note(n * len(asked[start : start + size]))
        return found

    def _together(self, asked: Sequence[tuple[Variant, int]]) -> Sequence[NewTokens]:
        n, k, spec = len(self.tokens), len(asked), self.spec
        shares = [(slice(i * n, (i + 1) * n), variant) for i, (variant, _) in enumerate(asked)]
        tokens, real = self.tokens.repeat(k, 1), self.real.repeat(k, 1)
        seeds = [seed for _, seed in asked]
        with stacked(self.model, shares, **spec.where, added=self.added * k):
            new = generate(self.model, tokens, real, spec.max_new_tokens, self.temperature, seeds)
        return new.split(n)
