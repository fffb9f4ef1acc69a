"""Laws of samples: equal shares, no text twice, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from saelens_steer.config import PromptSpec, SampleSpec, dump_config, parse_config
from saelens_steer.data import Prompt, load_prompts, some_prompts, steered_prompts
from saelens_steer.data.prompts import beginning, equal_shares, sample_prompts
from saelens_steer.errors import InputError

ROOT = Path(__file__).parents[2]
LABELS = ["a"] * 30 + ["b"] * 30 + ["c"] * 3


def words(n: int, start: str) -> str:
    return " ".join([start, *["word"] * n])


@pytest.fixture
def labelled(jsonl) -> str:
    """63 rows of three labels, one of them rare."""
    rows = ({"text": words(i % 7, f"row{i}"), "label": x} for i, x in enumerate(LABELS))
    return str(jsonl(*rows))


@pytest.fixture
def articles(tmp_path) -> str:
    """A dataset in a folder: empty rows, headings, paragraphs, and one paragraph twice."""
    import json

    texts = ["", " = Title = \n", *(f" {words(10 + i, f'Paragraph{i}')} . \n" for i in range(20))]
    folder = tmp_path / "articles"
    folder.mkdir()
    lines = [json.dumps({"text": text}) for text in [*texts, texts[5], None]]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


def domains(prompts: list[Prompt]) -> Counter[str]:
    return Counter(p.domain for p in prompts)


# --- strata


def test_each_value_of_a_column_has_an_equal_share(labelled):
    found = sample_prompts(labelled, SampleSpec(n=9, by="label"))
    assert domains(found) == {"a": 3, "b": 3, "c": 3}


def test_a_stratum_that_is_too_small_gives_its_rest_to_the_others(labelled):
    found = sample_prompts(labelled, SampleSpec(n=24, by="label"))
    assert domains(found) == {"a": 11, "b": 10, "c": 3}


def test_without_a_column_strata_are_of_equal_size_by_length(labelled):
    found = sample_prompts(labelled, SampleSpec(n=63, strata=3))
    assert domains(found) == {f"length_{i}of3": 21 for i in (1, 2, 3)}
    by_stratum = [[len(p.text) for p in found if p.domain == f"length_{i}of3"] for i in (1, 2, 3)]
    assert max(by_stratum[0]) <= min(by_stratum[1]) <= max(by_stratum[1]) <= min(by_stratum[2])


@pytest.mark.parametrize(
    ("sizes", "n", "shares"),
    [
        ([9, 9, 9], 6, [2, 2, 2]),
        ([9, 9, 9], 7, [3, 2, 2]),
        ([1, 3, 3], 5, [1, 2, 2]),
        ([0, 1, 9], 8, [0, 1, 7]),
        ([9, 9, 9], 2, [1, 1, 0]),
        ([2, 2], 4, [2, 2]),
        ([2, 2], 9, [2, 2]),
    ],
)
def test_shares_are_as_even_as_sizes_allow(sizes, n, shares):
    assert equal_shares(sizes, n) == shares


# --- which rows, in which order


def test_a_sample_is_the_rows_of_the_file_by_number_and_in_order(labelled):
    found = sample_prompts(labelled, SampleSpec(n=12))
    rows = {p.id: p.text for p in load_prompts(labelled)}
    assert all(rows[p.id] == p.text and p.answer is None for p in found)
    assert [int(p.id) for p in found] == sorted({int(p.id) for p in found})


def test_the_seed_decides_and_a_larger_sample_holds_the_smaller(labelled):
    for by in (None, "label"):
        small, same, other, large = (
            sample_prompts(labelled, SampleSpec(n=n, by=by, seed=seed))
            for n, seed in ((9, 0), (9, 0), (9, 1), (20, 0))
        )
        assert small == same != other
        assert set(small) < set(large)


@pytest.mark.slow
def test_a_sample_is_the_same_in_every_process(labelled):
    script = (
        "from saelens_steer.config import SampleSpec; "
        "from saelens_steer.data.prompts import sample_prompts; "
        f"print([p.id for p in sample_prompts({labelled!r}, SampleSpec(n=9, by='label'))])"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=True)
    here = [p.id for p in sample_prompts(labelled, SampleSpec(n=9, by="label"))]
    assert done.stdout.strip() == str(here)


def test_no_text_comes_twice_even_where_only_the_cut_makes_them_alike(jsonl):
    path = jsonl({"text": "same start one"}, {"text": "same start two"}, {"text": "other"})
    assert len(sample_prompts(path, SampleSpec(n=2, max_chars=10))) == 2
    with pytest.raises(InputError, match="only 2 usable rows"):
        sample_prompts(path, SampleSpec(n=3, max_chars=10))


def test_only_the_first_rows_of_the_pool_are_looked_at(labelled):
    found = sample_prompts(labelled, SampleSpec(n=10, pool=10))
    assert [int(p.id) for p in found] == list(range(1, 11))


# --- texts


def test_empty_rows_headings_and_repeats_of_a_dataset_are_passed_over(articles):
    found = sample_prompts(articles, SampleSpec(n=20, min_chars=20))
    assert [p.id for p in found] == [str(i) for i in range(3, 23)]
    assert all(p.text.startswith("Paragraph") and p.text == p.text.strip() for p in found)
    with pytest.raises(InputError, match=r"has only 20 usable rows .* sample of 21"):
        sample_prompts(articles, SampleSpec(n=21, min_chars=20))
    assert len(sample_prompts(articles, SampleSpec(n=21))) == 21  # with the heading


def test_a_cut_text_is_a_beginning_that_ends_with_a_whole_word(articles):
    for prompt in sample_prompts(articles, SampleSpec(n=10, min_chars=40, max_chars=33)):
        assert 20 < len(prompt.text) <= 33
        assert set(prompt.text.split()[1:]) == {"word"}
        assert not prompt.text[-1].isspace()


@pytest.mark.parametrize(
    ("text", "n", "found"),
    [
        ("one two", None, "one two"),
        ("one two", 7, "one two"),
        ("one two", 6, "one"),
        ("one two", 4, "one"),
        ("one two", 3, "one"),
        ("one two", 2, "on"),
        ("one  two three", 9, "one  two"),
    ],
)
def test_words_are_not_cut_unless_the_first_is_too_long(text, n, found):
    assert beginning(text, n) == found


def test_length_strata_are_by_the_whole_text_not_by_what_is_kept(articles):
    found = sample_prompts(articles, SampleSpec(n=20, min_chars=20, max_chars=20, strata=2))
    assert [p.domain for p in found] == ["length_1of2"] * 10 + ["length_2of2"] * 10


# --- sources


def test_a_text_file_gives_one_prompt_per_block(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("The first\ntext.\n\n \nThe second.\r\n\r\nThe third.\n")
    expected = [Prompt("1", "The first\ntext."), Prompt("2", "The second.")]
    assert load_prompts(path, limit=2) == expected
    found = sample_prompts(path, SampleSpec(n=3, strata=1))
    assert [(p.id, p.domain) for p in found] == [(str(i), "length_1of1") for i in (1, 2, 3)]


def test_a_shipped_set_is_sampled_by_its_domain():
    found = sample_prompts("tiny-domains", SampleSpec(n=10, by="domain"))
    assert domains(found) == {"code": 3, "math": 3, "prose": 2, "transport": 2}


def test_rows_without_a_value_are_passed_over_and_values_become_text(jsonl):
    rows = [{"text": f"t{i}", "n": n} for i, n in enumerate((0, 1, None, "", 0.5))]
    found = sample_prompts(jsonl(*rows), SampleSpec(n=3, by="n"))
    assert [p.domain for p in found] == ["0", "1", "0.5"]


# --- refusals


@pytest.mark.parametrize(
    ("row", "spec", "says"),
    [
        ({"body": "x"}, {}, "line 1 has no 'text' or 'prompt', only body"),
        ({"text": 3}, {}, "'text' must be a string, not int"),
        ({"text": "x"}, {"by": "label"}, r"no 'label' \(prompts.sample.by\), only text"),
        (
            {"text": "x", "label": ["y"]},
            {"by": "label"},
            "'label' must be a string or a number, not list",
        ),
        ({"text": "x", "label": "y"}, {"by": "label"}, "have the same label, 'y': raise prompts.s"),
    ],
)
def test_what_cannot_be_sampled_is_said_in_one_sentence(jsonl, row, spec, says):
    with pytest.raises(InputError, match=says):
        sample_prompts(jsonl(row), SampleSpec(n=1, **spec))


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ({"n": 0}, "prompts.sample.n"),
        ({}, "prompts.sample.n"),
        ({"n": 11, "pool": 10}, "cannot draw n = 11 prompts from a pool of 10 rows"),
        ({"n": 1, "colour": 3}, "colour"),
    ],
)
def test_an_impossible_sample_is_refused_by_the_config(sample, says):
    with pytest.raises(InputError, match=says):
        parse_config({"prompts": {"sample": sample}})


# --- some of the prompts at hand


def test_some_prompts_are_as_many_from_each_domain_in_their_order():
    prompts = [Prompt(str(i), f"text {i}", "ab"[i > 2]) for i in range(20)]
    some = some_prompts(prompts, 7)
    assert [p.domain for p in some] == ["a"] * 3 + ["b"] * 4
    assert [int(p.id) for p in some] == sorted(int(p.id) for p in some)
    assert some_prompts(prompts, 99) == prompts
    assert some_prompts([], 3) == []


def test_some_prompts_are_the_same_for_a_seed_and_more_keep_the_fewer():
    prompts = [Prompt(str(i), f"text {i}", "abc"[i % 3]) for i in range(60)]
    few, more = some_prompts(prompts, 6), some_prompts(prompts, 12)
    assert few == some_prompts(prompts, 6)
    assert {p.id for p in few} < {p.id for p in more}
    assert few != some_prompts(prompts, 6, seed=1)


# --- the config


def test_a_sample_stands_in_place_of_the_limit():
    spec = parse_config({"prompts": {"sample": {"n": 5}}})
    assert spec.prompts.limit is None
    assert PromptSpec(sample=SampleSpec(n=5)).limit is None
    with pytest.raises(InputError, match="either limit or sample, not both"):
        parse_config({"prompts": {"limit": 5, "sample": {"n": 5}}})


def test_a_sampling_config_is_written_and_read_back(tmp_path):
    import yaml

    spec = parse_config({"prompts": {"sample": {"n": 5, "by": "domain"}}})
    assert parse_config(yaml.safe_load(dump_config(spec))) == spec


def test_steered_prompts_are_the_sample_or_the_first(labelled):
    sample = SampleSpec(n=4)
    assert steered_prompts(PromptSpec(source=labelled, sample=sample)) == sample_prompts(
        labelled, sample
    )
    assert steered_prompts(PromptSpec(source=labelled, limit=4)) == load_prompts(labelled, 4)
