"""How often the chain claims an effect where there is none: `python -m benchmarks.calibration`.

Ten directions of a family stand in the features' place and 256 others of the same family are their
controls, on eight prompts; all three are drawn anew in each of 200 resamples, by seeds of their
own. What follows is what a run does: the rows of a sweep on the tiny model, T, p and q, verdicts,
and the sentence of the headline. Whatever is claimed is false by construction.

Where `--controls` names another family than `--candidates`, the null is a wrong one, and the
figures are what that does. `--out` keeps each resample in a Parquet file: the same command goes on
where it was stopped. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import saelens_steer as ss
from benchmarks.rates import mean_share, rate
from benchmarks.side_by_side import hooked, say
from saelens_steer.activations import Activations
from saelens_steer.config import SweepSpec, TemplateSpec
from saelens_steer.data import Prompt
from saelens_steer.directions import with_controls
from saelens_steer.evidence import PASSES, headline
from saelens_steer.evidence.claims import LEVEL
from saelens_steer.evidence.statistics import headline_p
from saelens_steer.files import write_with
from saelens_steer.pipeline.result import Result
from saelens_steer.steering import CANDIDATE, plain_directions
from saelens_steer.sweeps import Measurement

BELOW, CLAIMED = (0.03, 0.06), (0.0, 0.07)
"""Where the share of p < 0.05, and of resamples with a claim, must lie if the null is right."""
CLAIM = re.compile(r"do as much \(p = |do more than random directions \(q < ")
"""What the headline says where it claims an effect; all its other endings deny one."""


@dataclass(frozen=True)
class Null:
    """A run in which nothing is to be found, but for what its seeds decide."""

    candidates: str = "covariance"
    controls: str = "covariance"
    n_candidates: int = 10
    n_controls: int = 256
    n_prompts: int = 8
    alphas: tuple[float, ...] = (-4.0, 4.0)

    @cached_property
    def hook_name(self) -> str:
        return ss.default_hook_name(hooked())

    @cached_property
    def activations(self) -> Activations:
        """What families of controls are drawn from, as in the default run."""
        return ss.cache_activations(
            hooked(), ss.load_prompts("tiny-domains"), hook_name=self.hook_name
        )

    def prompts(self, number: int) -> tuple[Prompt, ...]:
        """Other steered prompts for each resample."""
        known = ss.load_prompts("tiny-code-math-mixed")
        chosen = np.random.default_rng(number).permutation(len(known))[: self.n_prompts]
        return tuple(known[i] for i in sorted(chosen))

    def result(self, number: int) -> Result:
        """One resample: candidates from an even seed, controls from the odd one after it."""
        drawn = ss.draw_controls(
            self.candidates,
            self.n_candidates,
            d_model=hooked().cfg.d_model,
            seed=2 * number,
            vectors=self.activations,
        )
        spec = SweepSpec(
            alphas=self.alphas,
            controls=self.controls,
            n_controls=self.n_controls,
            seed=2 * number + 1,
        )
        metrics, prompts = ss.RunSpec().metrics[:1], self.prompts(number)
        measurement = Measurement(
            hooked(), None, self.hook_name, prompts, spec, metrics, TemplateSpec()
        )
        everything = with_controls(measurement, plain_directions(drawn), self.activations)
        return Result.of(measurement, measurement.logit_rows(everything), pd.DataFrame())


def counted(claims: pd.DataFrame, summary: pd.DataFrame) -> dict[str, Any]:
    """What is claimed: candidates with p < 0.05, those with a verdict, and the sentence."""
    sentence = headline(claims, summary)
    return {
        "candidates": len(claims),
        "below": int(np.sum(claims["p_value"].to_numpy() < LEVEL)),
        "passing": list(claims["verdict"]).count(PASSES),
        "p_best": p_best(summary, str(claims["metric"].iloc[0])),
        "claimed": bool(CLAIM.search(sentence)),
        "headline": sentence,
    }


def p_best(summary: pd.DataFrame, metric: str) -> float:
    """The p of the best candidate against the best of as many controls (see `headline_p`)."""
    tested = summary["family"] == CANDIDATE
    own, others = (
        summary.loc[part, f"{metric}_delta"].abs().groupby(summary["direction"]).max().to_numpy()
        for part in (tested, ~tested)
    )
    return headline_p(own, others)


def resampled(null: Null, resamples: int, out: Path | None = None) -> pd.DataFrame:
    """One row for each resample; those that `out` has are read from it, new ones written to it."""
    setting = json.dumps(asdict(null))
    rows = _kept(out, setting)
    for number in range(len(rows), resamples):
        result = null.result(number)
        found = counted(result.claims, result.summary)
        rows.append({"resample": number, "setting": setting, **found})
        if out:
            write_with(out, pd.DataFrame(rows).to_parquet)
        if (number + 1) % 10 == 0:
            say(f"{number + 1} of {resamples} resamples")
    return pd.DataFrame(rows[:resamples])


def _kept(out: Path | None, setting: str) -> list[dict[str, Any]]:
    if out is None or not out.exists():
        return []
    rows = pd.read_parquet(out).to_dict("records")
    if any(row["setting"] != setting for row in rows):
        raise SystemExit(f"{out} holds resamples of other settings: name another file")
    return rows


def figures(found: pd.DataFrame) -> dict[str, Any]:
    """Shares with their 95 % intervals."""
    return {
        "resamples": len(found),
        "p_below_5_percent": mean_share((found["below"] / found["candidates"]).to_numpy()),
        "headline_claims": rate(found["claimed"].to_numpy()),
        "p_best_below_5_percent": rate((found["p_best"] < LEVEL).to_numpy()),
    }


def holds(found: dict[str, Any]) -> bool:
    """Whether both shares lie where a right null keeps them."""
    ends = zip(("p_below_5_percent", "headline_claims"), (BELOW, CLAIMED), strict=True)
    return all(low <= found[name]["share"] <= high for name, (low, high) in ends)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", default="covariance", help="a family")
    parser.add_argument("--controls", default="covariance", help="a family")
    parser.add_argument("--n-controls", type=int, default=256)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    null = Null(
        options.candidates,
        options.controls,
        n_controls=options.n_controls,
        n_prompts=options.prompts,
    )
    found = figures(resampled(null, options.resamples, options.out))
    print(json.dumps({"benchmark": "calibration", **asdict(null), **found, "holds": holds(found)}))


if __name__ == "__main__":
    main()
