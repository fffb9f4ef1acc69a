"""Tables of trade-offs: the effect on one domain, and the damage to the others.

Their rows come from `directions.measure_tradeoffs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from saelens_steer.config import evidence_of
from saelens_steer.evidence.statistics import bootstrap_interval, bootstrap_weights, prompt_mean

GRID, EQUAL_EFFECT = "grid", "equal_effect"
LOSS = "text_loss"
"""Mean −log p of a text's tokens under the unsteered model, in nats."""
RESAMPLES = 1000
KEYS = ["direction", "feature", "found_by", "edit", "kind", "alpha"]
BASELINE = "mean_difference"
"""The score whose least damaging feature is the baseline at equal effect."""


@dataclass(frozen=True)
class TradeoffArrays:
    """The rows as arrays over cells (direction × edit × strength) and prompts."""

    about: pd.DataFrame
    """KEYS of each cell."""
    domains: np.ndarray
    """The domain of each prompt."""
    steered: dict[str, np.ndarray]
    """Metric → [cell, prompt]; all NaN if an effect was not reached."""
    unsteered: dict[str, np.ndarray]
    """Metric → [prompt]."""

    @classmethod
    def of(cls, rows: pd.DataFrame, metrics: Sequence[str]) -> TradeoffArrays:
        unsteered = rows["edit"] == "none"
        zero, moved = pd.DataFrame(rows[unsteered]), pd.DataFrame(rows[~unsteered])
        zero = zero.sort_values(by="prompt_id", kind="stable")
        cell = moved.groupby(KEYS, sort=False, dropna=False).ngroup().to_numpy()
        about = moved[KEYS].iloc[np.unique(cell, return_index=True)[1]].reset_index(drop=True)
        order = pd.Index(zero["prompt_id"])
        place = order.get_indexer(pd.Index(moved["prompt_id"]))
        measured = place >= 0

        def cube(metric: str) -> np.ndarray:
            found = np.full((len(about), len(order)), np.nan)
            found[cell[measured], place[measured]] = moved[metric].to_numpy(dtype=float)[measured]
            return found

        base = {m: zero[m].to_numpy(dtype=float) for m in metrics}
        return cls(about, zero["domain"].to_numpy(), {m: cube(m) for m in metrics}, base)

    def delta(self, metric: str) -> np.ndarray:
        """Steered minus unsteered, [cell, prompt]."""
        return self.steered[metric] - self.unsteered[metric]

    def is_rate(self, metric: str) -> bool:
        """Whether every measured value is 0 or 1."""
        both = np.append(self.steered[metric], self.unsteered[metric])
        return bool(np.isin(both[~np.isnan(both)], (0.0, 1.0)).all())


