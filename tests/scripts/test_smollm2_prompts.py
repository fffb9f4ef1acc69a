"""The prompts of the study of SmolLM2: their number, each once, and as their script writes them."""

from collections import Counter

import scripts.smollm2.prompts as written
from saelens_steer import load_prompts


def test_the_files_are_what_the_script_writes(tmp_path, monkeypatch):
    shipped = written.FOLDER
    monkeypatch.setattr(written, "FOLDER", tmp_path)
    written.main()
    made = sorted(tmp_path.iterdir())
    assert [file.name for file in made] == [
        f"{name}.jsonl" for name in ("mixed", "others", "selection")
    ]
    assert all(file.read_bytes() == (shipped / file.name).read_bytes() for file in made)


def test_each_domain_has_its_number_of_prompts():
    domains = [p.domain for p in load_prompts(str(written.FOLDER / "selection.jsonl"))]
    assert Counter(domains) == {"code": 60, "math": 60, "prose": 60}
    others = [p.domain for p in load_prompts(str(written.FOLDER / "others.jsonl"))]
    assert Counter(others) == {"facts": 15, "advice": 15, "lists": 15, "dialogue": 15}


def test_no_subject_is_in_two_sets():
    subjects = [subject for block in written.SUBJECTS.values() for subject in block]
    assert [subject for subject, times in Counter(subjects).items() if times > 1] == []
    assert len(written.SUBJECTS["quantities"]) == 96 and len(written.SUBJECTS["pilot"]) == 16


def test_the_mixed_prompts_are_conversations_that_differ_in_their_last_turn():
    prompts = load_prompts(str(written.FOLDER / "mixed.jsonl"))
    assert {p.domain for p in prompts} == {"mixed"}
    *before, last = zip(*(p.messages for p in prompts), strict=True)
    assert all(turn == turns[0] for turns in before for turn in turns)
    assert len({turn["content"] for turn in last}) == len(prompts) == 96
    assert before[0][0]["content"] == "", "the template's own system message would be added"
