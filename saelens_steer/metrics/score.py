"""How much a feature's steered texts differ from each other."""

from __future__ import annotations

from collections.abc import Sequence

from saelens_steer.errors import InputError


def steering_effect(token_ids: Sequence[Sequence[int]], texts: Sequence[str]) -> float:
    """0.6 × distinct/total tokens, pooled over the texts, + 0.4 × distinct/total texts.

    From 0 to 1, over the steered completions of one feature: near 0 where steering makes the model
    repeat itself. No tokens at all count as 0. Raises InputError unless there is one id list for
    each text, and at least one.
    """
    if not texts or len(token_ids) != len(texts):
        raise InputError(
            f"the steering effect needs one id list per text, not {len(token_ids)} for {len(texts)}"
        )
    pooled = [i for ids in token_ids for i in ids]
    tokens = len(set(pooled)) / len(pooled) if pooled else 0.0
    return 0.6 * tokens + 0.4 * len(set(texts)) / len(texts)
