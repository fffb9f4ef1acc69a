"""The SAE's candidates beside those of its frozen-decoder twin."""

from __future__ import annotations

from typing import Any

from saelens_steer.evidence import FAILS, PASSES
from saelens_steer.report.markup import Cell, esc, section, table
from saelens_steer.report.run_folder import Run, claims_on
from saelens_steer.report.theme import decimals, name_label, number

LEAD = (
    "An SAE of the same shape whose decoder stayed as it was drawn, at random, while its encoder "
    "was trained; features chosen by the same score, swept against controls of the same family. "
    "What it does as well is not owed to the training of the decoder."
)


def twin_section(run: Run) -> str:
    """The comparison with the twin, by metric; empty where the run has none."""
    if run.twin.empty:
        return ""
    metrics = [m for m in dict.fromkeys(run.twin["metric"]) if len(claims_on(run.claims, m))]
    headers = ["Metric", "More than random", "of the twin's", "Mean T", "of the twin's"]
    rows = [_row(run, metric) for metric in metrics]
    body = f"<p>{esc(twin_sentence(run, metrics[0]))}</p>" if metrics else ""
    return section(
        "twin", "The frozen-decoder twin", LEAD, body, table("Twin", headers, rows, sort=False)
    )


def twin_sentence(run: Run, metric: str) -> str:
    """How many of each SAE's candidates do more than random directions, and how far they reach."""
    (more, n, reach), (twin_more, twin_n, twin_reach) = (
        _found(claims, metric) for claims in (run.claims, run.twin)
    )
    places = decimals([reach, twin_reach])
    far = f"the mean T is {number(reach, places)} against {number(twin_reach, places)}"
    if more is None or twin_more is None:
        return f"With so few controls no count of either can be tested; {far}."
    return (
        f"{more} of {n} features move {metric} more than random directions do, and {twin_more} of "
        f"{twin_n} of the twin's; {far}."
    )


def _found(claims: Any, metric: str) -> tuple[int | None, int, float]:
    """Candidates that pass (None where they cannot be tested), candidates, and their mean T."""
    own: Any = claims_on(claims, metric)
    verdicts = list(own["verdict"])
    testable = all(verdict in (PASSES, FAILS) for verdict in verdicts)
    return verdicts.count(PASSES) if testable else None, len(own), float(own["T"].mean())


def _row(run: Run, metric: str) -> list[Cell]:
    found = [_found(claims, metric) for claims in (run.claims, run.twin)]
    places = decimals(reach for *_, reach in found)
    counts = [
        Cell("not testable", -1.0) if more is None else Cell(f"{more} of {n}", float(more))
        for more, n, _ in found
    ]
    reaches = [Cell(number(reach, places), reach) for *_, reach in found]
    return [Cell(f"<b>{esc(name_label(metric))}</b>", metric), *counts, *reaches]
