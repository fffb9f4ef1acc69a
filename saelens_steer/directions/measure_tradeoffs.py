"""Trade-offs: the effects of directions and edits on every domain, on a grid and at equal effect.

`evidence.tabulate_tradeoffs` turns these rows into effects and damage with intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from saelens_steer.config import TradeoffsSpec
from saelens_steer.directions.measure import Dose, EffectMeasurement, Treatment, cell_at
from saelens_steer.evidence import GRID
from saelens_steer.progress import Note, unnoted
from saelens_steer.steering import EditContext
from saelens_steer.sweeps import Measurement


@dataclass(frozen=True)
class TradeoffInputs:
    """Inputs of `tradeoff_rows`."""

    measurement: Measurement
    """The prompts of all domains."""
    treatments: Sequence[Treatment]
    context: EditContext
    spec: TradeoffsSpec
    mean_norm: float
    sign: int
    """1 if the first logit metric rises towards the target, −1 if it falls."""

    @property
    def effects(self) -> EffectMeasurement:
        places = dict.fromkeys(one.edit.positions for one in self.treatments)
        texts = self.spec.max_new_tokens
        return EffectMeasurement(self.measurement, self.context, [*places], texts)

    @property
    def rates(self) -> tuple[str, ...]:
        """Each text metric's first column, which is defined for all texts."""
        texts = self.measurement.text_metrics if self.effects.text_columns else ()
        return tuple(m.columns[0] for m in texts)


UNSTEERED = {
    "direction": "unsteered",
    "feature": None,
    "found_by": "",
    "edit": "none",
    "kind": GRID,
    "alpha": 0.0,
}


def tradeoff_rows(job: TradeoffInputs, note: Note = unnoted) -> pd.DataFrame:
    """One row per direction × edit × strength × prompt, and per unsteered prompt (edit `none`).

    Columns: direction, feature, found_by, edit, kind (grid or equal_effect), alpha (× mean ‖x‖),
    prompt_id, domain, each metric, text_loss and the receipt. A treatment that does not reach the
    effect has one row with kind equal_effect and alpha NaN.
    """
    effects = job.effects
    at_equal_effect = list[Dose]()
    if job.spec.effect is not None:
        able = [one for one in job.treatments if one.edit.options.strength]
        wanted = job.spec.effect, job.sign, job.spec.domain
        at_equal_effect = effects.effect_cells(able, *wanted, job.mean_norm, note)
    cells = [
        cell_at(one, alpha, job.mean_norm, GRID)
        for one in job.treatments
        for alpha in (job.spec.alphas if one.edit.options.strength else (1.0,))
    ]
    cells += [cell for cell in at_equal_effect if not np.isnan(cell.alpha)]
    zero, steered = effects.unsteered_rows(), effects.logit_rows(cells, note)
    if effects.text_columns:
        texts = effects.text_rows(cells, note)
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
