"""Whether a feature that does something is found and claimed: `python -m benchmarks.power`.

40 times, a unit vector that moves the margin by construction is written into the W_dec row of one
feature of an SAE: a copy of one that was trained on the tiny model as the default run does, and
another feature, live at the assistant start of the selection prompts, and another vector each time.

The vector is the unit vector of s + e: e is a random unit vector, and s is known to move the
margin: with `--plant both` the unit vector of g + u, with `--plant gradient` g alone. g is the unit
gradient of the margin with respect to the residual at the assistant start, the mean over 24 prompts
on which no feature is selected and which are not steered. u is the unit push at the final residual
that the margin's tokens read: the mean of the target's columns of the unembedding less the mean of
the others', times the final norm's weight.

Then everything is done as in a run. Features are chosen anew by each score on the selection prompts
(is the planted one the first of its side?), and the planted one and nineteen others of those that
direct_logit chose are swept over 24 of the steered prompts, drawn anew, beside 512 covariance
controls (is it "more than random" on the margin?). Controls are measured once for all runs.
`--work` names the folder that keeps the SAE and the controls' rows. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import normalize

import saelens_steer as ss
from benchmarks.rates import rate
from benchmarks.side_by_side import hooked, say
from saelens_steer.activations import Activations
from saelens_steer.config import RunSpec, TemplateSpec
from saelens_steer.data import Prompt, check_disjoint
from saelens_steer.directions import (
    CausalScoring,
    DirectionFinder,
    tested_directions,
    with_controls,
)
from saelens_steer.evidence import PASSES
from saelens_steer.features import Selection
from saelens_steer.files import digest
from saelens_steer.model import direct_logits, resid_gradient
from saelens_steer.pipeline.result import Result
from saelens_steer.steering import CANDIDATE
from saelens_steer.sweeps import NO_STORE, Measurement, Store

SCORES = ("direct_logit", "output_score", "mean_difference", "attribution")
PLANTS = ("both", "gradient")
CLAIMED = ("effect", "p_value", "q_value", "control_quantile", "verdict")
"""What is kept of a claim."""


@dataclass(frozen=True)
class Lab:
    """What all runs share: the model, the SAE before anything is planted, prompts and controls."""

    sae: SAE[Any]
    n_controls: int = 512
    n_candidates: int = 20
    n_prompts: int = 24
    of_prompts: int | None = None
    """Prompts of a run are drawn from the first so many steered ones; None: all."""
    store: Path | None = None
    """The folder that keeps the controls' rows."""
    spec: RunSpec = field(default_factory=RunSpec)

    @cached_property
    def hook_name(self) -> str:
        return ss.default_hook_name(hooked())

    @cached_property
    def selecting(self) -> list[Prompt]:
        return ss.load_prompts(self.spec.select.prompts)

    @cached_property
    def steered(self) -> list[Prompt]:
        return ss.load_prompts(self.spec.prompts.source, self.of_prompts)

    @cached_property
    def activations(self) -> Activations:
        return ss.cache_activations(hooked(), self.selecting, hook_name=self.hook_name)

    def measurement(self, prompts: Sequence[Prompt], sae: SAE[Any] | None = None) -> Measurement:
        """The margin alone, at the default strengths."""
        spec = self.spec.sweep.model_copy(update={"n_controls": self.n_controls})
        metrics = self.spec.metrics[:1]
        return Measurement(
            hooked(), sae, self.hook_name, tuple(prompts), spec, metrics, TemplateSpec()
        )

    @cached_property
    def gradient(self) -> Float[Tensor, " d_model"]:
        """g."""
        prompts = [p for p in ss.load_prompts("tiny-domains-heldout") if p.domain == "mixed"]
        check_disjoint(prompts, [*self.selecting, *self.steered])
        measurement = self.measurement(prompts)
        tokens, mask = measurement.unsteered_pass.padded
        of = measurement.logit_metrics[0].of
        found = resid_gradient(hooked(), tokens, mask, self.hook_name, lambda x: of(x, baseline=x))
        return normalize(found[:, -1].mean(0), dim=0)

    @cached_property
    def read_by_the_margin(self) -> Float[Tensor, " d_model"]:
        """u."""
        sets = self.measurement(self.steered).logit_metrics[0].sets
        assert sets is not None
        logits = direct_logits(hooked(), torch.eye(hooked().cfg.d_model))
        target, other = (logits[:, own].mean(1) for own in sets)
        return normalize((target - other).detach(), dim=0)

    @cached_property
    def control_rows(self) -> pd.DataFrame:
        """The controls on all steered prompts."""
        measurement = self.measurement(self.steered)
        tested = tested_directions(self.sae, measurement.spec.model_copy(update={"features": (0,)}))
        everything = with_controls(measurement, tested, self.activations)
        store = Store(self.store, digest(measurement.ids)) if self.store else NO_STORE
        say(f"{measurement.n_rows(everything)} rows of controls")
        rows = pd.concat(measurement.logit_tables(everything, store), ignore_index=True)
        return rows.loc[rows["family"] != CANDIDATE]

    def direction_finder(self, sae: SAE[Any]) -> DirectionFinder:
        """The ways of choosing features, as a run has them."""
        select = self.spec.select
        sides = (select.positive, select.negative)
        few = [[p for p in self.selecting if p.domain == s][: select.push_prompts] for s in sides]
        scoring = CausalScoring(self.measurement([p for own in few for p in own]), sae, *sides)
        return DirectionFinder(sae, self.activations, select, scoring)

    @cached_property
    def live(self) -> list[int]:
        """Features that fire at the assistant start of the selection prompts."""
        return [
            int(f)
            for f in self.direction_finder(self.sae).selection("mean_difference", 1).scores.index
        ]


