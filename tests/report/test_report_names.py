"""Metrics whose names differ have figures, tabs and rows of their own, whatever the names."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from synthetic import write_run

from saelens_steer.report import build_report
from saelens_steer.tables import write_csv

METRICS = ["kl", "KL", "a b", "a-b", "../up", "é" * 200, "CON", "007", "😀", "مرحبا"]


@pytest.mark.slow
def test_each_metric_has_its_own_figures_tabs_and_rows_in_a_report(tmp_path):
    folder = write_run(tmp_path / "run")
    summary, claims = (pd.read_csv(folder / f"{name}.csv") for name in ("interference", "claims"))
    old = claims["metric"].iloc[0]
    ends = [c for c in summary if c == old or c.startswith(f"{old}_")]
    kept = summary.drop(columns=[c for c in summary if c not in ends and "margin" in c])
    for name in METRICS:
        kept = kept.assign(**{c.replace(old, name, 1): summary[c] for c in ends})
    rows = [claims[claims["metric"] == old].assign(metric=name) for name in METRICS]
    write_csv(folder / "interference.csv", kept)
    write_csv(folder / "claims.csv", pd.concat(rows, ignore_index=True))
    page = build_report(folder, "All.").read_text()
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    tabs = re.findall(r'data-label="([^"]*)"', page)
    assert len(tabs) == len(set(tabs)) >= len(METRICS)
    plots = {file.name.lower() for file in (folder / "plots").glob("claims_*.html")}
    assert len(plots) == len(METRICS)
    assert {file.parent for file in folder.rglob("*.html")} == {folder, folder / "plots"}
