"""Intervals and tests, as pure functions of arrays.

Axes: directions, alphas (0 included), prompts, resamples. NaN means not measured: it is ignored,
and a result without measured values is NaN, without a warning.
"""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float

TIE = 1e-6
"""Relative distance below T at which a control ties with it: the rounding of float32 metrics."""
_CHUNK = 256


def bootstrap_weights(
    n_prompts: int, n_resamples: int, seed: int
) -> Float[np.ndarray, "resamples prompts"]:
    """Number of times each prompt is drawn, in each resample with replacement."""
    rng = np.random.default_rng(seed)
    chances = np.full(n_prompts, 1 / n_prompts)
    return rng.multinomial(n_prompts, chances, size=n_resamples).astype(np.float64)


def prompt_mean(values: Float[np.ndarray, "*cells prompts"]) -> Float[np.ndarray, "*cells"]:
    """Mean over measured prompts."""
    measured = ~np.isnan(values)
    return ratio(np.where(measured, values, 0.0).sum(-1), measured.sum(-1))


def mean_difference(
    means: Float[np.ndarray, "directions alphas"], zero: int
) -> Float[np.ndarray, "directions alphas"]:
    """Mean at α minus mean at 0 (column `zero`); differences within float64 rounding are 0."""
    base = means[:, zero, None]
    with np.errstate(invalid="ignore"):
        delta = means - base
    delta[np.abs(delta) < 1e-12 * np.maximum(np.abs(means), np.abs(base))] = 0.0
    return delta


def bootstrap_interval(
    values: Float[np.ndarray, "directions alphas prompts"],
    zero: int,
    weights: Float[np.ndarray, "resamples prompts"],
    level: float = 0.95,
) -> tuple[Float[np.ndarray, "directions alphas"], Float[np.ndarray, "directions alphas"]]:
    """Percentile interval (low, high) of the mean at α minus the mean at 0, over prompts.

    Both means use the same resample, so complete data give the paired difference (Efron 1979).
    NaN if fewer than two prompts were measured at α or at 0.
    """
    ends = np.full((2, *values.shape[:2]), np.nan)
    enough = (~np.isnan(values)).sum(-1) >= 2
    enough &= enough[:, zero, None]
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        if enough[part].any():
            ends[:, part] = _percentiles(_resampled(values[part], zero, weights), level)
    ends[:, ~enough] = np.nan
    return ends[0], ends[1]


def max_statistic(
    delta: Float[np.ndarray, "directions alphas"],
) -> Float[np.ndarray, " directions"]:
    """T, the largest |Δ| over the measured α."""
    return np.fmax.reduce(np.abs(delta), axis=1, initial=np.nan)


def p_values(
    statistic: Float[np.ndarray, " directions"], controls: Float[np.ndarray, " controls"]
) -> Float[np.ndarray, " directions"]:
    """(1 + #{T_control ≥ T}) / (K + 1); ties count against the claim. NaN without controls."""
    if not len(controls):
        return np.full(len(statistic), np.nan)
    below = np.searchsorted(np.sort(controls), statistic * (1 - TIE), side="left")
    p = (1 + len(controls) - below) / (len(controls) + 1)
    return np.where(np.isnan(statistic), np.nan, p)


def headline_p(
    statistic: Float[np.ndarray, " directions"], controls: Float[np.ndarray, " controls"]
) -> float:
    """p of the largest of m statistics against the largest of m random directions.

    The exact permutation test of the maximum: if the candidates were random directions too, any m
    of the m + K would be equally likely to be the candidates, so p is the share of choices whose
    maximum reaches the observed one, 1 − C(below, m) / C(m + K, m). Unlike Šidák's 1 − (1 − p)^m it
    is valid for dependent candidates (they share controls) and any K; for m = 1 it equals
    `p_values`. Ties count against the claim. Source: the max-statistic of Westfall & Young 1993.
    """
    tested = statistic[~np.isnan(statistic)]
    if not len(tested) or not len(controls):
        return float("nan")
    pooled = np.concatenate([tested, controls])
    below = int((pooled < tested.max() * (1 - TIE)).sum())
    chosen = np.arange(len(tested))
    return float(1 - np.prod(np.maximum(below - chosen, 0) / (len(pooled) - chosen)))


def false_discovery(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Benjamini–Hochberg q-values (scipy); NaN if p is NaN."""
    q = np.full(len(p), np.nan)
    valid = ~np.isnan(p)
    if valid.any():
        q[valid] = scipy.stats.false_discovery_control(p[valid], method="bh")
    return q


def sign_rate(
    delta: Float[np.ndarray, "directions prompts"], effect: Float[np.ndarray, " directions"]
) -> Float[np.ndarray, " directions"]:
    """Share of prompts whose Δ opposes the mean effect; NaN if the effect is 0."""
    against = (np.sign(delta) == -np.sign(effect)[:, None]).sum(-1)
    rate = ratio(against, (~np.isnan(delta)).sum(-1))
    return np.where((effect == 0) | np.isnan(effect), np.nan, rate)


def separation_score(
    delta: Float[np.ndarray, "directions alphas"], controls: Float[np.ndarray, "controls alphas"]
) -> Float[np.ndarray, " directions"]:
    """Σ_α |Δ(α) − mean Δ_controls(α)| over the measured α."""
    distance = np.abs(delta - prompt_mean(controls.T))
    return np.where(np.isnan(distance).all(1), np.nan, np.nansum(distance, axis=1))


def ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count, NaN if the count is 0."""
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _resampled(values: np.ndarray, zero: int, weights: np.ndarray) -> np.ndarray:
    """Differences of resampled means, [directions, alphas, resamples]."""
    missing = np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = np.where(missing, 0.0, values) @ weights.T
        if missing.any():
            means = ratio(means, ~missing @ weights.T)
        else:
            means /= values.shape[-1]
        return means - means[:, zero, None]


def _percentiles(samples: np.ndarray, level: float) -> np.ndarray:
    """Ends of the central interval over the last axis, interpolated, ignoring NaN."""
    ordered = np.sort(samples, axis=-1)  # NaN comes last
    last = np.maximum((~np.isnan(ordered)).sum(-1) - 1, 0)
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * last
        lower, upper = np.floor(place).astype(int), np.ceil(place).astype(int)
        low = np.take_along_axis(ordered, lower[..., None], -1)[..., 0]
        high = np.take_along_axis(ordered, upper[..., None], -1)[..., 0]
        with np.errstate(invalid="ignore"):
            ends.append(low + (place - lower) * (high - low))
    return np.stack(ends)
