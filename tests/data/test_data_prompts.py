"""Prompt sets: what is read, what is refused and how that is said."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from saelens_steer.data import Prompt, load_prompts, prompts_hash
from saelens_steer.data.sources import dataset_rows, shipped_prompts
from saelens_steer.errors import InputError


def test_a_row_gives_text_id_domain_and_answer(jsonl):
    path = jsonl({"id": "a", "text": "Hi", "domain": "prose", "answer": "Hello"})
    assert load_prompts(path) == [Prompt("a", "Hi", "prose", "Hello")]


def test_ids_default_to_the_line_number_and_blank_lines_count(jsonl):
    path = jsonl({"text": "one"}, "", {"text": "three"})
    assert [p.id for p in load_prompts(path)] == ["1", "3"]


def test_a_whole_number_as_id_and_a_prompt_column_are_read(jsonl):
    assert load_prompts(jsonl({"id": 7, "prompt": "x"})) == [Prompt("7", "x")]


def test_a_table_is_refused_with_the_line_that_converts_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"text": ["Hi", "Ho"]}).to_csv("p.csv", index=False)
    with pytest.raises(InputError) as refused:
        load_prompts("p.csv")
    eval(str(refused.value).partition("convert it with ")[2], {"pandas": pd})
    assert [p.text for p in load_prompts("p.jsonl")] == ["Hi", "Ho"]


def test_limit_keeps_the_first(jsonl):
    path = jsonl(*({"text": str(i)} for i in range(5)))
    assert [p.text for p in load_prompts(path, limit=2)] == ["0", "1"]
    assert len(load_prompts(path, limit=99)) == 5
    with pytest.raises(InputError, match="at least 1"):
        load_prompts(path, limit=0)


def test_a_path_may_be_a_string_and_need_not_end_in_jsonl(jsonl):
    path = jsonl({"text": "x"}, name="prompts.data")
    assert load_prompts(str(path)) == [Prompt("1", "x")]


def test_line_separators_within_a_string_end_no_line(jsonl):
    text = "a\u2028b\u0085c"
    assert load_prompts(jsonl(json.dumps({"text": text}, ensure_ascii=False)))[0].text == text


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert [p.text for p in load_prompts(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "x"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('["text"]', "must be a JSON object"),
        ('{"domain": "code"}', "no 'text' or 'prompt', only domain"),
        ("{}", "and is empty"),
        ('{"text": 3}', "must be a string, not int"),
        ('{"text": null}', "must be a string, not NoneType"),
        ('{"text": " \\n"}', "is empty"),
        ('{"text": "\\ud800"}', "surrogate"),
        ('{"text": "x", "answer": "\\udfff"}', "surrogate"),
        ('{"text": "x", "answer": ["y"]}', "'answer' must be a string"),
        ('{"text": "x", "domain": 1}', "'domain' must be a string"),
        ('{"text": "x", "id": {}}', "'id' must be"),
        ('{"text": "x", "id": true}', "'id' must be"),
        ('{"text": "x", "messages": [{"role": "user", "content": "y"}]}', "both 'messages' and"),
        ('{"text": "x", "id": "first"}', "already used by .*line 1"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(jsonl, line, says):
    path = jsonl({"text": "fine", "id": "first"}, line)
    with pytest.raises(InputError, match=rf"set\.jsonl line 2.*{says}"):
        load_prompts(path)


@pytest.mark.parametrize(
    ("key", "meant"), [("answr", "answer"), ("domian", "domain"), ("ID", None)]
)
def test_a_key_that_looks_misspelt_is_named_once(jsonl, capsys, key, meant):
    load_prompts(jsonl({"text": "a", key: "x"}, {"text": "b", key: "y"}))
    found = capsys.readouterr().err
    assert found.count(f"the key {key!r} of prompts is not read") == (meant is not None)
    assert meant is None or f"did you mean {meant!r}?" in found


def test_other_columns_of_a_data_set_are_nobodys_mistake(jsonl, capsys):
    load_prompts(jsonl({"text": "a", "source": "x", "difficulty": 3, "answer": "b", "answers": 1}))
    assert capsys.readouterr().err == ""


def test_a_bad_line_beyond_the_limit_is_refused_too(jsonl):
    with pytest.raises(InputError, match="line 2"):
        load_prompts(jsonl({"text": "x"}, "{"), limit=1)


def test_an_explicit_id_may_not_be_another_lines_number(jsonl):
    with pytest.raises(InputError, match="already used by"):
        load_prompts(jsonl({"text": "x", "id": "2"}, {"text": "y"}))


def test_bad_utf8_is_named_by_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(InputError, match=r"x\.jsonl line 2 is not UTF-8"):
        load_prompts(path)


def test_an_empty_file_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text("\n \n")
    with pytest.raises(InputError, match="holds no prompts"):
        load_prompts(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match=r"there is no file .*y\.jsonl"):
        load_prompts(tmp_path / "y.jsonl")
    (tmp_path / "z.jsonl").mkdir()
    with pytest.raises(InputError, match="is a folder: give a file"):
        load_prompts(tmp_path / "z.jsonl")


def test_a_slip_in_a_shipped_name_is_told_with_the_nearest_names():
    with pytest.raises(InputError, match="did you mean code-math-mixed"):
        load_prompts("code-math-mixd")


def test_a_name_that_is_nothing_is_refused_with_the_shipped_names():
    with pytest.raises(
        InputError, match=r"'zzz/zzz' is neither a .txt or .jsonl file .*code-math-mixed.*cannot"
    ):
        load_prompts("zzz/zzz")
    with pytest.raises(InputError, match="name:config:split"):
        load_prompts("a:b:c:d")


def test_a_dataset_folder_is_read_with_config_and_split(tmp_path: Path):
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "a", "domain": "math"}\n{"prompt": "b"}\n')
    (folder / "test.jsonl").write_text('{"prompt": "c", "domain": "math"}\n')
    assert [p.text for p in load_prompts(folder)] == ["a", "b"]
    assert load_prompts(folder, limit=1) == [Prompt("1", "a", "math")]
    assert load_prompts(f"{folder}:default:test") == [Prompt("1", "c", "math")]
    assert load_prompts(f"{folder}::test") == [Prompt("1", "c", "math")]
    with pytest.raises(InputError, match="nosuch"):
        load_prompts(f"{folder}::nosuch")


@pytest.mark.parametrize("script", ["rows.py", "own.py", "dataset.py"])
def test_code_of_a_dataset_is_never_run(tmp_path: Path, monkeypatch, script):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / script).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for source in (tmp_path / "rows", tmp_path / "rows" / script):
        with pytest.raises(InputError, match="cannot load the dataset"):
            list(dataset_rows(str(source)))
    assert not (tmp_path / "ran").exists()


def test_a_dataset_without_text_names_its_columns(tmp_path: Path):
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"question": "a"}\n')
    with pytest.raises(InputError, match="row 1 has no 'text' or 'prompt', only question"):
        load_prompts(folder)


def test_the_hash_depends_on_every_field_and_on_the_order():
    a, b = Prompt("1", "x"), Prompt("2", "y")
    variants = [
        [a],
        [a, b],
        [b, a],
        [Prompt("9", "x")],
        [Prompt("1", "z")],
        [Prompt("1", "x", "code")],
        [Prompt("1", "x", "", "")],
        [Prompt("1", "x", "", "answer")],
    ]
    assert len({prompts_hash(v) for v in variants}) == len(variants)
    assert prompts_hash([a, b]) == prompts_hash([Prompt("1", "x"), Prompt("2", "y")])


def test_the_shipped_studies_have_the_promised_sizes():
    mixed = load_prompts("code-math-mixed")
    domains = load_prompts("code-math-domains")
    assert {"code-math-mixed", "code-math-domains"} <= set(shipped_prompts())
    assert len(mixed) == 112
    assert {p.domain for p in mixed} == {"mixed"}
    assert [p.id for p in mixed] == [f"mixed-{i:03}" for i in range(1, 113)]
    counts = {d: sum(p.domain == d for p in domains) for d in ("code", "math", "prose")}
    assert counts == {"code": 44, "math": 44, "prose": 44}
    assert len(domains) == 132


def test_no_two_shipped_prompts_are_alike():
    prompts = load_prompts("code-math-mixed") + load_prompts("code-math-domains")
    words = [set(p.text.lower().split()) for p in prompts]
    for i, mine in enumerate(words):
        for other in words[:i]:
            assert len(mine & other) / len(mine | other) < 0.4
    openings = [" ".join(p.text.split()[:4]) for p in prompts]
    assert max(openings.count(o) for o in openings) <= 4


def test_shipped_prompts_are_plain_requests():
    for prompt in load_prompts("code-math-mixed") + load_prompts("code-math-domains"):
        assert prompt.answer is None
        assert prompt.text == prompt.text.strip()
        assert 30 <= len(prompt.text) <= 600
        assert "```" not in prompt.text
        assert "$$" not in prompt.text
