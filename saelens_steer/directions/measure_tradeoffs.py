"""Measure what directions and edits do to every domain, at given strengths and at equal effect.

`evidence.tabulate_tradeoffs` turns these rows into effects and damage with intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from saelens_steer.config import TradeoffsSpec
from saelens_steer.data import token_ids
from saelens_steer.directions.edits import DirectionEdit, EditContext
from saelens_steer.directions.equal_effect import equal_effect_steps
from saelens_steer.directions.text_loss import text_losses
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

FIRST, LONGEST = 0.05, 6.0
"""Bounds of the search for equal effects, in multiples of mean ‖x‖."""


@dataclass(frozen=True)
class TradeoffInputs:
    """Everything that decides the rows."""

    measurement: Measurement
    """The prompts of all domains."""
    pairs: Sequence[DirectionEdit]
    context: EditContext
    spec: TradeoffsSpec
    mean_norm: float
    sign: int
    """1 if the first logit metric grows towards the target, −1 if it falls."""

    @property
    def outcome(self) -> str:
        """The metric that the effect is measured by."""
        return self.measurement.logit_metrics[0].name

    @property
    def text_columns(self) -> list[str]:
        """The columns measured on texts; none if no text is written."""
        if not (self.measurement.text_metrics and self.spec.max_new_tokens):
            return []
        return [*self.measurement.text_columns, LOSS]

    @property
    def rates(self) -> tuple[str, ...]:
        """The first column of each text metric, which covers all texts."""
        return tuple(m.columns[0] for m in self.measurement.text_metrics if self.text_columns)

    @cached_property
    def passes(self) -> dict[str, UnsteeredPass]:
        """Positions → the unsteered pass that is steered there."""
        texts = self.spec.max_new_tokens if self.text_columns else 0
        own = self.measurement.unsteered_pass
        return {
            at: replace(own, positions=at, new_tokens=texts)  # type: ignore[arg-type]
            for at in dict.fromkeys(pair.positions for pair in self.pairs)
        }


class _Cell(NamedTuple):
    """An edit at one strength."""

    pair: DirectionEdit
    alpha: float
    """In multiples of mean ‖x‖."""
    kind: str
    """Why it is measured: grid or equal_effect."""

    @property
    def about(self) -> dict[str, Any]:
        direction = self.pair.direction
        return {
            "direction": direction.name,
            "feature": direction.feature,
            "found_by": direction.found_by,
            "edit": self.pair.edit,
            "kind": self.kind,
            "alpha": self.alpha,
        }


UNSTEERED = {
    "direction": "unsteered",
    "feature": None,
    "found_by": "",
    "edit": "none",
    "kind": GRID,
    "alpha": 0.0,
}


def tradeoff_rows(job: TradeoffInputs, note: Note = unnoted) -> pd.DataFrame:
    """One row per direction × edit × strength × prompt, and per prompt of the unsteered model (edit
    `none`): direction, feature, found_by, edit, kind (grid or equal_effect), alpha (× mean ‖x‖),
    prompt_id, domain, each metric, text_loss and the receipt.

    A pair that does not reach the effect has one row with kind equal_effect and alpha NaN.
    """
    at_equal_effect = _equal_effect_cells(job, note)
    cells = [_Cell(pair, a, GRID) for pair in job.pairs for a in job.spec.alphas]
    cells += [cell for cell in at_equal_effect if not np.isnan(cell.alpha)]
    zero, steered = _unsteered_rows(job), _logit_rows(job, cells, note)
    if job.text_columns:
        texts = _text_rows(job, cells, note)
        zero = zero.merge(texts[texts["cell"] < 0].drop(columns="cell"), on="prompt")
        steered = steered.merge(texts, on=["cell", "prompt"], how="left")
    rows = pd.concat([zero.assign(cell=-1), steered], ignore_index=True)
    abouts = [*(cell.about for cell in cells), UNSTEERED]
    about = pd.DataFrame([abouts[cell] for cell in rows["cell"]]).astype({"feature": "Int64"})
    about["prompt_id"] = [job.measurement.prompts[i].id for i in rows["prompt"]]
    about["domain"] = [job.measurement.prompts[i].domain for i in rows["prompt"]]
    table = pd.concat([about, rows.drop(columns=["cell", "prompt"])], axis=1)
    missed = pd.DataFrame([cell.about for cell in at_equal_effect if np.isnan(cell.alpha)])
    if missed.empty:
        return table
    return pd.concat([table, missed.astype({"feature": "Int64"})], ignore_index=True)


def _equal_effect_cells(job: TradeoffInputs, note: Note) -> list[_Cell]:
    """Each pair at the strength that has the effect; alpha is NaN if none does."""
    if job.spec.effect is None:
        return []
    prompts = job.measurement.prompts
    wanted = np.array([p.domain == job.spec.domain for p in prompts])
    zero = _unsteered_rows(job)[job.outcome].to_numpy()[wanted]
    own = tuple(p for p in prompts if p.domain == job.spec.domain)
    few = replace(job, measurement=replace(job.measurement, prompts=own))

    def effects_of(which: Sequence[int], alphas: Sequence[float]) -> list[float]:
        cells = [_Cell(job.pairs[i], a, EQUAL_EFFECT) for i, a in zip(which, alphas, strict=True)]
        rows = _logit_rows(few, cells, note)
        delta = rows[job.outcome].to_numpy() - zero[rows["prompt"].to_numpy()]
        means: Any = pd.Series(job.sign * delta).groupby(rows["cell"].to_numpy()).mean()
        return means.tolist()

    alphas = equal_effect_steps(effects_of, len(job.pairs), job.spec.effect, FIRST, LONGEST)
    return [_Cell(pair, a, EQUAL_EFFECT) for pair, a in zip(job.pairs, alphas, strict=True)]


def _unsteered_rows(job: TradeoffInputs) -> pd.DataFrame:
    """prompt and each logit metric."""
    logits = next(iter(job.passes.values())).baseline
    values = {
        m.name: m.of(logits, baseline=logits).double().cpu() for m in job.measurement.logit_metrics
    }
    return pd.DataFrame({"prompt": np.arange(len(logits)), **values})


def _logit_rows(job: TradeoffInputs, cells: Sequence[_Cell], note: Note) -> pd.DataFrame:
    """cell, prompt, each logit metric and the receipt, in the order of cells and prompts."""
    parts = []
    for unsteered_pass, places, few in _by_positions(job, cells):
        sweep = LogitSweep(
            unsteered_pass=unsteered_pass,
            directions=_directions(few),
            cells=[(i, cell.alpha) for i, cell in enumerate(few)],
            edits=_edits(job, few),
            metrics=job.measurement.logit_metrics,
            sae=job.context.sae,
        )
        for found in measured_batches(sweep):
            rows = rows_of(sweep, found, unsteered_pass.baseline)
            parts.append(rows.assign(cell=np.array(places)[rows["cell"].to_numpy()]))
            note(len(rows))
    return pd.concat(parts).sort_values(["cell", "prompt"], ignore_index=True)


def _text_rows(job: TradeoffInputs, cells: Sequence[_Cell], note: Note) -> pd.DataFrame:
    """cell (−1: unsteered), prompt, completion, truncated, each text metric and text_loss."""
    measurement, parts = job.measurement, []
    for unsteered_pass, places, few in _by_positions(job, cells):
        sweep = CompletionSweep(
            unsteered_pass=unsteered_pass,
            directions=_directions(few),
            cells=[(0, 0.0), *((i, cell.alpha) for i, cell in enumerate(few))],
            edits=[("unsteered", Edit("none", lambda x: x)), *_edits(job, few)],
            metrics=measurement.text_metrics,
            spec=measurement.spec.completions.model_copy(
                update={"max_new_tokens": job.spec.max_new_tokens, "samples": 1}
            ),
            seed=measurement.spec.seed,
        )
        rows = run_completions(sweep, note=note)
        rows = rows.assign(cell=np.array([-1, *places])[rows["cell"].to_numpy()])
        parts.append(rows[rows["cell"] >= 0] if parts else rows)
    rows = pd.concat(parts, ignore_index=True)
    prompts = [measurement.ids[prompt] for prompt in rows["prompt"]]
    texts = [token_ids(measurement.model.tokenizer, text) for text in rows["completion"]]
    columns = ["cell", "prompt", "completion", "truncated", *measurement.text_columns]
    return rows[columns].assign(**{LOSS: text_losses(measurement.model, prompts, texts)})


def _by_positions(
    job: TradeoffInputs, cells: Sequence[_Cell]
) -> Iterator[tuple[UnsteeredPass, list[int], list[_Cell]]]:
    """The cells that are steered at the same positions, with their places in the list."""
    for at, unsteered_pass in job.passes.items():
        if places := [i for i, cell in enumerate(cells) if cell.pair.positions == at]:
            yield unsteered_pass, places, [cells[i] for i in places]


def _directions(cells: Sequence[_Cell]) -> Directions:
    found = plain_directions(torch.stack([cell.pair.direction.vector for cell in cells]))
    return replace(found, features=tuple(cell.pair.direction.feature for cell in cells))


def _edits(job: TradeoffInputs, cells: Sequence[_Cell]) -> list[tuple[str, Edit]]:
    return [cell.pair.build(cell.alpha * job.mean_norm, job.context) for cell in cells]
