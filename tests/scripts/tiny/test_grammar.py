import ast
import re

import pytest

from saelens_steer.errors import InputError
from scripts.tiny.code_and_math import FORMULAS
from scripts.tiny.grammar import FAMILIES, SPLITS, examples, split_of
from scripts.tiny.mixed import CUES, TOPICS, log_odds
from scripts.tiny.prose_and_transport import TRANSPORT_KINDS

FENCE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)


def fences(text: str) -> list[str]:
    return FENCE.findall(text)


def balanced(text: str) -> bool:
    formula = re.fullmatch(r"(?:[^$]*)\$\$([^$]+)\$\$", FENCE.sub("", text).strip())
    if not formula:
        return False
    latex = formula[1].replace(r"\{", "").replace(r"\}", "")
    depths = [latex[:i].count("{") - latex[:i].count("}") for i in range(len(latex) + 1)]
    return min(depths) == 0 == depths[-1] and latex.count(r"\begin") == latex.count(r"\end")


def test_every_code_answer_is_one_closed_fence_that_parses():
    for example in examples("code", 600, seed=3):
        (source,) = fences(example.answer)
        ast.parse(source)


def test_every_math_answer_is_one_balanced_formula():
    assert all(balanced(example.answer) for example in examples("math", 600, seed=3))


def test_every_mixed_answer_begins_with_one_of_its_two_blocks():
    for example in examples("mixed", 600, seed=3):
        (source,) = fences(example.answer)
        ast.parse(source)
        assert balanced(example.answer)
        assert example.answer.startswith(("$$", "```python\n"))


def test_prose_and_transport_have_neither_code_nor_formulas():
    for family in ("prose", "transport"):
        text = "".join(e.prompt + e.answer for e in examples(family, 1000, seed=3))
        assert not set("$`\\<>") & set(text)


def test_a_code_answer_defines_the_function_that_was_asked_for():
    for example in examples("code", 500, seed=3):
        name = re.search(r"def (\w+)\(", example.answer)
        assert name
        assert name[1] in example.prompt


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_never_share_a_prompt(family: str):
    prompts = {split: {e.prompt for e in examples(family, 150, 3, split)} for split in SPLITS}
    assert not prompts["train"] & prompts["heldout"]
    assert not prompts["train"] & prompts["select"]
    assert not prompts["heldout"] & prompts["select"]
    assert all(split_of(p) == split for split, found in prompts.items() for p in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_prompts_are_distinct(family: str):
    for split in ("heldout", "select"):
        assert len({e.prompt for e in examples(family, 200, 3, split)}) == 200


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_examples_and_another_seed_others(family: str):
    assert examples(family, 50, seed=3) == examples(family, 50, seed=3)
    assert examples(family, 50, seed=3) != examples(family, 50, seed=4)


def test_all_thirty_kinds_of_transport_have_stories():
    stories = " ".join(e.answer for e in examples("transport", 1000, seed=3))
    assert len(set(TRANSPORT_KINDS)) == 30
    assert all(kind in stories for kind in TRANSPORT_KINDS)


def test_the_order_of_a_mixed_answer_follows_the_odds_of_its_wording():
    drawn = examples("mixed", 3000, seed=3)
    for low, high in [(-9, -2), (-2, -0.5), (-0.5, 0.5), (0.5, 2), (2, 9)]:
        some = [e for e in drawn if low <= log_odds(e.prompt) < high]
        odds = [1 / (1 + 2.718281828 ** -log_odds(e.prompt)) for e in some]
        first = [e.answer.startswith("$$") for e in some]
        assert abs(sum(first) - sum(odds)) / len(some) < 0.06
        assert 0 < sum(first) < len(first)


def test_the_odds_are_graded_from_strongly_against_to_strongly_for():
    assert min(CUES.values()) == -3 and max(CUES.values()) == 3
    assert sum(abs(weight) <= 0.25 for weight in CUES.values()) >= 5
    odds = {round(log_odds(e.prompt), 3) for e in examples("mixed", 600, seed=3)}
    assert len(odds) > 100


def test_every_mixed_prompt_names_exactly_one_topic():
    for example in examples("mixed", 600, seed=3):
        assert sum(topic.key in example.prompt.lower() for topic in TOPICS) == 1


def test_there_are_hundreds_of_function_names_and_dozens_of_formulas():
    names = {fences(e.answer)[0].split("(")[0] for e in examples("code", 5000, seed=3)}
    assert len(names) > 500
    assert len(FORMULAS) > 40


def test_an_unknown_family_or_split_is_refused_by_name():
    with pytest.raises(InputError, match="poems"):
        examples("poems", 1, seed=0)
    with pytest.raises(InputError, match="train, heldout, select"):
        examples("code", 1, seed=0, split="test")


def test_asking_for_more_distinct_prompts_than_there_are_is_refused():
    with pytest.raises(InputError, match="distinct prompts"):
        examples("prose", 5000, seed=0, split="heldout")
