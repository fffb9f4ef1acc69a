"""Claims compared: across families of controls, and with the frozen-decoder baseline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from saelens_steer.evidence import FAILS, PASSES, UNMEASURED
from saelens_steer.report.markup import render
from saelens_steer.report.run_folder import RunTables, claims_on
from saelens_steer.report.theme import decimals, number

Sorted = tuple[float, str]
"""The number by which a cell sorts, and what it shows."""


def families_table(run: RunTables) -> dict[str, Any]:
    """For each family: the number of controls, their 95th percentile of T on the main metric, and
    how many directions exceed them on each logit metric. Empty for fewer than two families."""
    families = list(dict.fromkeys(run.by_family["controls"])) if len(run.by_family) else []
    if len(families) < 2 or not run.logit_metrics:
        return {}
    measured = run.by_family.loc[run.by_family["verdict"] != UNMEASURED]
    on_main = measured.loc[measured["metric"] == run.logit_metrics[0]]
    places = decimals(on_main["control_quantile"].dropna())
    rows = []
    for family in families:
        main = on_main.loc[on_main["controls"] == family]
        own = measured.loc[measured["controls"] == family]
        verdicts = [list(own.loc[own["metric"] == m, "verdict"]) for m in run.logit_metrics]
        row = {
            "family": family,
            "counts": _span(main["n_controls"], 0),
            "ends": _span(main["control_quantile"].dropna(), places),
            "passing": [_passing(of_metric) for of_metric in verdicts],
        }
        rows.append(row)
    return {"metrics": run.logit_metrics, "rows": rows}


def _span(values: pd.Series, places: int) -> Sorted:
    """One number, or the smallest and the largest if candidates differ."""
    if values.empty:
        return float("-inf"), "–"
    ends = dict.fromkeys(number(float(end), places) for end in (values.min(), values.max()))
    return float(values.max()), " to ".join(ends)


def _passing(verdicts: list[str]) -> Sorted:
    """How many of the testable directions do more than random."""
    more, tested = verdicts.count(PASSES), sum(verdict in (PASSES, FAILS) for verdict in verdicts)
    return (float(more), f"{more} of {tested}") if tested else (-1.0, "not testable")


def baseline_section(run: RunTables) -> str:
    """The comparison with the baseline, by metric; empty if the run has none."""
    if run.baseline.empty:
        return ""
    rows, sentence = [], ""
    for metric in dict.fromkeys(run.baseline["metric"]):
        both: list[Any] = [claims_on(c, metric) for c in (run.claims, run.baseline)]
        if both[0].empty:
            continue
        reaches = [float(own["T"].mean()) for own in both]
        counts = [_passing(list(own["verdict"]) if _testable(own) else []) for own in both]
        rows.append((metric, counts, reaches, decimals(reaches)))
        sentence = sentence or _baseline_sentence(both[0], both[1], metric)
    return render("baseline.html", rows=rows, sentence=sentence)


def _baseline_sentence(own: Any, baseline: Any, metric: str) -> str:
    """How many candidates of each SAE do more than random directions, and their mean T."""
    reach, baseline_reach = float(own["T"].mean()), float(baseline["T"].mean())
    places = decimals([reach, baseline_reach])
    far = f"the mean T is {number(reach, places)} against {number(baseline_reach, places)}"
    if not (_testable(own) and _testable(baseline)):
        return f"There are too few controls to test the counts; {far}."
    more, baseline_more = (list(claims["verdict"]).count(PASSES) for claims in (own, baseline))
    return (
        f"{more} of {len(own)} features move {metric} more than random directions do, and "
        f"{baseline_more} of {len(baseline)} of the baseline's; {far}."
    )


def _testable(claims: pd.DataFrame) -> bool:
    return all(verdict in (PASSES, FAILS) for verdict in claims["verdict"])
