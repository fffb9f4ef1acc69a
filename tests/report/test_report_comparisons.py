"""The sentences and tables of ways to choose, of effect against damage, and of the baseline."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import write_run

from saelens_steer.config import SOURCES, evidence_of
from saelens_steer.report.compare_directions import (
    KINDS,
    comparison_section,
    comparison_sentence,
)
from saelens_steer.report.findings import baseline_section
from saelens_steer.report.page import page
from saelens_steer.report.run_folder import read_run
from saelens_steer.report.tradeoffs import front_sentence, tradeoffs_figure, tradeoffs_section

HOSTILE = "<!--<script>"

GATED = "add(gate=probe)@last"


def compared(methods, ratio=(2.5, 1.25, 4.0), side="both"):
    """A comparison in which the first of the methods does most."""
    evidence = {"attribution": "ceiling", "linear_probe": "without SAE", "direct_logit": "tokens"}
    rows = [
        {
            "method": method,
            "evidence": evidence.get(method, "selection"),
            "side": side,
            "equal": equal,
            "n": 2,
            "directions": "feature_1 feature_2",
            **ends("effect", 1.0 / (place + 1), 0.1, 1.2),
            "kl": 0.02,
            **ends("difference", 0.5, 0.25, 0.75),
            **ends("ratio", *ratio),
            "metric": "math_margin",
            "baseline": methods[-1],
        }
        for place, method in enumerate(methods)
        for equal in ("norm", "kl")
    ]
    return pd.DataFrame(rows)


def ends(name, value, low, high):
    return {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}


def pushed(**more):
    """Three pairs at an equal effect, the baseline last."""
    base = {
        "direction": "feature_5",
        "feature": 5,
        "found_by": "mean_difference",
        "edit": "add",
        "kind": "equal_effect",
        "alpha": 0.5,
        **ends("effect", 1.0, 0.8, 1.2),
        **ends("damage_kl", 0.4, 0.2, 0.6),
        "damage_margin": 1.0,
        "evidence": "selection",
        "on_pareto_front": True,
        "metric": "math_margin",
        "domain": "mixed",
        "baseline": True,
        "ratio": 1.0,
    }
    probe = {"direction": "linear_probe_math", "found_by": "linear_probe", "baseline": False}
    least = base | probe | ends("damage_kl", 0.1, 0.05, 0.2) | {"ratio": 0.25, "edit": "add@last"}
    gated = base | probe | ends("damage_kl", 0.0, 0.0, 0.0) | {"ratio": 0.0, "edit": GATED}
    return pd.DataFrame([gated, least, base]).assign(**more)


def test_the_best_score_stands_beside_the_baseline_with_its_interval():
    said = comparison_sentence(compared(["direct_logit", "output_score", "auroc@answer"]))
    assert said.startswith("Of 3 scores, direct_logit moves math_margin furthest at equal norm: ")
    assert "2.5 [1.2, 4.0] times the effect of auroc@answer" in said


def test_without_a_ratio_the_difference_is_named_and_why():
    nothing = (np.nan, np.nan, np.nan)
    said = comparison_sentence(compared(["direct_logit", "auroc@answer"], nothing))
    assert "+0.50 [+0.25, +0.75] relative to auroc@answer" in said
    assert "not clearly positive" in said


def test_a_ceiling_and_a_reference_are_never_the_best_score():
    said = comparison_sentence(compared(["attribution", "linear_probe", "auroc@answer"]))
    assert said == "Only one score was compared: auroc@answer."


def test_references_alone_make_a_section_too(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    comparison = compared(["linear_probe", "difference_of_means"]).assign(evidence="without SAE")
    run = replace(run, comparison=comparison)
    assert "only directions that need no SAE" in comparison_section(run)


def test_an_edit_that_does_not_open_elsewhere_says_nothing_of_its_direction():
    said = front_sentence(pushed())
    assert f"{GATED} does no measurable damage: its gate stays closed on the other domains" in said
    assert (
        "of the 2 pairs that act on every prompt, linear_probe_math (add@last) does the least"
        in said
    )
    assert (
        "0.1000 nats of KL on the other domains, 0.250 times the 0.4000 of feature 5 (add)" in said
    )


def test_a_ceiling_is_never_named_as_the_cheapest():
    front = pushed()
    front.loc[1, "evidence"] = "ceiling"
    assert "linear_probe_math (add@last)" not in front_sentence(front)


def test_a_pair_that_did_not_reach_the_effect_says_so(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    front = pushed()
    front.loc[2, ["alpha", "effect", "damage_kl"]] = np.nan
    run = replace(run, tradeoffs=front.assign(baseline=False))
    shown = tradeoffs_section(run)
    assert "not reached" in shown
    assert "no feature chosen by mean difference reaches that effect" in shown


def test_no_damage_has_a_place_on_the_logarithmic_axis():
    xs = [x for trace in tradeoffs_figure(pushed(), {}).data for x in trace.x if x is not None]
    assert min(xs) > 0


def test_hostile_names_are_text(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    run = replace(run, tradeoffs=pushed(direction=HOSTILE, found_by=HOSTILE))
    comparison = compared(["direct_logit", "auroc"]).assign(directions=HOSTILE)
    run = replace(run, comparison=comparison)
    run = replace(run, baseline=run.claims)
    assert HOSTILE not in page(run, "headline")


def test_a_run_without_comparisons_has_no_such_sections(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert comparison_section(run) == tradeoffs_section(run) == baseline_section(run) == ""


def test_the_twin_stands_beside_the_features(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    claims = run.claims
    claims = claims.assign(T=claims["T"] / 2, verdict="no more than random")
    run = replace(run, baseline=claims)
    shown = baseline_section(run)
    assert "against 0 of 20 for the baseline" in shown
    assert shown.count("<tr>") > 1


@pytest.mark.parametrize("section", ["compare_directions", "tradeoffs", "frozen_decoder_baseline"])
def test_the_page_links_to_each_comparison(tmp_path, section):
    run = read_run(write_run(tmp_path / "run"))
    run = replace(run, tradeoffs=pushed())
    run = replace(run, comparison=compared(["direct_logit", "auroc"]))
    run = replace(run, baseline=run.claims)
    shown = page(run, "headline")
    assert f'<a href="#{section}">' in shown
    assert f'<section id="{section}">' in shown


def test_every_kind_of_evidence_has_words_in_the_report():
    kinds = {facts.evidence for facts in SOURCES.values()} | {evidence_of("v.gguf"), "asking"}
    assert kinds <= set(KINDS)
