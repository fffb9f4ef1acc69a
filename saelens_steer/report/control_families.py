"""How the answer changes with the controls: one row per family of them."""

from __future__ import annotations

import pandas as pd

from saelens_steer.evidence import FAILS, PASSES, UNMEASURED
from saelens_steer.report.markup import Cell, esc, table
from saelens_steer.report.run_folder import Run, column, where
from saelens_steer.report.theme import decimals, name_label, number

TITLE = "How the answer changes with the controls"


def families_lead(run: Run) -> str:
    """Which family claims are held against, as a sentence that follows another; or nothing."""
    named = list(run.claims["controls"].dropna()) if "controls" in run.claims else []
    return f" Claims are held against {named[0]} controls." if named else ""


def families_table(run: Run) -> str:
    """For each family: how many controls, how far they reach on the main metric, and how many
    directions do more on each metric of logits. Empty where there are not several families."""
    families = list(dict.fromkeys(run.by_family["controls"])) if len(run.by_family) else []
    if len(families) < 2 or not run.logit_metrics:
        return ""
    labels = [name_label(metric) for metric in run.logit_metrics]
    headers = ["Controls", "How many", f"{labels[0]}: 95\u00a0% of them"]
    headers += [f"{label}: more than random" for label in labels]
    places = decimals(_on(run.by_family, run.logit_metrics[0])["control_quantile"].dropna())
    rows = [_row(run, family, places) for family in families]
    return f"<h3>{esc(TITLE)}</h3>{table(TITLE, headers, rows)}"


def _row(run: Run, family: str, places: int) -> list[Cell]:
    own = where(run.by_family, column(run.by_family, "controls") == family)
    main = _on(own, run.logit_metrics[0])
    cells = [
        _span(column(main, "n_controls"), 0),
        _span(column(main, "control_quantile").dropna(), places),
    ]
    counts = [_passing(_on(own, metric)) for metric in run.logit_metrics]
    return [Cell(f"<b>{esc(family)}</b>", family), *cells, *counts]


def _on(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of the candidates that were measured on one metric."""
    measured = column(table, "verdict") != UNMEASURED
    return where(table, measured & (column(table, "metric") == metric))


def _span(values: pd.Series, places: int) -> Cell:
    """One number, or the smallest and the largest where candidates differ."""
    if values.empty:
        return Cell("–", float("-inf"))
    ends = dict.fromkeys(number(float(end), places) for end in (values.min(), values.max()))
    return Cell(esc(" to ".join(ends)), float(values.max()))


def _passing(own: pd.DataFrame) -> Cell:
    """How many directions do more than these controls, of those that can be tested."""
    verdicts = list(own["verdict"])
    more, tested = verdicts.count(PASSES), sum(v in (PASSES, FAILS) for v in verdicts)
    return Cell(f"{more} of {tested}" if tested else "not testable", float(more if tested else -1))
