"""Laws of the figures: the band is the controls', grey means no more than random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from saelens_steer.errors import InputError
from saelens_steer.numbers import decimals, number, short
from saelens_steer.report import interference_figure
from saelens_steer.report.figures import claims_figure, scores_figure, validity_figure
from saelens_steer.report.method import selection_section
from saelens_steer.report.run_folder import read_run
from saelens_steer.report.theme import NULL, SIDE_COLOURS, name_label
from saelens_steer.steering import direction_label


@pytest.fixture(scope="session")
def run(run_dir):
    return read_run(run_dir)


def named(figure, text):
    return [trace for trace in figure.data if text in (trace.name or "")]


def test_the_band_is_the_controls_quantiles(run):
    figure = interference_figure(run.summary, "math_margin", claims=run.claims, sides=run.sides)
    (band,) = named(figure, "5–95 %")
    at = run.summary[(run.summary["family"] != "candidate") & (run.summary["alpha"] == 4.0)]
    low, high = np.quantile(at["math_margin_delta"], [0.05, 0.95])
    drawn = [y for x, y in zip(band.x, band.y, strict=True) if x == 4.0]
    assert sorted(drawn) == pytest.approx([low, high])
    assert named(figure, "controls, median") and named(figure, "controls, all")


def test_every_candidate_has_a_line(run):
    figure = interference_figure(run.summary, "kl", claims=run.claims, sides=run.sides)
    assert len([t for t in figure.data if t.mode == "lines+markers"]) == 20


def test_candidates_no_more_than_random_are_grey_and_the_others_are_not(run):
    figure = interference_figure(run.summary, "math_margin", claims=run.claims, sides=run.sides)
    own = run.claims[run.claims["metric"] == "math_margin"]
    null = [t for t in named(figure, "no more than random") if t.line.color == NULL]
    assert len(null) == (own["verdict"] == "no more than random").sum()
    assert {t.line.color for t in named(figure, "candidates, more")} == set(SIDE_COLOURS[:2])


def test_the_legend_names_each_group_once(run):
    figure = interference_figure(run.summary, "math_margin", claims=run.claims, sides=run.sides)
    names = [t.name for t in figure.data if t.showlegend is not False]
    assert len(names) == len(set(names)) <= 7


def test_error_bars_are_the_bootstrap_interval(run):
    figure = interference_figure(run.summary, "math_margin", claims=run.claims, sides=run.sides)
    strong = [t for t in figure.data if t.error_y.array is not None]
    assert len(strong) == 4
    for trace in strong:
        low, high = np.array([list(pair) for pair in trace.customdata], dtype=float).T
        assert np.array(trace.y) + np.array(trace.error_y.array) == pytest.approx(high)
        assert np.array(trace.y) - np.array(trace.error_y.arrayminus) == pytest.approx(low)


def test_labels_at_line_ends_do_not_overlap(run):
    figure = interference_figure(run.summary, "math_margin", claims=run.claims, sides=run.sides)
    heights = sorted(a.y for a in figure.layout.annotations)
    assert len(heights) == 4 and min(np.diff(heights)) > 0.05


def test_a_dose_response_needs_neither_claims_nor_sides_nor_controls(run):
    alone = run.summary[run.summary["direction"] == "feature_12"]
    figure = interference_figure(alone, "kl")
    assert len(figure.data) == 1


def test_an_unknown_metric_is_refused_with_the_known_ones(run):
    with pytest.raises(InputError, match="math_margin, kl"):
        interference_figure(run.summary, "margin")
    with pytest.raises(InputError, match="latex_first"):
        validity_figure(run.summary, ["latex"], run.sides)


def test_validity_has_a_panel_per_column_and_only_directions_with_completions(run, synthetic):
    figure = validity_figure(run.summary, ["code_valid", "latex_first"], sides=run.sides)
    drawn = {t.name for t in figure.data}
    assert drawn == {direction_label(d) for d in synthetic.with_completions()}
    assert len(figure.data) == 2 * len(drawn)


def test_text_metrics_are_told_apart_by_what_was_measured(run, synthetic):
    assert run.text_metrics == list(synthetic.TEXT_METRICS)
    assert run.logit_metrics == ["math_margin", "kl"]


def test_claims_show_every_candidate_under_the_controls_distribution(run):
    figure = claims_figure(run.claims, run.summary, "math_margin", sides=run.sides)
    (histogram,) = (t for t in figure.data if t.type == "histogram")
    assert len(histogram.x) == 512
    assert sum(len(t.x) for t in figure.data if t.type == "scatter") == 20
    quantile = run.claims.loc[run.claims["metric"] == "math_margin", "control_quantile"].iloc[0]
    assert quantile in [shape.x0 for shape in figure.layout.shapes]


def test_controls_of_several_sizes_are_counted_once_and_marked_for_each_candidate(run):
    summary, claims = run.summary.copy(), run.claims.copy()
    candidate = summary["family"] == "candidate"
    again = summary[~candidate].assign(matched_norm=2.0)
    again["direction"] = again["direction"] + "_size1"
    summary = pd.concat([summary.assign(matched_norm=1.0 + 1e-8 * candidate), again])
    claims.loc[claims["direction"] == "feature_12", "control_quantile"] *= 2
    names = {t.name for t in interference_figure(summary, "math_margin", claims=claims).data}
    assert "512 covariance controls of 2 norms, all" in names
    (ticks,) = named(claims_figure(claims, summary, "math_margin", run.sides), "of its controls")
    assert len(ticks.x) == 20 and max(ticks.x) == pytest.approx(2 * min(ticks.x))


def test_controls_of_ones_own_are_counted_once_for_each_direction(run):
    summary = run.summary.copy()
    control = summary["family"] == "covariance"
    even = summary["direction"].str[-1].isin(list("02468"))
    whose = even.map({True: "feature_12", False: "feature_87"}).where(control)
    names = {t.name for t in interference_figure(summary.assign(matched_to=whose), "kl").data}
    assert "256 covariance controls of 2 directions, all" in names


def test_the_band_is_of_the_family_that_claims_compare_with(run):
    other = run.summary[run.summary["family"] == "covariance"].assign(family="isotropic")
    summary = pd.concat([run.summary, other])
    claims = run.claims.assign(controls="isotropic")
    (band,) = named(interference_figure(summary, "kl", claims=claims), "5–95 %")
    assert band.name == "512 isotropic controls, 5–95 %"


def test_scores_have_a_bar_per_candidate(run):
    figure = scores_figure(run.features)
    assert [len(t.x) for t in figure.data] == [10, 10]


def test_with_a_reference_each_side_shows_its_own_score_against_it(run):
    own = {"mean_difference": -1.0, "negative_mean_difference": 2.0}
    features = {
        **{"positive": "code", "negative": "math", "reference": "prose"},
        **{"score": "mean_difference", "code_candidates": [3], "math_candidates": [5]},
        **{"scores": {"3": {**own, "mean_difference": 4.0}, "5": own}, "at": "assistant_start"},
    }
    assert [list(t.x) for t in scores_figure(features).data] == [[4.0], [2.0]]
    section = selection_section(replace(run, features=features))
    assert "distinguish code and math, each from prose at" in " ".join(section.split())


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("math_margin", "Math margin"),
        ("kl", "KL"),
        ("latex_valid_present", "LaTeX valid (where present)"),
        ("my_own", "My own"),
    ],
)
def test_names_become_labels(name, label):
    assert name_label(name) == label


def test_numbers_are_written_with_a_true_minus_and_no_negative_zero():
    assert number(-0.5, 2) == "−0.50" and number(-0.0001, 2, signed=True) == "0.00"
    assert number(float("nan")) == "–" and number(1.5, 1, signed=True) == "+1.5"
    assert short(400_000) == "400,000" and short(-4.0) == "−4" and short(0.25) == "0.25"
    assert decimals([0.012, 0.3]) == 3 and decimals([12.0]) == 1 and decimals([]) == 3
