"""Parsing the answers of models that were asked for JSON."""

from __future__ import annotations

import json

import pytest

from saelens_steer.labels.labeller import MOST_WORDS, LabelError
from saelens_steer.labels.reading import read_letters, read_name, read_numbers
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
        "Text [1] and [2] tell.\nSummary: names of fruit\nAnalysis: It fires on apples.",
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
        "[" * 400 + "]" * 400,
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


FIRES = '{"summary": "%s", "analysis": "It fires before the answer."}'


@pytest.mark.parametrize(
    "summary",
    [
        "the closing </think> marker",
        "an empty <think></think> pair",
        "the start of <thinking>, a reasoning block",
        "[THINK] and [/THINK]",
    ],
)
@pytest.mark.parametrize("before", ["", "<think>Let me see.</think>\n", "So </think> it is.\n"])
@pytest.mark.parametrize("after", ["", "\n\nNote that </think> ends it.", "\nIt is not <think>."])
def test_a_tag_in_a_string_of_the_answer_is_text(summary, before, after):
    if before and "</think>" in after:
        return  # then nothing tells the answer from a draft
    name = read_name(said(before + FIRES % summary + after))
    assert name.summary == summary
    assert name.analysis == "It fires before the answer."


DRAFTS = {
    "tags": '<think>Perhaps {"summary": "tools"}?</think>',
    "no first tag": '{"summary": "tools"}? No.</think>',
    "a tag in a draft": '<think>{"summary": "</think>"} is wrong.</think>',
    "no tags": 'Perhaps {"summary": "tools"}? No: ',
    "two drafts": '{"summary": "tools"} {"summary": "saws"}\n',
    "another tag": '[THINK]{"summary": "tools"}[/THINK]',
    "no last tag": '<think>{"summary": "tools"}, or rather:\n',
    "a draft on a line": "Summary: tools\n\nOr rather:\n",
    "LaTeX and code": "\\frac{1}{2} " * 300 + "f = {x[0]: [y]} " * 300,
}


@pytest.mark.parametrize("draft", DRAFTS.values(), ids=DRAFTS)
def test_the_last_object_is_the_answer_and_reasoning_before_it_is_not(draft):
    assert read_name(said(draft + PLAIN)).summary == "names of fruit"
    numbers = draft.replace('"summary": "tools"', '"active": [9]')
    assert read_numbers(said(numbers + '{"active": [2], "why": "[1]"}'), 9) == [2]
    letters = draft.replace('"summary": "tools"', '"choices": "BB"')
    assert read_letters(said(letters + '{"choices": ["A", "B"]}'), 2) == "AB"


@pytest.mark.parametrize(
    "text",
    [
        '<think>Perhaps {"summary": "tools"}? No',
        'Perhaps {"summary": "tools"}? No',
        '{"summary": "tools"}</think>\nThe name is',
        '<think>"summary": "tools",',
    ],
)
def test_a_draft_is_no_answer_if_the_final_one_was_cut(text):
    with pytest.raises(LabelError, match="max_answer_tokens"):
        read_name(said(text, cut=True))


@pytest.mark.parametrize(
    "text",
    [
        '{"summary": "names of fruit", "analysis": "It fi',
        '```json\n{"summary": "names of fruit",\n "analysis": "It fi',
        '{"summary": "names of fruit", "analysis": ""} It fi',
        '{"summary": "tools"}</think>{"summary": "names of fruit", "anal',
    ],
)
def test_a_whole_summary_counts_even_if_the_answer_was_cut_after_it(text):
    assert read_name(said(text, cut=True)).summary == "names of fruit"


def test_a_broken_object_after_a_draft_is_the_answer():
    text = '{"summary": "tools"}? No: {"summary": "names of fruit", "analysis": "the "apple""}'
    assert read_name(said(text)).summary == "names of fruit"


@pytest.mark.parametrize("wrap", ["[%s]", '{"answer": %s}', '{"features": [%s]}'])
def test_an_object_within_another_is_found(wrap):
    assert read_name(said(wrap % PLAIN)).summary == "names of fruit"


LATEX = [
    r"the \frac command",
    r"\begin{align} and \end{align}",
    r"\text, \times, \theta and \tikz",
    r"\nabla, \neq, \rho and \right",
    r"inline \( and \), display \[ and \]",
    r"\usepackage and \underline",
    r"\sqrt{x}, \alpha and \{x\}",
    r"\bar x, \forall y, \rvert",
]


@pytest.mark.parametrize("name", LATEX)
@pytest.mark.parametrize("quote", ['{"summary": "%s"}', '{"summary": "%s", "analysis": "It fi'])
def test_latex_survives_with_one_backslash_and_with_two(name, quote):
    for written in (name, name.replace("\\", "\\\\")):
        assert read_name(said(quote % written)).summary == name


@pytest.mark.parametrize("name", LATEX)
def test_latex_survives_in_an_analysis_among_its_line_breaks(name):
    for written in (name, name.replace("\\", "\\\\")):
        text = f"One.\\nTwo:\\n\\n- {written}\\nso\\te.g. it"
        told = read_name(said(f'{{"summary": "x", "analysis": "{text}"}}')).analysis
        assert told.startswith(f"One.\nTwo:\n\n- {name}\nso")


@pytest.mark.parametrize("name", [r"newlines (\n)", r"\t before code", r"\r\n line ends"])
def test_a_name_may_name_a_control_character_and_holds_none(name):
    assert read_name(said(f'{{"summary": "{name}"}}')).summary == name
    raw = read_name(said('{"summary": "a\x0c\x08b\\u0008c", "analysis": "a\x0cb"}'))
    assert (raw.summary, raw.analysis) == ("a b c", "a b")


@pytest.mark.parametrize(
    "text, found",
    [
        ('{"active": [1, 3]}', [1, 3]),
        ('{"active": []}', []),
        ("```\n[1, 3]\n```", [1, 3]),
        ('{"active": ["1", 3.0]}', [1, 3]),
        ('Text [2] is about tools, so: {"active": [1, 3]}', [1, 3]),
        ("Perhaps [2]? No: [1, 3]", [1, 3]),
        ("**Active:** [1, 3].\n\n[2] names tools, as does [4].", [1, 3]),
        ("Text [2] names tools. The answer is `[1, 3]`", [1, 3]),
        ("<think>[2]?</think>[1, 3] (both name fruit)", [1, 3]),
        ("- active = [\n 1,\n 3\n]\nText [2] names tools.", [1, 3]),
        ('{"active": [2]}? No: {"ACTIVE": [1, 3]}', [1, 3]),
        ('{"active": [1, 3], "why": "2 fires at </think>"}', [1, 3]),
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
        '{"active": [1]} and then {"active": null}',
        "Text [2] names tools.",  # a citation
        "None of them: the tool in [2] is no fruit, nor is the one in [3]",
        "[1] is about tools, and [2] too.",
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
