"""Parsing the answers of models that were asked for JSON."""

from __future__ import annotations

import json

import pytest

from saelens_steer.labels.labeller import MOST_WORDS, LabelError
from saelens_steer.labels.questions import read_letters, read_name, read_numbers
from saelens_steer.labels.server import Answer

NAMED = {"summary": "names of fruit", "analysis": "It fires on apples."}
PLAIN = json.dumps(NAMED)


def said(text: str, cut: bool = False) -> Answer:
    return Answer(text, cut, "m")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f"```json\n{PLAIN}\n```",
        f"Here you are:\n\n{PLAIN}\n\nI hope that helps {{really}}.",
        f'<think>Perhaps {{"summary": "vegetables"}}?</think>\n{PLAIN}',
        f'Perhaps {{"summary": "vegetables"}}?\n</think>\n{PLAIN}',
        f"[{PLAIN}]".replace("[", "").replace("]", ""),
        f"{{oops {PLAIN}",
        '{"Summary": "names of fruit", "Analysis": "It fires on apples."}',
        '{"label": "names of fruit", "explanation": "It fires on apples."}',
        '{"summary": "names\nof   fruit", "analysis": "It fires on apples."}',
        "**Summary:** names of fruit\n\n**Analysis:** It fires on apples.",
        "Summary: names of fruit\nAnalysis: It fires on apples.",
        "- summary: `names of fruit`\n- analysis: It fires on apples.",
    ],
)
def test_a_name_is_found_however_it_is_wrapped(text):
    name = read_name(said(text))
    assert (name.summary, name.analysis) == (NAMED["summary"], NAMED["analysis"])


def test_a_cut_answer_still_gives_its_summary():
    name = read_name(said("Summary: names of fruit\nAnalysis: It fi", cut=True))
    assert name.summary == "names of fruit"


@pytest.mark.parametrize(
    "text",
    [
        "I cannot say.",
        "{}",
        "[1]",
        '{"summary": ""}',
        '{"summary": "…"}',
        '{"summary": 3}',
        "{" * 9999,
    ],
)
def test_an_answer_without_a_summary_is_unreadable(text):
    with pytest.raises(LabelError, match="no summary") as failure:
        read_name(said(text))
    assert failure.value.status == "unreadable"


def test_an_endless_answer_is_unreadable_and_an_endless_summary_is_cut():
    words = "word " * 5000
    with pytest.raises(LabelError):
        read_name(said(words))
    name = read_name(said(json.dumps({"summary": words, "analysis": words})))
    assert len(name.summary.split()) == MOST_WORDS
    assert name.summary.endswith("word…")
    assert name.remark == "a summary of 5,000 words was cut"
    assert len(name.analysis) <= 4000


def test_a_summary_without_spaces_is_cut_too():
    name = read_name(said(json.dumps({"summary": "字" * 999})))
    assert len(name.summary) == 201
    assert name.remark == "a summary of 999 characters was cut"


def test_a_lone_surrogate_does_no_harm():
    name = read_name(said('{"summary": "fruit \\ud83d", "analysis": "\\udfff"}'))
    assert (name.summary, name.analysis) == ("fruit ?", "?")


def test_a_summary_of_nineteen_words_is_not_cut():
    text = " ".join(["word"] * 19)
    name = read_name(said(json.dumps({"summary": text})))
    assert (name.summary, name.remark, name.analysis) == (text, "", "")


def test_the_error_says_that_an_answer_ran_out_of_tokens():
    with pytest.raises(LabelError, match="max_answer_tokens"):
        read_name(said("<think>Let me see", cut=True))


@pytest.mark.parametrize(
    "text, found",
    [
        ('{"active": [1, 3]}', [1, 3]),
        ('{"active": []}', []),
        ("```\n[1, 3]\n```", [1, 3]),
        ('{"active": ["1", 3.0]}', [1, 3]),
        ('Text [2] is about tools, so: {"active": [1, 3]}', [1, 3]),
    ],
)
def test_numbers_are_read(text, found):
    assert read_numbers(said(text), 4) == found


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "{}",
        '{"active": 3}',
        '{"active": [0]}',
        '{"active": [5]}',
        '{"active": [true]}',
        '{"active": [1.5]}',
        '{"active": ["x"]}',
    ],
)
def test_anything_but_a_list_of_the_given_numbers_is_unreadable(text):
    with pytest.raises(LabelError) as failure:
        read_numbers(said(text), 4)
    assert failure.value.status == "unreadable"


@pytest.mark.parametrize(
    "text",
    [
        '{"choices": ["A", "B", "A"]}',
        '["a", "b", "a"]',
        '{"choices": "ABA"}',
        '{"choices": "A, B, A"}',
    ],
)
def test_letters_are_read(text):
    assert read_letters(said(text), 3) == "ABA"


@pytest.mark.parametrize("text", ["ABA", '{"choices": ["A", "B"]}', '["A", "B", "C"]', "{}"])
def test_anything_but_one_letter_per_pair_is_unreadable(text):
    with pytest.raises(LabelError):
        read_letters(said(text), 3)
