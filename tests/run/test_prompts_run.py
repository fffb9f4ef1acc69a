"""A run's prompts: refused before any work if a metric or a claim could not stand on them."""

from __future__ import annotations

import json

import pytest
from prompt_files import small_run

from saelens_steer.config import parse_config
from saelens_steer.errors import InputError
from saelens_steer.pipeline.checks import checked_context

HOOK = "blocks.2.hook_resid_pre"
TEXTS = ["sum of numbers", "the difference of two"]


@pytest.fixture
def given(random_folder, tmp_path):
    return small_run(tmp_path, random_folder, HOOK, 2)


def checked(given, tmp_path, rows, **prompts):
    """The run's context with these rows as the steered prompts."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {**given, "prompts": {"source": str(path), **prompts}}
    return checked_context(parse_config(given), tmp_path / "run")


def test_texts_are_plain_unless_chat_is_true_which_the_runs_metrics_need(given, tmp_path):
    rows = [{"text": text} for text in TEXTS]
    with pytest.raises(InputError, match=r"code_validity judges .*\(prompts\.chat: true\)"):
        checked(given, tmp_path, rows)
    assert not (tmp_path / "run").exists()
    run = checked(given, tmp_path, rows, chat=True)
    assert all(e.at_start for e in run.measurement().encoded) and run.start is None


def test_a_selection_prompt_is_recognised_in_whatever_form_it_is_steered(given, tmp_path):
    selected = {"role": "user", "content": "list of 0 code numbers"}
    tokenizer = checked(given, tmp_path, [{"messages": [{**selected, "content": "x"}]}])
    tokenizer = tokenizer.model.tokenizer
    asked = tokenizer.apply_chat_template([selected], tokenize=False, add_generation_prompt=True)
    for row in ({"text": asked}, {"prompt": tokenizer(asked)["input_ids"]}):
        with pytest.raises(InputError, match="'list0' have the same tokens"):
            checked(given, tmp_path, [row])
    with pytest.raises(InputError, match="both steered and used for selection"):
        checked(given, tmp_path, [{"messages": [selected]}])
