"""The whole chain, from rows to the sentence, on simulated directions among which nothing is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulated import long_table, small_effects

from benchmarks.calibration import counted, figures, holds
from saelens_steer.evidence import claims, summarise

M = "math_margin"
ALPHAS = (-4.0, 0.0, 4.0)
CANDIDATES, CONTROLS, RESAMPLES = 10, 220, 200


def exchangeable(seed: int, spread: float = 1.0, n_prompts: int = 5) -> pd.DataFrame:
    """Rows of directions that differ by chance alone, where `spread` is 1: heavy-tailed slopes and
    curves over α, prompts that answer more or less to every direction, and noise of each cell.

    Controls have `spread` times the effects of candidates.
    """
    rng = np.random.default_rng(seed)
    n, strengths = CANDIDATES + CONTROLS, np.array(ALPHAS) / 4
    slopes, curves = rng.standard_t(3, size=(2, n, 1))
    effects = slopes * strengths + 0.5 * curves * strengths**2
    answers = rng.lognormal(sigma=0.5, size=n_prompts)
    noise = 0.3 * rng.normal(size=(n, len(ALPHAS), n_prompts)) * np.abs(strengths)[:, None]
    sizes = np.where(np.arange(n) < CANDIDATES, 1.0, spread)[:, None, None]
    return long_table(
        rng.normal(size=n_prompts) + sizes * (effects[..., None] * answers + noise),
        ALPHAS,
        n_candidates=CANDIDATES,
    )


def counts(rows: pd.DataFrame) -> dict[str, Any]:
    return counted(claims(rows, [M], n_resamples=2), summarise(rows, [M], n_resamples=2))


def simulated_figures(spread: float, resamples: int) -> dict[str, Any]:
    return figures(pd.DataFrame([counts(exchangeable(seed, spread)) for seed in range(resamples)]))


@pytest.mark.nightly
def test_where_nothing_is_five_percent_are_below_five_percent_and_few_sentences_claim():
    found = simulated_figures(1.0, RESAMPLES)
    assert found["resamples"] == RESAMPLES
    assert 0.03 <= found["p_below_5_percent"]["share"] <= 0.06
    assert found["headline_claims"]["share"] <= 0.07
    assert found["p_best_below_5_percent"]["share"] <= 0.07
    assert holds(found)


def test_a_null_with_too_small_effects_is_seen_to_be_wrong():
    found = simulated_figures(0.5, 40)
    assert found["p_below_5_percent"]["low"] > 0.1
    assert found["headline_claims"]["low"] > 0.07
    assert not holds(found)


@pytest.mark.parametrize("planted", [0, 1])
def test_a_claim_is_counted_where_the_sentence_makes_one(planted):
    slopes = small_effects(CANDIDATES + CONTROLS)
    slopes[:planted] = 1.0
    cube = slopes[:, None, None] * np.array(ALPHAS)[:, None] + np.linspace(-0.1, 0.1, 6)
    found = counts(long_table(cube, ALPHAS, n_candidates=CANDIDATES))
    assert found["candidates"] == CANDIDATES
    assert (found["passing"], found["claimed"]) == (planted, bool(planted))
    assert ("more than random" in found["headline"]) != found["claimed"]
    if planted:
        assert f"(p = {found['p_best']:.2g} for the best of 10" in found["headline"]
        assert found["below"] >= 1
