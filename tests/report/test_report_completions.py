"""Laws of the completions' data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saelens_steer.report import texts
from saelens_steer.report.run_folder import read_run
from saelens_steer.report.texts import changed_texts, completions_data, opening, segments


@pytest.fixture(scope="session")
def run(run_dir):
    return read_run(run_dir)


def test_code_is_cut_from_text_at_its_fences():
    text = "Before\n\n```python\nx = 1\n```\nafter"
    assert segments(text) == [["text", "Before"], ["code", "x = 1"], ["text", "after"]]


def test_a_fence_that_never_closes_is_code_to_the_end():
    assert segments("a\n```\nb\n") == [["text", "a"], ["code", "b"]]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\n~~~python\nx = 1\n~~~\nb", "x = 1"),
        ("a\n````md\n```\nx\n```\n````\nb", "```\nx\n```"),
        ("a\n```py\n    if x:\n        y\n```\nb", "    if x:\n        y"),
        ("a\n> ```\n> x\n> ```\nb", "x"),
        ("a\n```\nx\n``` y\n`````\nb", "x\n``` y"),
    ],
)
def test_the_page_shows_as_code_what_the_verdict_judges(text, code):
    assert segments(text) == [["text", "a"], ["code", code], ["text", "b"]]


def test_an_empty_text_has_no_parts():
    assert segments(" \n") == []


def test_candidates_come_first_by_effect_and_controls_last(run):
    labels = [d["label"] for d in completions_data(run)["directions"]]
    assert labels[0] in ("feature 12 (code)", "feature 3 (math)")
    assert all("control" in label for label in labels[-2:])


def test_every_steered_completion_is_found_by_its_key(run):
    data = completions_data(run)
    n = len(data["prompts"]) * len(data["directions"]) * len(data["alphas"])
    assert len(data["texts"]) == n == 24 * 6 * 4
    assert len(data["unsteered"]) == 24


def test_several_samples_stand_under_one_key(run):
    more = [record | {"sample": 1} for record in run.completions]
    data = completions_data(replace(run, completions=run.completions + more))
    assert {len(items) for items in data["texts"].values()} == {2}
    assert {len(items) for items in data["unsteered"].values()} == {2}


def test_prompts_beyond_the_budget_are_left_out_and_counted(run, monkeypatch):
    monkeypatch.setattr(texts, "BUDGET", 30_000)
    kept = len(completions_data(run)["prompts"])
    assert 1 <= kept < 24
    assert f"{24 - kept} more prompts are in completions.jsonl" in texts.completions_section(run)


def test_the_page_opens_on_a_text_that_steering_changed_and_counts_them(run):
    same = replace(run, completions=[r | {"completion": "x"} for r in run.completions])
    alike = completions_data(same)
    assert opening(alike) == (0, 0, len(alike["alphas"]) - 1)
    counted = changed_texts(same)
    assert counted is not None and counted["example"] is None
    assert counted["sentence"].startswith("0 of ") and "(0 %)" in counted["sentence"]
    prompt_ids = list(dict.fromkeys(r["prompt_id"] for r in run.completions))
    wanted = prompt_ids[5]
    changed = [
        r | {"completion": "y" if r["alpha"] == 2 and r["prompt_id"] == wanted else "x"}
        for r in run.completions
    ]
    told = changed_texts(replace(run, completions=changed))
    assert told is not None and told["sentence"].startswith("4 of 384 steered texts (1 %) differ")
    assert "with random directions, 2 of 192 (1 %) do" in told["sentence"]
    assert [text for _, text in told["example"]["answers"]] == ["x", "y"]
    found = completions_data(replace(run, completions=changed))
    prompt, direction, alpha = opening(found)
    assert (prompt, direction) == (5, 0)
    assert found["alphas"][alpha]["value"] == 2


def test_the_example_is_the_mildest_push_of_the_first_direction_that_changed_a_text(run):
    long = "the same beginning, " * 20
    first = completions_data(run)["directions"][0]["label"].split(" (")[0]
    records = [
        r | {"completion": long + ("one end" if r["alpha"] else "another end")}
        for r in run.completions
    ]
    told = changed_texts(replace(run, completions=records))
    assert told is not None and "(100 %)" in told["sentence"]
    (_, before), (push, after) = told["example"]["answers"]
    smallest = min(abs(r["alpha"]) for r in records if r["alpha"])
    assert push.startswith(f"{first}, α = ") and push.endswith(f"{smallest:g}")
    assert before.startswith("…") and before.endswith("another end") and after.endswith("one end")


def test_without_steered_texts_nothing_is_said(run):
    unsteered = [r for r in run.completions if not r["alpha"]]
    assert changed_texts(replace(run, completions=unsteered)) is None
    assert changed_texts(replace(run, completions=[])) is None
