"""generate-topic: the model's continuations of selection prompts become a prompt set."""

from __future__ import annotations

import json

import pytest

from saelens_steer.activations import with_answers
from saelens_steer.config import RunSpec, TemplateSpec, parse_config
from saelens_steer.data import load_prompts
from saelens_steer.errors import InputError
from saelens_steer.pipeline import export
from saelens_steer.pipeline.export import generate_topic


@pytest.fixture
def few(tmp_path):
    """Six prompts of two domains."""
    chosen = [p for p in load_prompts("tiny-transport-topic") if p.domain in ("car", "ferry")]
    rows = [p.to_row() for p in chosen[7:13]]
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def loaded(monkeypatch, tiny_model):
    monkeypatch.setattr(export, "load_model", lambda *a, **k: tiny_model)
    return tiny_model


def spec_of(prompts: str, **more) -> RunSpec:
    select = {"prompts": prompts, "positive": "car", "negative": "ferry", "answer_tokens": 12}
    return parse_config({"select": select | {"at": "answer"}, **more})


def test_the_file_is_a_prompt_set_with_the_models_answers(loaded, few, tmp_path, capsys):
    path = generate_topic(spec_of(few), tmp_path / "topic.jsonl")
    written = load_prompts(path)
    assert written == with_answers(loaded, load_prompts(few), 12)
    assert all(p.answer and p.domain in p.answer for p in written)
    assert capsys.readouterr().out == ""
    first = json.loads(path.read_text().splitlines()[0])
    assert list(first) == ["id", "messages", "domain"]
    assert [turn["role"] for turn in first["messages"]] == ["user", "assistant"]


def test_existing_answers_are_not_generated_again(loaded, few, tmp_path, monkeypatch):
    path = generate_topic(spec_of(few), tmp_path / "topic.jsonl")
    monkeypatch.setattr(loaded, "forward", lambda *a, **k: pytest.fail("a forward pass was made"))
    written = load_prompts(path)
    assert with_answers(loaded, written, 12) == written
    with pytest.raises(InputError, match="already has an answer"):
        generate_topic(spec_of(str(path)), tmp_path / "again.jsonl")


def test_without_select_prompts_the_tiny_topic_is_continued(loaded, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        export, "with_answers", lambda model, prompts, n, **k: asked.extend(prompts) or []
    )
    generate_topic(parse_config({}), tmp_path / "topic.jsonl")
    assert asked == load_prompts("tiny-transport-topic")


def test_only_a_jsonl_file_is_accepted(tmp_path, few):
    with pytest.raises(InputError, match=r"must be a \.jsonl file"):
        generate_topic(spec_of(few), tmp_path / "topic.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["few.jsonl"]


def test_select_chat_can_differ_from_the_chat_template_of_steered_prompts():
    steered = {"chat": True, "system": "Be brief"}
    assert parse_config({"prompts": steered}).template == TemplateSpec(**steered)
    apart = parse_config({"prompts": steered, "select": {"chat": False}}).template
    assert apart == TemplateSpec(chat=False)  # which leaves the template's options out
    wrapped = parse_config({"prompts": {"chat": False}, "select": {"chat": True}}).template
    assert wrapped == TemplateSpec(chat=True)


def test_answer_tokens_do_not_fit_selection_at_the_assistant_start():
    with pytest.raises(InputError, match=r"drops the assistant start: set select\.at: answer"):
        parse_config({"activations": {"tokens": "answer"}})
    assert spec_of("x.jsonl", activations={"tokens": "answer"}).activations.tokens == "answer"


@pytest.mark.parametrize("tokens", ["last", "diagnostic"])
@pytest.mark.parametrize(
    "read", [{"select": {"at": "prompt"}}, {"sweep": {"directions": ["auroc@prompt"]}}]
)
def test_selection_on_whole_prompts_needs_all_their_tokens(tokens, read):
    with pytest.raises(InputError, match=r"activations of whole prompts: set activations\.tokens"):
        parse_config({"activations": {"tokens": tokens}, **read})
    parse_config({"activations": {"tokens": "all"}, **read})
