"""The rotary embeddings of a GGUF file, in transformers' words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from saelens_steer.errors import InputError
from saelens_steer.model.gguf.keys import Keys

Rope = dict[str, Any]
FACTORS = "rope_freqs.weight"
"""One divisor for each rotary frequency: how a file holds Llama 3's scaling."""
ORIGINAL = 8192
"""Llama 3's first context. Any will do: multiplied together with both factors, it cancels."""


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
    turns = ORIGINAL * theta ** (-np.arange(0, width, 2) / width) / (2 * math.pi)
    for rope in _candidates(given, turns):
        if np.allclose(llama3_divisors(rope, turns), given, rtol=1e-5, atol=0):
            return rope
    raise InputError(
        f"{FACTORS} of {keys.file.path} scales rotary frequencies otherwise than Llama 3: use the "
        "checkpoint in Hugging Face format"
    )


def llama3_divisors(rope: Rope, turns: np.ndarray) -> np.ndarray:
    """What each frequency is divided by, from its turns in the original context."""
    factor, low, high = (rope[name] for name in ("factor", "low_freq_factor", "high_freq_factor"))
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - kept) / factor + kept)


def _candidates(given: np.ndarray, turns: np.ndarray) -> list[Rope]:
    """Llama 3's own bounds, then those on the line through the partly scaled frequencies."""
    factor = float(given.max())
    bounds = [(1.0, 4.0)]
    if factor > 1:
        kept = (1 / given - 1 / factor) / (1 - 1 / factor)
        partly = np.flatnonzero((kept > 1e-6) & (kept < 1 - 1e-6))
        if len(partly) > 1:
            first, last = partly[0], partly[-1]
            slope = (kept[first] - kept[last]) / (turns[first] - turns[last])
            low = turns[first] - kept[first] / slope
            bounds.append((low, low + 1 / slope))
    return [
        {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": float(low),
            "high_freq_factor": float(high),
            "original_max_position_embeddings": ORIGINAL,
        }
        for low, high in bounds
    ]
