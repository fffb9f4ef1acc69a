"""A run that compares: its tables, the same bytes twice, and what is refused before any work."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from processes import finished

from saelens_steer.config import RunSpec
from saelens_steer.errors import InputError
from saelens_steer.pipeline.run import run as run_spec
from saelens_steer.run_folder import RunFolder

pytestmark = pytest.mark.slow

CONFIG = "configs/tiny/believe.yaml"
ROOT = Path(__file__).parents[2]
SMALL = [
    "sae={train: {d_sae: 128, training_tokens: 20000}, frozen_decoder_baseline: true}",
    "prompts.limit=5",
    "select.k=2",
    "sweep.n_controls=90",
    "sweep.alphas=[-8,0,8]",
    "sweep.controls=[covariance,token_difference]",
    "sweep.completions.max_new_tokens=12",
    "compare_directions.methods=[mean_difference@answer,direct_logit,linear_probe]",
    "compare_directions.k=2",
    "tradeoffs.directions=[direct_logit,difference_of_means]",
    "tradeoffs.top=1",
    "tradeoffs.edits=[add,{add: {keep_norm: true}, positions: last},"
    "{add: {gate: probe}, positions: last},set_to]",
    "tradeoffs.alphas=[0.25]",
    "tradeoffs.limit=2",
    "tradeoffs.max_new_tokens=6",
    "label=null",
]
TABLES = (
    "interference.csv",
    "claims.csv",
    "controls.csv",
    "comparison.csv",
    "tradeoffs_by_domain.csv",
    "tradeoffs.csv",
    "frozen_decoder_baseline/claims.csv",
    "completions.jsonl",
)


def command(out: Path, *overrides: str, step: str = "run") -> list[str]:
    sets = [part for pair in (*SMALL, *overrides) for part in ("--set", pair)]
    base = [sys.executable, "-m", "saelens_steer.cli", step, str(ROOT / CONFIG)]
    return [*base, "--out", str(out), *sets]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("effects") / "first"
    assert finished(command(folder)).strip().splitlines()[-1] == str(folder / "report.html")
    return folder


@pytest.mark.nightly
def test_the_same_seed_gives_the_same_bytes(run, tmp_path):
    again = tmp_path / "second"
    finished(command(again))
    for name in TABLES:
        assert (run / name).read_bytes() == (again / name).read_bytes(), name


def test_the_candidates_are_those_of_the_score(run):
    features = json.loads((run / "features.json").read_text(encoding="utf-8"))
    assert features["score"] == "direct_logit"
    for side in ("code", "math"):
        own = [features["scores"][str(f)]["direct_logit"] for f in features[f"{side}_candidates"]]
        assert own == sorted(own, reverse=side == "math")  # towards maths the margin grows


def test_the_comparison_holds_every_way_and_asking(run):
    table = pd.read_csv(run / "comparison.csv")
    assert set(table["method"]) == {
        "mean_difference@answer",
        "direct_logit",
        "linear_probe",
        "asking",
    }
    assert set(table["side"]) == {"code", "math", "both"}


def test_the_front_has_a_row_for_each_pair_and_strength(run):
    front = pd.read_csv(run / "tradeoffs.csv")
    pairs = front.groupby(["direction", "edit"])
    assert len(pairs) == 7  # set_to is for features alone
    assert all(set(own["kind"]) == {"grid", "equal_effect"} for _, own in pairs)
    assert set(pd.read_csv(run / "tradeoffs_by_domain.csv")["domain"]) == {
        "mixed",
        "code",
        "math",
        "prose",
        "transport",
    }


def test_the_baseline_has_an_untrained_decoder_and_claims_against_the_same_controls(run):
    ours, baselines = (
        pd.read_csv(run / folder / "claims.csv") for folder in (".", "frozen_decoder_baseline")
    )
    assert len(baselines["direction"].unique()) == 4
    columns = ["control_quantile", "n_controls"]
    for metric in ("math_margin", "kl"):
        pair = [t[t["metric"] == metric][columns].drop_duplicates() for t in (ours, baselines)]
        assert pair[0].to_numpy().tolist() == pair[1].to_numpy().tolist()
    about = json.loads(
        (run / "frozen_decoder_baseline" / "sae" / "cfg.json").read_text(encoding="utf-8")
    )
    assert about["metadata"]["frozen_decoder"] is True


def test_the_report_shows_each_comparison(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    for name in ("compare_directions", "tradeoffs", "frozen_decoder_baseline"):
        assert f'<section id="{name}">' in page


def test_the_files_of_a_comparison_left_out_are_stale(run, tmp_path):
    folder = tmp_path / "shorter"
    shutil.copytree(run, folder)
    finished(command(folder, "compare_directions=null", "tradeoffs=null"))
    stale = ["comparison.csv", "comparison_rows.parquet", "plots/compare_directions.html"]
    stale += [f"plots/tradeoffs{end}.html" for end in ("", "_by_domain")]
    stale += [f"tradeoffs{end}" for end in (".csv", "_by_domain.csv", "_rows.parquet")]
    assert RunFolder(folder).stale() == sorted(stale)
    assert (folder / "tradeoffs.csv").read_bytes() == (run / "tradeoffs.csv").read_bytes()
    assert (folder / "claims.csv").read_bytes() == (run / "claims.csv").read_bytes()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<section id="compare_directions">' not in page


def test_what_does_not_fit_is_refused_before_any_work(tmp_path):
    for change, said in (
        ({"tradeoffs": {"target": "prose"}}, "must be code or math"),
        ({"tradeoffs": {"domain": "poems"}}, "needs prompts of domain 'poems'"),
        ({"tradeoffs": {}, "metrics": ["latex_first"]}, "should include a logit metric"),
        ({"tradeoffs": {"prompts": "tiny-domains", "domain": "prose"}}, "both steered and used"),
    ):
        with pytest.raises(InputError, match=said):
            run_spec(RunSpec(**change), tmp_path / "run", until="tradeoffs")


def test_unknown_ways_and_edits_name_what_would_be_right():
    for change, said in (
        ({"compare_directions": {"methods": ["direct_logits"]}}, "did you mean 'direct_logit'"),
        (
            {"compare_directions": {"methods": ["direct_logit@answer"]}},
            "only mean_difference, auroc",
        ),
        ({"tradeoffs": {"edits": ["addd"]}}, "did you mean 'add'"),
        ({"tradeoffs": {"edits": [{"add": {"gate": "probe"}}]}}, "positions: last"),
        ({"tradeoffs": {"alphas": [-1]}}, "above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            RunSpec(**change)
