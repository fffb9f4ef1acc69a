"""The rotary embeddings of a GGUF file, as transformers' settings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from saelens_steer.errors import InputError
from saelens_steer.model.gguf.keys import Keys

Rope = dict[str, Any]
FACTORS = "rope_freqs.weight"
"""One divisor for each rotary frequency, which is how a file stores Llama 3's scaling."""
ORIGINAL = 8192
"""Llama 3's original context length. Any value works: it cancels against both factors."""


def rope_of_file(keys: Keys, width: int) -> Rope:
    """`rope_parameters` for `width` rotated dimensions; InputError for scaling beyond these."""
    theta = keys.take("rope.freq_base", 10_000.0)
    kind = keys.take("rope.scaling.type", "linear")
    factor = keys.take("rope.scaling.factor", keys.take("rope.scale_linear", 0.0)) or 1.0
    keys.expect("rope.scaling.attn_factor", 0.0, 1.0)
    rope = {"rope_type": "default", "rope_theta": theta}
    if kind == "yarn":
        rope |= _yarn(keys, factor)
    elif kind not in ("none", "linear"):
        raise keys.refused("rope.scaling.type", kind)
    elif kind == "linear" and factor != 1.0:
        rope |= {"rope_type": "linear", "factor": factor}
    keys.take("rope.scaling.original_context_length", None)  # only yarn and longrope read it
    if FACTORS not in keys.file.shapes:
        return rope
    if rope["rope_type"] != "default":
        raise keys.refused("rope.scaling.type", f"{kind} beside {FACTORS}")
    return rope | _llama3(keys, theta, width)


def _yarn(keys: Keys, factor: float) -> Rope:
    keys.expect("rope.scaling.yarn_ext_factor", -1.0, 1.0)
    keys.expect("rope.scaling.yarn_attn_factor", 1.0)
    keys.expect("rope.scaling.yarn_log_multiplier", 0.0)
    context = keys.file.values[f"{keys.prefix}context_length"]
    return {
        "rope_type": "yarn",
        "factor": factor,
        "beta_fast": keys.take("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.take("rope.scaling.yarn_beta_slow", 1.0),
        "original_max_position_embeddings": keys.take(
            "rope.scaling.original_context_length", context
        ),
    }


def _llama3(keys: Keys, theta: float, width: int) -> Rope:
    """The parameters of Llama 3's scaling that give exactly the file's divisors."""
    divisors = keys.file.vectors.get(FACTORS)
    if divisors is None or divisors.shape != (width // 2,):
        raise InputError(f"{FACTORS} of {keys.file.path} is not a float32 vector of {width // 2}")
    given = divisors.astype(np.float64)
    if np.all(given == 1):
        return {}
    turns = ORIGINAL * theta ** (-np.arange(0, width, 2) / width) / (2 * math.pi)
    factor = float(given.max())
    for low, high in _bounds(given, turns) if factor > 1 and given.min() > 0 else ():
        if np.allclose(_divisors(factor, low, high, turns), given, rtol=1e-5, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": ORIGINAL,
            }
    raise InputError(
        f"{FACTORS} of {keys.file.path} does not scale rotary frequencies as Llama 3 does: use "
        "the checkpoint in Hugging Face format"
    )


def _divisors(factor: float, low: float, high: float, turns: np.ndarray) -> np.ndarray:
    """Llama 3's divisor of each frequency, from its turns in the original context."""
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - kept) / factor + kept)


def _bounds(given: np.ndarray, turns: np.ndarray) -> list[tuple[float, float]]:
    """Candidates for two numbers of turns: full scaling below the first, none above the second.

    Llama 3's own, then those of the line through the partly scaled frequencies. If there are fewer
    than two, any bounds between their neighbours give the same divisors.
    """
    factor = given.max()
    kept = (1 / given - 1 / factor) / (1 - 1 / factor)
    partly = np.flatnonzero((kept > 1e-6) & (kept < 1 - 1e-6))
    padded = np.concatenate([[4 * turns[0]], turns, [0.0]])  # frequency i is entry i + 1
    if len(partly) > 1:
        first, last = partly[0], partly[-1]
        slope = (kept[first] - kept[last]) / (turns[first] - turns[last])
        low = turns[first] - kept[first] / slope
    elif len(partly) == 1:
        i, t, k = partly[0], turns[partly[0]], kept[partly[0]]
        slope = 2 * max(k / (t - padded[i + 2]), (1 - k) / (padded[i] - t))
        low = t - k / slope
    else:
        i = int(np.argmax(kept < 0.5))
        slope, low = 2 / (padded[i] - padded[i + 1]), padded[i + 1]
    return [(1.0, 4.0), (float(low), float(low + 1 / slope))]
