"""Strengths at which different ways to steer have the same effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from saelens_steer.config import TradeoffsSpec
from saelens_steer.data import token_ids
from saelens_steer.directions.edits import DirectionEdit, EditContext
from saelens_steer.directions.perplexity import text_losses
from saelens_steer.evidence import EQUAL_EFFECT, GRID, LOSS
from saelens_steer.progress import Note, unnoted
from saelens_steer.steering import Directions, Edit, plain_directions
from saelens_steer.sweeps import (
    CompletionSweep,
    LogitSweep,
    Measurement,
    UnsteeredPass,
    measured_batches,
    rows_of,
    run_completions,
)

TOLERANCE = 0.01
"""The effect may be off by so much of its target."""
ROUNDS = 40

Measure = Callable[[Sequence[int], Sequence[float]], Sequence[float]]
"""(which ways, how far each) ↦ the effect of each."""


@dataclass
class _Bracket:
    """Effect below the target at `low`, above it at `high`."""

    low: float = 0.0
    high: float = np.inf
    effect_low: float = 0.0
    effect_high: float = np.inf

    def next(self, first: float, target: float) -> float:
        """Grow until bracketed; then where a straight line would be, kept off the ends."""
        if not np.isfinite(self.high):
            return 1.5 * self.low or first
        share = (target - self.effect_low) / (self.effect_high - self.effect_low)
        return self.low + float(np.clip(share, 0.1, 0.9)) * (self.high - self.low)

    def note(self, step: float, effect: float, target: float) -> None:
        if effect < target:
            self.low, self.effect_low = step, effect
        else:
            self.high, self.effect_high = step, effect


def equal_effect_steps(
    measure: Measure, n: int, target: float, first: float, longest: float
) -> list[float]:
    """For each of n ways the smallest step found whose effect is `target`; NaN where pushes up to
    `longest` do not reach it, or where the effect jumps over it.

    All are searched at once, each from `first` on by factors of 1.5, then within its bracket.
    """
    brackets, found = [_Bracket() for _ in range(n)], [np.nan] * n
    left = list(range(n))
    for _ in range(ROUNDS):
        if not left:
            break
        steps = [brackets[i].next(first, target) for i in left]
        effects = measure(left, steps)
        for i, step, effect in zip([*left], steps, effects, strict=True):
            done = abs(effect - target) <= TOLERANCE * target
            found[i] = step if done else found[i]
            brackets[i].note(step, effect, target)
            if done or (effect < target and 1.5 * step > longest):
                left.remove(i)
    return found


FIRST, LONGEST = 0.05, 6.0
"""The search for equal effects goes from so many times the mean ‖x‖ to so many."""
MeasuredPair = tuple[DirectionEdit, float, str]
"""A pair, its push in multiples of the mean ‖x‖, and why it is measured: grid or equal_effect."""


@dataclass(frozen=True)
class Tradeoffs:
    """Everything that decides the rows."""

    measurement: Measurement
    """The prompts of all domains."""
    pairs: Sequence[DirectionEdit]
    context: EditContext
    spec: TradeoffsSpec
    mean_norm: float
    sign: int
    """1 where the first logit metric grows towards the target, −1 where it falls."""

    @property
    def outcome(self) -> str:
        """The metric that the effect is measured by."""
        return self.measurement.logit_metrics[0].name

    @property
    def text_columns(self) -> list[str]:
        """What is measured of texts; nothing where none are written."""
        if not (self.measurement.text_metrics and self.spec.max_new_tokens):
            return []
        return [*self.measurement.text_columns, LOSS]

    @property
    def rates(self) -> tuple[str, ...]:
        """The first column of each metric of texts: over all texts, and 0 or 1 where it is a
        rate."""
        return tuple(m.columns[0] for m in self.measurement.text_metrics if self.text_columns)

    @cached_property
    def passes(self) -> dict[str, UnsteeredPass]:
        """Positions → the prompts, steered there."""
        texts = self.spec.max_new_tokens if self.text_columns else 0
        own = self.measurement.unsteered_pass
        return {
            at: replace(own, positions=at, new_tokens=texts)  # type: ignore[arg-type]
            for at in dict.fromkeys(pair.positions for pair in self.pairs)
        }

    def edits(self, cells: Sequence[MeasuredPair]) -> list[tuple[str, Edit]]:
        """The edit of each cell, and a digest of what decides it."""
        return [pair.build(alpha * self.mean_norm, self.context) for pair, alpha, _ in cells]


def tradeoff_rows(job: Tradeoffs, note: Note = unnoted) -> pd.DataFrame:
    """One row per direction × edit × strength × prompt, and those of the unsteered model (edit
    `none`): direction, feature, found_by, edit, kind (grid or equal_effect), alpha (× mean ‖x‖),
    prompt_id, domain, each metric, text_loss and the receipt.

    A pair that does not reach the effect has one row with kind equal_effect, whose alpha is NaN.
    """
    cells: list[MeasuredPair] = [(pair, a, GRID) for pair in job.pairs for a in job.spec.alphas]
    reached, missed = _equal_effects(job, note)
    cells += reached
    moved = _logit_rows(job, cells, note)
    if job.text_columns:
        texts = _text_rows(job, cells, note)
        zero = _unsteered(job).merge(texts[texts["cell"] < 0].drop(columns="cell"), on="prompt")
        moved = moved.merge(texts, on=["cell", "prompt"], how="left")
    else:
        zero = _unsteered(job)
    rows = pd.concat([zero.assign(cell=-1), moved], ignore_index=True)
    return pd.concat([_named(job, cells, rows), _missed(missed)], ignore_index=True)


def _equal_effects(job: Tradeoffs, note: Note) -> tuple[list[MeasuredPair], list[DirectionEdit]]:
    """Each pair at the strength that has the effect, and the pairs that do not reach it."""
    if job.spec.effect is None:
        return [], []
    wanted = np.array([p.domain == job.spec.domain for p in job.measurement.prompts])
    zero = _unsteered(job)[job.outcome].to_numpy()
    measurement = replace(
        job.measurement,
        prompts=tuple(p for p, own in zip(job.measurement.prompts, wanted, strict=True) if own),
    )
    few = replace(job, measurement=measurement)

    def effects(which: Sequence[int], alphas: Sequence[float]) -> list[float]:
        cells = [(job.pairs[i], a, EQUAL_EFFECT) for i, a in zip(which, alphas, strict=True)]
        rows = _logit_rows(few, cells, note)
        delta = rows[job.outcome].to_numpy() - zero[wanted][rows["prompt"].to_numpy()]
        means: Any = pd.Series(job.sign * delta).groupby(rows["cell"].to_numpy()).mean()
        return means.tolist()

    alphas = equal_effect_steps(effects, len(job.pairs), job.spec.effect, FIRST, LONGEST)
    found = list(zip(job.pairs, alphas, strict=True))
    reached = [(pair, a, EQUAL_EFFECT) for pair, a in found if not np.isnan(a)]
    return reached, [pair for pair, a in found if np.isnan(a)]


def _logit_rows(job: Tradeoffs, cells: Sequence[MeasuredPair], note: Note) -> pd.DataFrame:
    """cell, prompt, each logit metric and the receipt, in the order of cells and prompts."""
    parts = []
    for unsteered_pass, own, few in _by_positions(job, cells):
        sweep = LogitSweep(
            unsteered_pass=unsteered_pass,
            directions=_directions(few),
            cells=[(place, cell[1]) for place, cell in enumerate(few)],
            edits=job.edits(few),
            metrics=job.measurement.logit_metrics,
            sae=job.context.sae,
        )
        for found in measured_batches(sweep):
            rows = rows_of(sweep, found, unsteered_pass.baseline)
            parts.append(rows.assign(cell=np.array(own)[rows["cell"].to_numpy()]))
            note(len(rows))
    return pd.concat(parts).sort_values(["cell", "prompt"], ignore_index=True)


def _by_positions(
    job: Tradeoffs, cells: Sequence[MeasuredPair]
) -> Iterator[tuple[UnsteeredPass, list[int], list[MeasuredPair]]]:
    """The cells that are steered at the same positions, with their places; none is left out."""
    for at, unsteered_pass in job.passes.items():
        if own := [i for i, (pair, *_) in enumerate(cells) if pair.positions == at]:
            yield unsteered_pass, own, [cells[i] for i in own]


def _directions(cells: Sequence[MeasuredPair]) -> Directions:
    vectors = torch.stack([pair.direction.vector for pair, *_ in cells])
    found = plain_directions(vectors)
    return replace(found, features=tuple(pair.direction.feature for pair, *_ in cells))


def _unsteered(job: Tradeoffs) -> pd.DataFrame:
    """prompt, and each logit metric."""
    logits = next(iter(job.passes.values())).baseline
    values = {m.name: m.of(logits, logits).double().cpu() for m in job.measurement.logit_metrics}
    return pd.DataFrame({"prompt": np.arange(len(logits)), **values})


def _text_rows(job: Tradeoffs, cells: Sequence[MeasuredPair], note: Note) -> pd.DataFrame:
    """cell (−1: unsteered), prompt, completion, truncated, each text metric and text_loss."""
    parts = []
    for unsteered_pass, own, few in _by_positions(job, cells):
        nothing = ("unsteered", Edit("none", lambda x: x))
        sweep = CompletionSweep(
            unsteered_pass=unsteered_pass,
            directions=_directions(few),
            cells=[(0, 0.0), *((place, cell[1]) for place, cell in enumerate(few))],
            edits=[nothing, *job.edits(few)],
            metrics=job.measurement.text_metrics,
            spec=job.measurement.spec.completions.model_copy(
                update={"max_new_tokens": job.spec.max_new_tokens, "samples": 1}
            ),
            seed=job.measurement.spec.seed,
        )
        rows = run_completions(sweep, note=note)
        rows = rows.assign(cell=np.array([-1, *own])[rows["cell"].to_numpy()])
        parts.append(rows[rows["cell"] >= 0] if parts else rows)
    rows = pd.concat(parts, ignore_index=True)
    columns = ["completion", "truncated", *job.measurement.text_columns]
    return rows[["cell", "prompt", *columns]].assign(**{LOSS: _losses(job, rows)})


def _losses(job: Tradeoffs, rows: pd.DataFrame) -> list[float]:
    tokenizer = job.measurement.model.tokenizer
    prompts = [job.measurement.ids[prompt] for prompt in rows["prompt"]]
    return text_losses(
        job.measurement.model, prompts, [token_ids(tokenizer, text) for text in rows["completion"]]
    )


def _named(job: Tradeoffs, cells: Sequence[MeasuredPair], rows: pd.DataFrame) -> pd.DataFrame:
    """What each row is, in words, before what was measured."""
    prompts = job.measurement.prompts
    about: list[dict[str, Any]] = [*(_about(*cell) for cell in cells), UNSTEERED]
    front = pd.DataFrame([about[cell] for cell in rows["cell"]])
    front["feature"] = front["feature"].astype("Int64")
    front["prompt_id"] = [prompts[i].id for i in rows["prompt"]]
    front["domain"] = [prompts[i].domain for i in rows["prompt"]]
    return pd.concat([front, rows.drop(columns=["cell", "prompt"])], axis=1)


def _about(pair: DirectionEdit, alpha: float, kind: str) -> dict[str, Any]:
    own = pair.direction
    return {
        "direction": own.name,
        "feature": own.feature,
        "found_by": own.found_by,
        "edit": pair.edit,
        "kind": kind,
        "alpha": alpha,
    }


UNSTEERED = {
    "direction": "unsteered",
    "feature": None,
    "found_by": "",
    "edit": "none",
    "kind": GRID,
    "alpha": 0.0,
}


def _missed(pairs: Sequence[DirectionEdit]) -> pd.DataFrame:
    about = [_about(pair, float("nan"), EQUAL_EFFECT) for pair in pairs]
    return pd.DataFrame(about).astype({"feature": "Int64"}) if about else pd.DataFrame()
