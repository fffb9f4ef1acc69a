"""What a run of the study answers, one-sided, as its plan fixes it.

`python -m scripts.smollm2.answer RUN` prints the primary endpoint against each family of controls,
and the claim on texts.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import pandas as pd

import saelens_steer as ss

OUTCOME, TEXT = "latex_if_no_fence", "finished_latex"


def p_of_harm(own: float, controls: Any) -> float:
    """(1 + the number of controls at or below the feature) / (1 + their number).

    An undefined control counts as at or below; NaN if the feature is undefined.
    """
    if math.isnan(own):
        return math.nan
    return (1 + int((~(controls > own)).sum())) / (1 + len(controls))


def changes(rows: pd.DataFrame, outcome: str = OUTCOME) -> pd.DataFrame:
    """By direction: its family, and the mean change of the outcome over prompts at α*."""
    keyed = rows.set_index(["direction", "family", "prompt_id"])
    at = [keyed.loc[keyed["alpha"] == alpha, outcome] for alpha in (0.0, rows["alpha"].max())]
    mean = (at[1] - at[0]).groupby(level=[0, 1]).mean()
    return mean.to_frame("change").reset_index()


def shares(texts: pd.DataFrame) -> pd.DataFrame:
    """By direction: its family, the share of finished answers with LaTeX at α*, how many are
    missing, and the share if all of these contain LaTeX (most) or none (least)."""
    steered = texts[texts["alpha"] == texts["alpha"].max()]
    has: Any = steered[TEXT].astype(float)
    columns = {"share": has, "missing": has.isna(), "most": has.fillna(1), "least": has.fillna(0)}
    table = pd.DataFrame({key: steered[key] for key in ("direction", "family")} | columns)
    kinds = {"share": "mean", "missing": "sum", "most": "mean", "least": "mean"}
    return table.groupby(["direction", "family"]).agg(kinds).reset_index()


def the_candidate(table: pd.DataFrame) -> Any:
    own = table[table["family"] == "candidate"]
    if len(own) != 1:
        raise SystemExit(f"the plan tests one feature, and the run has {len(own)}")
    return own.iloc[0]


def of_controls(table: pd.DataFrame) -> Any:
    return table.loc[table["family"] != "candidate"]


def main(run: str) -> None:
    result = ss.Result.load(run)
    claim: Any = result.claims.set_index("metric").loc[OUTCOME]
    change, share = changes(result.rows), shares(result.completions)
    own = float(the_candidate(change)["change"])
    interval = f"[{claim['ci_low']:+.3f}, {claim['ci_high']:+.3f}]"
    print(f"{OUTCOME} at α* = {result.rows['alpha'].max():g}: {own:+.3f} {interval}")
    for family, part in of_controls(change).groupby("family", sort=False)["change"]:
        p, about = p_of_harm(own, part), f"{len(part)} controls, mean {part.mean():+.3f}"
        primary = ", the primary endpoint" if family == result.controls else ""
        print(f"  {family}: p = {p:.3f}, {about}{primary}")
    text, controls = the_candidate(share), of_controls(share)
    p = p_of_harm(float(text["share"]), controls["share"])
    worst = p_of_harm(float(text["most"]), controls["least"])
    missing = f"{int(text['missing'])} missing ({controls['missing'].mean():.1f} per control)"
    print(f"{TEXT}: {text['share']:.2f} against {controls['share'].mean():.2f}, {missing}")
    print(f"  p = {p:.3f}, worst case {worst:.3f}, {len(controls)} controls")


if __name__ == "__main__":
    main(sys.argv[1])
