"""Claims side by side: families of controls, and the frozen-decoder baseline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from saelens_steer.evidence import FAILS, PASSES, UNMEASURED
from saelens_steer.report.markup import TableCell, esc, section, table
from saelens_steer.report.run_folder import RunTables, claims_on
from saelens_steer.report.theme import decimals, name_label, number

TITLE = "How the answer changes with the controls"
LEAD = (
    "An SAE of the same shape whose decoder stayed as it was drawn, at random, while its encoder "
    "was trained; features chosen by the same score, swept against controls of the same family. "
    "What it does as well is not owed to the training of the decoder."
)


def families_table(run: RunTables) -> str:
    """For each family: how many controls, how far they reach on the main metric, and how many
    directions do more on each metric of logits. Empty unless there are several families."""
    families = list(dict.fromkeys(run.by_family["controls"])) if len(run.by_family) else []
    if len(families) < 2 or not run.logit_metrics:
        return ""
    measured = run.by_family.loc[run.by_family["verdict"] != UNMEASURED]
    on_main = measured.loc[measured["metric"] == run.logit_metrics[0]]
    places = decimals(on_main["control_quantile"].dropna())
    rows = []
    for family in families:
        main = on_main.loc[on_main["controls"] == family]
        cells = [
            TableCell(f"<b>{esc(family)}</b>", family),
            _span(main["n_controls"], 0),
            _span(main["control_quantile"].dropna(), places),
        ]
        for metric in run.logit_metrics:
            of_family = (measured["controls"] == family) & (measured["metric"] == metric)
            verdicts = list(measured.loc[of_family, "verdict"])
            tested = sum(verdict in (PASSES, FAILS) for verdict in verdicts)
            cells.append(_passing(verdicts, tested or None))
        rows.append(cells)
    labels = [name_label(metric) for metric in run.logit_metrics]
    headers = ["Controls", "How many", f"{labels[0]}: 95\u00a0% of them"]
    headers += [f"{label}: more than random" for label in labels]
    return f"<h3>{esc(TITLE)}</h3>{table(TITLE, headers, rows)}"


def _span(values: pd.Series, places: int) -> TableCell:
    """One number, or the smallest and the largest if candidates differ."""
    if values.empty:
        return TableCell("–", float("-inf"))
    ends = dict.fromkeys(number(float(end), places) for end in (values.min(), values.max()))
    return TableCell(esc(" to ".join(ends)), float(values.max()))


def _passing(verdicts: list[str], n_tested: int | None) -> TableCell:
    """How many directions do more than random, of those that can be tested (None: not testable)."""
    if n_tested is None:
        return TableCell("not testable", -1.0)
    more = verdicts.count(PASSES)
    return TableCell(f"{more} of {n_tested}", float(more))


def baseline_section(run: RunTables) -> str:
    """The comparison with the baseline, by metric; empty if the run has none."""
    if run.baseline.empty:
        return ""
    metrics = [m for m in dict.fromkeys(run.baseline["metric"]) if len(claims_on(run.claims, m))]
    rows, sentence = [], ""
    for metric in metrics:
        both: list[Any] = [claims_on(c, metric) for c in (run.claims, run.baseline)]
        tested = [len(own) if _testable(own) else None for own in both]
        counts = [_passing(list(own["verdict"]), n) for own, n in zip(both, tested, strict=True)]
        reaches = [float(own["T"].mean()) for own in both]
        places = decimals(reaches)
        cells = [TableCell(number(reach, places), reach) for reach in reaches]
        rows.append([TableCell(f"<b>{esc(name_label(metric))}</b>", metric), *counts, *cells])
        sentence = sentence or f"<p>{esc(_baseline_sentence(both[0], both[1], metric))}</p>"
    headers = ["Metric", "More than random", "of the baseline's", "Mean T", "of the baseline's"]
    compared = table("Frozen-decoder baseline", headers, rows, sort=False)
    return section(
        "frozen_decoder_baseline", "The frozen-decoder baseline", LEAD, sentence, compared
    )


def _baseline_sentence(own: Any, baseline: Any, metric: str) -> str:
    """How many of each SAE's candidates do more than random directions, and how far they reach."""
    reach, baseline_reach = float(own["T"].mean()), float(baseline["T"].mean())
    places = decimals([reach, baseline_reach])
    far = f"the mean T is {number(reach, places)} against {number(baseline_reach, places)}"
    if not (_testable(own) and _testable(baseline)):
        return f"With so few controls no count of either can be tested; {far}."
    more, baseline_more = (list(claims["verdict"]).count(PASSES) for claims in (own, baseline))
    return (
        f"{more} of {len(own)} features move {metric} more than random directions do, and "
        f"{baseline_more} of {len(baseline)} of the baseline's; {far}."
    )


def _testable(claims: pd.DataFrame) -> bool:
    return all(verdict in (PASSES, FAILS) for verdict in claims["verdict"])
