"""Chat templates that write today's date: it is said, enters keys, and can be set."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace

import pytest

from saelens_steer.config import TemplateSpec, parse_config
from saelens_steer.data import Prompt, encode_prompts, written_date
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.step import PromptsInput, Step
from saelens_steer.run_folder import RunFolder

OPTION = (
    "{% if date_string is not defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
)
FIXED = '{% set today = strftime_now("%Y-%m-%d") %}'
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CHAT = [Prompt("1", messages=[{"role": "user", "content": "Hello."}])]
PINNED = TemplateSpec(chat_template_kwargs={"date_string": "1 Jan 2020"})


class Clock:
    """The clock of transformers and of this package."""

    today = datetime(2026, 3, 9)

    @classmethod
    def now(cls):
        return cls.today


@pytest.fixture
def clock(monkeypatch):
    for module in ("transformers.utils.chat_template_utils", "saelens_steer.data.chat"):
        monkeypatch.setattr(f"{module}.datetime", Clock)
    monkeypatch.setattr(Clock, "today", datetime(2026, 3, 9))
    return Clock


@pytest.fixture
def taking_a_date(new_tokenizer):
    return new_tokenizer(chat_template=OPTION + "Today: {{ date_string }}\n" + TURNS)


def test_a_date_that_an_option_replaces_is_said_once_with_that_option(taking_a_date, clock, capsys):
    for _ in range(2):
        encode_prompts(taking_a_date, CHAT * 2)
    said = capsys.readouterr().err
    assert said.count("writes today's date into each prompt, '09 Mar 2026'") == 1
    assert "give chat_template_kwargs={'date_string': '09 Mar 2026'}" in said
    encode_prompts(taking_a_date, CHAT, PINNED)
    today = TemplateSpec(chat_template_kwargs={"date_string": "09 Mar 2026"})
    encode_prompts(taking_a_date, CHAT, today)
    assert written_date(taking_a_date, CHAT, today) is None
    encode_prompts(taking_a_date, ["plain text"], TemplateSpec(chat=False))
    assert capsys.readouterr().err == ""


def test_a_date_without_an_option_is_one_in_the_template(new_tokenizer, clock, capsys):
    dated = new_tokenizer(chat_template=FIXED + "Today: {{ today }}\n" + TURNS)
    encode_prompts(dated, CHAT)
    assert "put a date in place of strftime_now(…) in tokenizer.chat_template" in (
        capsys.readouterr().err
    )
    unused = new_tokenizer(chat_template=FIXED + TURNS)
    encode_prompts(unused, CHAT)
    encode_prompts(unused, [Prompt("1", messages=[{"role": "user", "content": "2026-03-09?"}])])
    assert capsys.readouterr().err == ""


def test_another_day_is_another_key_unless_the_date_is_given(taking_a_date, clock, tmp_path):
    def key(prompts, **options):
        spec = parse_config({"prompts": {"source": "tiny-code-math-mixed", **options}})
        model = SimpleNamespace(tokenizer=taking_a_date)
        run = RunContext(spec, RunFolder(tmp_path, lambda _: []), model, "hook", tuple(prompts), ())
        return run.inputs_of(Step("s", "", lambda _: (), lambda _: [PromptsInput("prompts")]))

    given = {"chat_template_kwargs": {"date_string": "1 Jan 2020"}}
    plain = [Prompt("1", "Hello.")]
    before = key(CHAT), key(CHAT, **given), key(plain)
    assert key(CHAT) == before[0]
    clock.today = datetime(2026, 3, 10)
    after = key(CHAT), key(CHAT, **given), key(plain)
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, True]
