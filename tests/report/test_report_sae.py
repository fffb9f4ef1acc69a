"""The SAE in the report: its verdict first, its figures, its curves and its grid."""

import json

import pandas as pd
import pytest

from saelens_steer.report import build_report, frontier_figure
from saelens_steer.report.run_folder import read_run
from saelens_steer.report.sae import density_figure, sae_section, training_figure


def test_training_draws_what_was_logged():
    log = pd.DataFrame({"tokens": [0, 10], "loss": [2.0, 1.0], "l0": [9.0, 8.0]})
    assert [t.name for t in training_figure(log).data] == ["Loss", "L0"]


def test_held_out_activations_are_a_dotted_line_of_the_steps_they_were_measured_at():
    log = pd.DataFrame({"tokens": [0, 5, 10], "loss": [3.0, 2.0, 1.0]})
    log["held_out_loss"] = [3.5, None, 1.5]
    solid, dotted = training_figure(log).data
    assert (solid.line.dash, dotted.line.dash) == (None, "dot")
    assert list(dotted.x) == [0, 10] and list(dotted.y) == [3.5, 1.5]


def test_the_histogram_of_densities_has_a_bar_per_count_and_says_shares(synthetic):
    quality = synthetic.make_quality()
    [bars] = density_figure(quality).data
    assert list(bars.y) == quality["density"]["counts"]
    ticks = density_figure(quality).layout.xaxis
    assert list(ticks.ticktext) == ["0.01 %", "0.1 %", "1 %", "10 %"][: len(ticks.ticktext)]


def test_the_frontier_has_a_line_per_architecture_in_the_order_of_l0(synthetic):
    grid = synthetic.make_grid().iloc[::-1]
    traces = [t for t in frontier_figure(grid).data if t.showlegend]
    assert {t.name for t in traces} == {"topk", "&lt;img&gt;"}
    topk = next(t for t in traces if t.name == "topk")
    assert list(topk.x) == [8, 16] and list(topk.y) == [0.8, 0.9]
    assert "&lt;/script&gt;" in topk.text[0] and "loss recovered 0.8900" in topk.text[0]


@pytest.fixture
def doubtful(fresh_run, synthetic):
    """A run whose SAE has a fault."""
    judged = {"verdict": "Usable with care: 97 %.", "warnings": ["<b>crowded</b>: lower k"]}
    (fresh_run / "sae/quality.json").write_text(json.dumps(synthetic.make_quality() | judged))
    return fresh_run


def test_the_verdict_stands_first_and_its_warnings_are_text(doubtful):
    html = sae_section(read_run(doubtful))
    assert html.index("Usable with care") < html.index("Loss recovered") < html.index("Tokens")
    assert "&lt;b&gt;crowded&lt;/b&gt;: lower k" in html


def test_the_warnings_of_the_sae_stand_below_the_headline_too(doubtful):
    html = build_report(doubtful, "x").read_text(encoding="utf-8")
    assert html.index("Read with care") < html.index("crowded&lt;/b&gt;") < html.index("<main>")


def test_a_grid_is_drawn_where_there_is_one(fresh_run, synthetic):
    assert 'id="frontier"' not in sae_section(read_run(fresh_run))
    (fresh_run / "grid").mkdir()
    synthetic.make_grid().to_csv(fresh_run / "grid/grid.csv", index=False)
    page = build_report(fresh_run, "x").read_text(encoding="utf-8")
    assert 'id="frontier"' in page and "3 SAEs trained on the same activations" in page
    assert (fresh_run / "plots/frontier.html").is_file()
    assert "<img>" not in page and "</script>&quot;" not in page


@pytest.mark.parametrize("missing", ["density", "verdict", "warnings"])
def test_figures_of_an_earlier_version_are_shown_too(fresh_run, synthetic, missing):
    quality = {k: v for k, v in synthetic.make_quality().items() if k != missing}
    (fresh_run / "sae/quality.json").write_text(json.dumps(quality))
    assert "Loss recovered" in sae_section(read_run(fresh_run))