def planted(lab: Lab, plant: str, number: int) -> Float[Tensor, " d_model"]:
    """The vector of a run."""
    known = lab.gradient
    if plant == "both":
        known = normalize(known + lab.read_by_the_margin, dim=0)
    noise = torch.randn(len(known), generator=torch.Generator().manual_seed(number))
    return normalize(known + normalize(noise, dim=0), dim=0)


def with_row(sae: SAE[Any], feature: int, vector: Float[Tensor, " d_model"]) -> SAE[Any]:
    """A copy of the SAE with another decoder row, of the old one's norm."""
    changed = copy.deepcopy(sae)
    row = changed.W_dec.data[feature]
    changed.W_dec.data[feature] = row.norm() * vector.to(row)
    return changed


def ranks(
    direction_finder: DirectionFinder, scores: Mapping[str, Selection], feature: int
) -> dict[str, int | None]:
    """The feature's place by each score, 1 the first: on the side that the vector pushes to, or for
    scores that know no vector's side on the one that it is listed on. None where it is on none."""
    towards = (
        direction_finder.sides[0]
        if direction_finder.scoring.outcome_sign > 0
        else direction_finder.sides[1]
    )
    found = dict[str, int | None]()
    for score, selection in scores.items():
        sided = score in ("direct_logit", "attribution")
        lists = [selection.candidates[s] for s in ([towards] if sided else direction_finder.sides)]
        found[score] = next((own.index(feature) + 1 for own in lists if feature in own), None)
    return found


def claim(lab: Lab, sae: SAE[Any], features: Sequence[int], number: int) -> pd.Series:
    """What a sweep of these features on prompts of this run says of the first."""
    chosen = np.random.default_rng(number).permutation(len(lab.steered))[: lab.n_prompts]
    measurement = lab.measurement([lab.steered[i] for i in sorted(chosen)], sae)
    tested = tested_directions(
        sae, measurement.spec.model_copy(update={"features": tuple(features)})
    )
    prompts = [p.id for p in measurement.prompts]
    controls = lab.control_rows.loc[lab.control_rows["prompt_id"].isin(prompts)]
    rows = pd.concat([measurement.logit_rows(tested), controls], ignore_index=True)
    return Result.of(measurement, rows, pd.DataFrame()).claims.iloc[0]


def run(lab: Lab, plant: str, number: int) -> dict[str, Any]:
    """Plant, choose, sweep: the feature, its rank by each score, and its claim."""
    order = np.random.default_rng(0).permutation(lab.live)
    feature = int(order[number % len(order)])
    sae = with_row(lab.sae, feature, planted(lab, plant, number))
    direction_finder = lab.direction_finder(sae)
    scores = {score: direction_finder.selection(score, len(lab.live)) for score in SCORES}
    by_logit = direction_finder.selection("direct_logit", lab.n_candidates // 2).features
    features = [feature, *(f for f in by_logit if f != feature)][: lab.n_candidates]
    found = claim(lab, sae, features, number)
    return {
        "feature": feature,
        **ranks(direction_finder, scores, feature),
        "candidates": len(features),
        **{name: found[name] for name in CLAIMED},
    }


def figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How often the planted feature is the first, by each score, and how often it is claimed."""
    table = pd.DataFrame(runs)
    ahead = {score: rate((table[score] == 1).to_numpy()) for score in SCORES}
    return {
        "runs": len(table),
        "candidates": sorted(set(table["candidates"])),
        "first_of_its_side": ahead,
        "median_rank": {score: _median(table[score]) for score in SCORES},
        "more_than_random": rate((table["verdict"] == PASSES).to_numpy()),
        "median_effect_over_control_quantile": _median(
            table["effect"].abs() / table["control_quantile"]
        ),
    }


def _median(values: Any) -> float | None:
    """Of those that there are."""
    known = values.dropna().to_numpy(dtype=float)
    return round(float(np.median(known)), 2) if len(known) else None


def trained(folder: Path) -> SAE[Any]:
    """The SAE of the default run: read from the folder if it is there, else trained into it."""
    if not folder.exists():
        ss.train_sae(hooked(), ss.TrainSpec(), ss.default_hook_name(hooked()), out=folder)
    return ss.load_sae(str(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--plant", choices=PLANTS, default="both")
    parser.add_argument("--work", type=Path, default=Path("runs/power"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lab, runs = Lab(trained(options.work / "sae"), store=options.work / "controls"), []
    for number in range(options.runs):
        runs.append(run(lab, options.plant, number))
        say(json.dumps(runs[-1]))
    print(json.dumps({"benchmark": "power", "plant": options.plant, **figures(runs)}))


if __name__ == "__main__":
    main()
