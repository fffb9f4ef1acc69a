"""Measure directions × edits × strengths on prompts, for the comparison and the trade-offs.

A strength rule (grid, equal norm, equal KL, equal effect) gives each treatment its doses; every
dose is then measured on every prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.config import PlacedEditSpec
from saelens_steer.data import token_ids
from saelens_steer.directions.equal_effect import equal_effect_steps
from saelens_steer.directions.text_loss import text_losses
from saelens_steer.evidence import EQUAL_EFFECT, LOSS
from saelens_steer.metrics import KL, LogitMetric
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.progress import Note, unnoted
from saelens_steer.steering import Edit, EditContext, Target, plain_directions
from saelens_steer.sweeps import (
    UNEDITED,
    CompletionSweep,
    LogitSweep,
    Measurement,
    UnsteeredPass,
    edit_at,
    kl_steps,
    measured_batches,
    rows_of,
    run_completions,
)

FIRST, LONGEST = 0.05, 6.0
"""Search bounds for equal effects, as α: multiples of mean ‖x‖ for pushes."""
PUSH = PlacedEditSpec.model_validate("add")


@dataclass(frozen=True)
class NamedDirection:
    """A vector as one unit of step adds it, its feature if any, and the sources that found it."""

    name: str
    vector: Float[Tensor, " d_model"]
    feature: int | None = None
    found_by: str = ""


@dataclass(frozen=True)
class Treatment:
    """A direction and an edit along it."""

    direction: NamedDirection
    edit: PlacedEditSpec = PUSH

    @property
    def applies(self) -> bool:
        """Whether the edit works along this direction."""
        return self.direction.feature is not None or "feature" not in self.edit.options.needs

    def build(self, step: float, context: EditContext) -> Edit:
        """The edit with a push of `step` times the direction, or a factor of 1 + step."""
        found, feature = self.direction, self.direction.feature
        target = Target(found.name, found.vector[None], () if feature is None else (feature,))
        return edit_at(self.edit, target, step, "unit", context)


class Dose(NamedTuple):
    """A treatment at one strength."""

    treatment: Treatment
    alpha: float
    """The strength shown in tables."""
    step: float
    """The strength in units of the direction."""
    rule: str
    """The strength rule, such as grid or equal_effect."""

    @property
    def about(self) -> dict[str, Any]:
        direction = self.treatment.direction
        return {
            "direction": direction.name,
            "feature": direction.feature,
            "found_by": direction.found_by,
            "edit": self.treatment.edit.label,
            "kind": self.rule,
            "alpha": self.alpha,
        }


@dataclass(frozen=True)
class EffectMeasurement:
    """Prompts, and how doses are measured on them."""

    measurement: Measurement
    context: EditContext
    places: Sequence[str] = ()
    """The positions of the treatments' edits; empty: those of the sweep."""
    max_new_tokens: int = 0
    """Length of the texts to generate; 0: none."""

    @property
    def text_columns(self) -> list[str]:
        """Columns of text metrics; empty if no texts are generated."""
        if not (self.measurement.text_metrics and self.max_new_tokens):
            return []
        return [*self.measurement.text_columns, LOSS]

    @cached_property
    def passes(self) -> dict[str, UnsteeredPass]:
        """Positions → the unsteered pass for edits there."""
        texts = self.max_new_tokens if self.text_columns else 0
        swept = self.measurement.unsteered_pass
        if not self.places:
            return {swept.positions: swept}
        return {
            at: replace(swept, positions=at, new_tokens=texts)  # type: ignore[arg-type]
            for at in self.places
        }

    @cached_property
    def metrics(self) -> list[LogitMetric]:
        """The logit metrics, with KL added if missing."""
        metrics = self.measurement.logit_metrics
        named = any(metric.name == KL.name for metric in metrics)
        return metrics if named else [*metrics, KL]

    def kl_cells(self, treatments: Sequence[Treatment], kl: float, mean_norm: float) -> list[Dose]:
        """Each push at a mean KL of `kl` nats. Raises InputError if one does not reach it."""
        vectors = torch.stack([one.direction.vector for one in treatments])
        names = tuple(one.direction.name for one in treatments)
        sweep = LogitSweep(
            unsteered_pass=self.measurement.unsteered_pass,
            directions=replace(plain_directions(vectors), names=names),
            cells=[(i, kl) for i in range(len(treatments))],
            metrics=self.metrics,
        )
        steps = kl_steps(sweep, mean_norm)
        return [Dose(one, kl, step, "kl") for one, step in zip(treatments, steps, strict=True)]

    def effect_cells(
        self,
        treatments: Sequence[Treatment],
        effect: float,
        sign: int,
        domain: str,
        unit: float,
        note: Note,
    ) -> list[Dose]:
        """Each treatment at the smallest strength found with this mean effect on the domain.

        α is NaN if none is found. `unit`: the step of α = 1.
        """
        prompts, outcome = self.measurement.prompts, self.measurement.outcome.name
        wanted = np.array([p.domain == domain for p in prompts])
        zero = self.unsteered_rows()[outcome].to_numpy()[wanted]
        in_domain = tuple(p for p in prompts if p.domain == domain)
        here = replace(self, measurement=replace(self.measurement, prompts=in_domain))

        def cell(i: int, alpha: float) -> Dose:
            return cell_at(treatments[i], alpha, unit, EQUAL_EFFECT)

        def effects_of(which: Sequence[int], alphas: Sequence[float]) -> list[float]:
            cells = [cell(i, a) for i, a in zip(which, alphas, strict=True)]
            rows = here.logit_rows(cells, note)
            delta = rows[outcome].to_numpy() - zero[rows["prompt"].to_numpy()]
            means: Any = pd.Series(sign * delta).groupby(rows["cell"].to_numpy()).mean()
            return means.tolist()

        alphas = equal_effect_steps(effects_of, len(treatments), effect, FIRST, LONGEST)
        return [cell(i, alpha) for i, alpha in enumerate(alphas)]

    def unsteered_rows(self) -> pd.DataFrame:
        """Columns: prompt and each logit metric."""
        logits = next(iter(self.passes.values())).baseline
        values = {m.name: m.of(logits, baseline=logits).double().cpu() for m in self.metrics}
        return pd.DataFrame({"prompt": np.arange(len(logits)), **values})

    def logit_rows(self, cells: Sequence[Dose], note: Note = unnoted) -> pd.DataFrame:
        """Columns: cell, prompt, each logit metric and the receipt; sorted by cell and prompt."""
        parts = []
        for unsteered_pass, places, sweep in self._by_place(cells):
            logits = LogitSweep(
                **sweep,
                cells=[(i, cells[place].step) for i, place in enumerate(places)],
                metrics=self.metrics,
                sae=self.context.sae,
            )
            for found in measured_batches(logits):
                rows = rows_of(logits, found, unsteered_pass.baseline)
                parts.append(rows.assign(cell=np.array(places)[rows["cell"].to_numpy()]))
                note(len(rows))
        return pd.concat(parts).sort_values(["cell", "prompt"], ignore_index=True)

    def text_rows(self, cells: Sequence[Dose], note: Note = unnoted) -> pd.DataFrame:
        """Columns: cell (−1: unsteered), prompt, completion, truncated, text metrics, text_loss."""
        measurement, parts = self.measurement, []
        change = {"max_new_tokens": self.max_new_tokens, "samples": 1}
        for _, places, sweep in self._by_place(cells):
            steps = [(i, cells[place].step) for i, place in enumerate(places)]
            run = CompletionSweep(
                **{**sweep, "edits": [UNEDITED, *sweep["edits"]]},
                cells=[(0, 0.0), *steps],
                metrics=measurement.text_metrics,
                spec=measurement.spec.completions.model_copy(update=change),
                seed=measurement.spec.seed,
            )
            rows = run_completions(run, note=note)
            rows = rows.assign(cell=np.array([-1, *places])[rows["cell"].to_numpy()])
            parts.append(rows[rows["cell"] >= 0] if parts else rows)
        rows = pd.concat(parts, ignore_index=True)
        prompts = [measurement.ids[prompt] for prompt in rows["prompt"]]
        texts = [token_ids(tokenizer_of(measurement.model), text) for text in rows["completion"]]
        columns = ["cell", "prompt", "completion", "truncated", *measurement.text_columns]
        losses = text_losses(measurement.model, prompts, texts)
        lost = rows["truncated"].isna()  # their texts are not the model's
        return rows[columns].assign(**{LOSS: losses}).assign(**{LOSS: lambda t: t[LOSS].mask(lost)})

    def _by_place(
        self, cells: Sequence[Dose]
    ) -> Iterator[tuple[UnsteeredPass, list[int], dict[str, Any]]]:
        """For each place: its pass, the cells edited there, and their sweep's inputs."""
        for at, unsteered_pass in self.passes.items():
            places = [
                i
                for i, cell in enumerate(cells)
                if not self.places or cell.treatment.edit.positions == at
            ]
            if not places:
                continue
            here = [cells[place] for place in places]
            found = plain_directions(torch.stack([one.treatment.direction.vector for one in here]))
            features = tuple(one.treatment.direction.feature for one in here)
            sweep = {
                "unsteered_pass": unsteered_pass,
                "directions": replace(found, features=features),
                "edits": [one.treatment.build(one.step, self.context) for one in here],
            }
            yield unsteered_pass, places, sweep


def cell_at(treatment: Treatment, alpha: float, unit: float, rule: str) -> Dose:
    """A treatment at α: a push or value of α · `unit`, or a factor of 1 + α."""
    scaled = treatment.edit.options.strength in ("push", "value")
    return Dose(treatment, alpha, alpha * unit if scaled else alpha, rule)
