"""Control families and their matching, in a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from saelens_steer.config import parse_config
from saelens_steer.pipeline.run import run
from saelens_steer.run_folder import RunFolder

pytestmark = pytest.mark.slow

SMALL = [
    "sae.train.training_tokens=20000",
    "sae.train.d_sae=128",
    "prompts.limit=4",
    "select.k=2",
    "sweep.alphas=[-4,0,4]",
    "sweep.n_controls=9",
    "sweep.completions={max_new_tokens: 4, top: 1, n_controls: 1}",
    "metrics=[kl,{margin: {name: m, target: latex_delimiters}},latex_first]",
    "label=null",
]
TWO = "sweep.controls=[token_difference,feature]"


def made(folder: Path, *sets: str) -> Path:
    run(parse_config({}, [*SMALL, *sets]), folder, until="report")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("families") / "run", TWO)


def stamps(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.*") if p.is_file()}


def test_the_table_of_families_holds_both_and_claims_the_first(two):
    table = pd.read_csv(two / "controls.csv")
    assert list(table.columns) == [
        *("direction", "feature", "metric", "controls", "n_controls", "control_quantile"),
        *("p_value", "q_value", "verdict"),
    ]
    assert list(table["controls"].unique()) == ["token_difference", "feature"]
    claims = pd.read_csv(two / "claims.csv")
    assert set(claims["controls"]) == {"token_difference"}
    first = table[table["controls"] == "token_difference"].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, claims[first.columns])
    page = (two / "report.html").read_text(encoding="utf-8")
    assert "How the verdicts depend on the controls" in page
    assert "Claims are tested against token_difference controls." in page
    texts = [json.loads(line) for line in (two / "completions.jsonl").read_text().splitlines()]
    assert {t["family"] for t in texts} == {"candidate", "token_difference"}


def test_a_finished_sweep_is_left_alone_with_and_without_controls(two):
    before = stamps(two)
    made(two, TWO)
    after = stamps(two)
    kept = ("controls.csv", "claims.csv", "interference.csv", "report.html")
    assert all(before[name] == after[name] for name in kept)
    made(two, TWO, "sweep.n_controls=0")
    assert "controls.csv" in RunFolder(two).stale()
    before = stamps(two)
    made(two, TWO, "sweep.n_controls=0")
    assert stamps(two)["claims.csv"] == before["claims.csv"]


def test_another_way_of_matching_is_never_served_what_was_kept(tmp_path):
    folder = made(tmp_path / "run")
    rows = pd.read_parquet(folder / "sweep")
    assert "matched_to" not in rows
    by_kl = pd.read_parquet(made(folder, "sweep.match=kl") / "sweep")
    means = by_kl.query("alpha != 0").groupby(["direction", "alpha"])["kl"].mean()
    whose = by_kl.dropna(subset="matched_to").drop_duplicates("direction")
    assert len(whose) == 9 * by_kl.query("family == 'candidate'")["direction"].nunique()
    for row in whose.itertuples():
        for alpha in (-4.0, 4.0):
            candidate = means[row.matched_to, alpha]
            assert means[row.direction, alpha] == pytest.approx(candidate, rel=0.021, abs=1.1e-6)
    assert (pd.read_csv(folder / "claims.csv")["n_controls"] <= 9).all()
    again = pd.read_parquet(made(folder, "sweep.match=norm") / "sweep")
    pd.testing.assert_frame_equal(again, rows)