def by_domain_table(rows: pd.DataFrame, metrics: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """One row per direction × edit × strength × domain: KEYS, domain, n, and for each metric M:
    M, M_delta, M_ci_low, M_ci_high (95 % bootstrap over the domain's prompts)."""
    cells = TradeoffArrays.of(rows, metrics)
    reached = cells.about["alpha"].notna().to_numpy()
    parts = []
    for domain in dict.fromkeys(cells.domains):
        here = cells.domains == domain
        weights = bootstrap_weights(int(here.sum()), RESAMPLES, seed)
        columns: dict[str, Any] = {"domain": domain, "n": int(here.sum())}
        for m in metrics:
            low, high = interval(cells.delta(m)[:, here], weights)
            mean = prompt_mean(cells.steered[m][:, here])
            delta = prompt_mean(cells.delta(m)[:, here])
            columns |= {m: mean, f"{m}_delta": delta, f"{m}_ci_low": low, f"{m}_ci_high": high}
        parts.append(cells.about.assign(**columns)[reached])
    return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


@dataclass(frozen=True)
class Damage:
    """Inputs of `tradeoffs_table`: the intended effect, its domain, and measures of damage."""

    outcome: str
    sign: int
    domain: str
    rates: tuple[str, ...] = ()
    """Text metrics; only those with values 0 and 1 are used."""
    baseline_edit: str = "add"


def tradeoffs_table(rows: pd.DataFrame, damage: Damage, seed: int = 0) -> pd.DataFrame:
    """One row per direction × edit × strength.

    Columns: KEYS; effect, the Δ of the outcome towards the target on the domain's prompts; and on
    all other prompts damage_kl (mean KL, nats), damage_margin (mean |Δ| of the outcome),
    damage_texts (share of texts with a lower rate), damage_loss (rise of text_loss, nats). effect
    and damage_kl have 95 % bootstrap intervals over prompts. evidence: ceiling if only attribution
    found the direction, control if it is random. on_pareto_front: no other row of evidence
    selection has at least the effect for less KL. baseline: at equal effect, the row of the first
    edit and a mean_difference feature with the least damage_kl; ratio: damage_kl over that row's.
    Equal-effect strengths were found on the same prompts, which no interval accounts for; damage
    grows at least with the square of the strength. metric and domain: the outcome and domain of the
    effect.
    """
    has_texts = LOSS in rows
    metrics = [damage.outcome, "kl", *([LOSS, *damage.rates] if has_texts else [])]
    cells = TradeoffArrays.of(rows, metrics)
    wanted = cells.domains == damage.domain
    effect = damage.sign * cells.delta(damage.outcome)[:, wanted]
    kl, table = cells.steered["kl"][:, ~wanted], cells.about.copy()
    for name, values in {"effect": effect, "damage_kl": kl}.items():
        low, high = interval(values, bootstrap_weights(values.shape[1], RESAMPLES, seed))
        table[name] = prompt_mean(values)
        table[f"{name}_ci_low"], table[f"{name}_ci_high"] = low, high
    table["damage_margin"] = prompt_mean(np.abs(cells.delta(damage.outcome)[:, ~wanted]))
    if has_texts:
        rates = [rate for rate in damage.rates if cells.is_rate(rate)]
        fell = np.any([cells.delta(rate)[:, ~wanted] < 0 for rate in rates] or [kl < 0], axis=0)
        table["damage_texts"] = np.where(np.isnan(table["effect"]), np.nan, fell.mean(1))
        table["damage_loss"] = prompt_mean(cells.delta(LOSS)[:, ~wanted])
    table["evidence"] = [_evidence(found_by) for found_by in table["found_by"]]
    shown = np.where(table["evidence"] == "selection", table["effect"], np.nan)
    table["on_pareto_front"] = on_pareto_front(shown, table["damage_kl"].to_numpy())
    table = table.assign(metric=damage.outcome, domain=damage.domain)
    return table.assign(**_against_baseline(table, damage.baseline_edit))


def _evidence(found_by: str) -> str:
    """control or ceiling if all sources of a direction are, otherwise selection."""
    kinds = {evidence_of(source) for source in found_by.split()}
    return kinds.pop() if len(kinds) == 1 and kinds <= {"ceiling", "control"} else "selection"


def on_pareto_front(effect: np.ndarray, damage: np.ndarray) -> np.ndarray:
    """Whether no other point has at least the effect for less damage, or more for at most the same.

    Points with an effect of 0 or less are never on the front.
    """
    better = (effect[None] >= effect[:, None]) & (damage[None] <= damage[:, None])
    strictly = (effect[None] > effect[:, None]) | (damage[None] < damage[:, None])
    return ~(better & strictly).any(1) & ~np.isnan(effect) & (effect > 0)


def _against_baseline(table: pd.DataFrame, edit: str) -> dict[str, Any]:
    """baseline and ratio (see `tradeoffs_table`)."""
    equal = ((table["kind"] == EQUAL_EFFECT) & table["alpha"].notna()).to_numpy()
    by_contrast = table["found_by"].str.contains(BASELINE).to_numpy(dtype=bool)
    able = np.flatnonzero(equal & by_contrast & (table["edit"] == edit).to_numpy())
    damage = table["damage_kl"].to_numpy()
    ratio = np.full(len(table), np.nan)
    baseline = np.zeros(len(table), dtype=bool)
    if len(able):
        base = able[damage[able].argmin()]
        baseline[base] = True
        ratio[equal] = damage[equal] / damage[base]
    return {"baseline": baseline, "ratio": ratio}


def interval(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap interval of each cell's mean over prompts; NaN for fewer than two prompts."""
    beside_zero = np.stack([np.zeros_like(values), values], axis=1)
    low, high = bootstrap_interval(beside_zero, 0, weights)
    return low[:, 1], high[:, 1]
