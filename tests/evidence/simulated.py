"""Tables of simulated measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd


def long_table(
    cube: np.ndarray,
    alphas: tuple[float, ...] = (-4.0, 0.0, 4.0),
    n_candidates: int = 1,
    metric: str = "math_margin",
    family: str = "covariance",
) -> pd.DataFrame:
    """values [directions, alphas, prompts] as rows; the first directions are candidates."""
    n = len(cube)
    names = [
        f"feature_{i}" if i < n_candidates else f"{family}_{i - n_candidates:04d}" for i in range(n)
    ]
    direction, alpha, prompt = (axis.ravel() for axis in np.indices(cube.shape))
    tested = direction < n_candidates
    return pd.DataFrame(
        {
            "direction": np.array(names)[direction],
            "family": np.where(tested, "candidate", family),
            "feature": pd.Series(direction, dtype="Int64").where(pd.Series(tested)),
            "alpha": np.array(alphas)[alpha],
            "alpha_unit": "raw",
            "prompt_id": np.char.add("p", prompt.astype(str)),
            metric: cube.ravel(),
        }
    )


def linear_effects(
    slopes: np.ndarray,
    alphas: tuple[float, ...] = (-4.0, 0.0, 4.0),
    n_prompts: int = 8,
    noise: float = 0.05,
    seed: int = 0,
) -> np.ndarray:
    """base + slope · α + noise where α ≠ 0; the base of a prompt is shared by all directions."""
    rng = np.random.default_rng(seed)
    strengths = np.array(alphas)[None, :, None]
    wobble = noise * rng.normal(size=(len(slopes), len(alphas), n_prompts))
    return (
        rng.normal(size=n_prompts) + slopes[:, None, None] * strengths + wobble * (strengths != 0)
    )


def small_effects(n: int, seed: int = 0) -> np.ndarray:
    """Slopes of random directions."""
    return 0.02 * np.random.default_rng(seed).normal(size=n)
