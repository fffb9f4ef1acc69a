"""Claims beside each other: control families, and the frozen-decoder baseline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from saelens_steer.evidence import FAILS, PASSES, UNMEASURED
from saelens_steer.report.markup import TableCell, esc, section, table
from saelens_steer.report.run_folder import RunTables, claims_on, column, where
from saelens_steer.report.theme import decimals, name_label, number

TITLE = "How the answer changes with the controls"


def families_lead(run: RunTables) -> str:
    """Which family claims are held against, as a sentence that follows another; or nothing."""
    named = list(run.claims["controls"].dropna()) if "controls" in run.claims else []
    return f" Claims are held against {named[0]} controls." if named else ""


def families_table(run: RunTables) -> str:
    """For each family: how many controls, how far they reach on the main metric, and how many
    directions do more on each metric of logits. Empty where there are not several families."""
    families = list(dict.fromkeys(run.by_family["controls"])) if len(run.by_family) else []
    if len(families) < 2 or not run.logit_metrics:
        return ""
    labels = [name_label(metric) for metric in run.logit_metrics]
    headers = ["Controls", "How many", f"{labels[0]}: 95\u00a0% of them"]
    headers += [f"{label}: more than random" for label in labels]
    places = decimals(_on(run.by_family, run.logit_metrics[0])["control_quantile"].dropna())
    rows = [_family_row(run, family, places) for family in families]
    return f"<h3>{esc(TITLE)}</h3>{table(TITLE, headers, rows)}"


def _family_row(run: RunTables, family: str, places: int) -> list[TableCell]:
    own = where(run.by_family, column(run.by_family, "controls") == family)
    main = _on(own, run.logit_metrics[0])
    cells = [
        _span(column(main, "n_controls"), 0),
        _span(column(main, "control_quantile").dropna(), places),
    ]
    counts = [_passing(_on(own, metric)) for metric in run.logit_metrics]
    return [TableCell(f"<b>{esc(family)}</b>", family), *cells, *counts]


def _on(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of the candidates that were measured on one metric."""
    measured = column(table, "verdict") != UNMEASURED
    return where(table, measured & (column(table, "metric") == metric))


def _span(values: pd.Series, places: int) -> TableCell:
    """One number, or the smallest and the largest where candidates differ."""
    if values.empty:
        return TableCell("–", float("-inf"))
    ends = dict.fromkeys(number(float(end), places) for end in (values.min(), values.max()))
    return TableCell(esc(" to ".join(ends)), float(values.max()))


def _passing(own: pd.DataFrame) -> TableCell:
    """How many directions do more than these controls, of those that can be tested."""
    verdicts = list(own["verdict"])
    more, tested = verdicts.count(PASSES), sum(v in (PASSES, FAILS) for v in verdicts)
    return TableCell(
        f"{more} of {tested}" if tested else "not testable", float(more if tested else -1)
    )


LEAD = (
    "An SAE of the same shape whose decoder stayed as it was drawn, at random, while its encoder "
    "was trained; features chosen by the same score, swept against controls of the same family. "
    "What it does as well is not owed to the training of the decoder."
)


def baseline_section(run: RunTables) -> str:
    """The comparison with the baseline, by metric; empty where the run has none."""
    if run.baseline.empty:
        return ""
    metrics = [m for m in dict.fromkeys(run.baseline["metric"]) if len(claims_on(run.claims, m))]
    headers = ["Metric", "More than random", "of the baseline's", "Mean T", "of the baseline's"]
    rows = [_baseline_row(run, metric) for metric in metrics]
    body = f"<p>{esc(twin_sentence(run, metrics[0]))}</p>" if metrics else ""
    return section(
        "frozen_decoder_baseline",
        "The frozen-decoder baseline",
        LEAD,
        body,
        table("Twin", headers, rows, sort=False),
    )


def twin_sentence(run: RunTables, metric: str) -> str:
    """How many of each SAE's candidates do more than random directions, and how far they reach."""
    (more, n, reach), (twin_more, twin_n, twin_reach) = (
        _found(claims, metric) for claims in (run.claims, run.baseline)
    )
    places = decimals([reach, twin_reach])
    far = f"the mean T is {number(reach, places)} against {number(twin_reach, places)}"
    if more is None or twin_more is None:
        return f"With so few controls no count of either can be tested; {far}."
    return (
        f"{more} of {n} features move {metric} more than random directions do, and {twin_more} of "
        f"{twin_n} of the baseline's; {far}."
    )


def _found(claims: Any, metric: str) -> tuple[int | None, int, float]:
    """Candidates that pass (None where they cannot be tested), candidates, and their mean T."""
    own: Any = claims_on(claims, metric)
    verdicts = list(own["verdict"])
    testable = all(verdict in (PASSES, FAILS) for verdict in verdicts)
    return verdicts.count(PASSES) if testable else None, len(own), float(own["T"].mean())


def _baseline_row(run: RunTables, metric: str) -> list[TableCell]:
    found = [_found(claims, metric) for claims in (run.claims, run.baseline)]
    places = decimals(reach for *_, reach in found)
    counts = [
        TableCell("not testable", -1.0)
        if more is None
        else TableCell(f"{more} of {n}", float(more))
        for more, n, _ in found
    ]
    reaches = [TableCell(number(reach, places), reach) for *_, reach in found]
    return [TableCell(f"<b>{esc(name_label(metric))}</b>", metric), *counts, *reaches]
