"""Prompts of every kind: what the model reads of text, conversations and token ids."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import family_tokenizer

from saelens_steer.config import TemplateSpec
from saelens_steer.data import (
    Prompt,
    as_prompts,
    check_disjoint,
    encode_prompts,
    load_prompts,
    prompts_hash,
)
from saelens_steer.errors import InputError

USER, OTHER = (
    {"role": "user", "content": "add two numbers"},
    {"role": "user", "content": "now three"},
)
SYSTEM = {"role": "system", "content": "Be brief."}
SAID = {"role": "assistant", "content": "def add(a, b):"}
CONVERSATIONS = {
    "one turn": [USER],
    "with a system turn": [SYSTEM, USER],
    "three turns": [USER, SAID, OTHER],
}
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
"""It marks no answer by a generation prompt, and passes over system turns without a word."""


@pytest.fixture(params=["qwen3", "llama3", "gemma", "smollm2", "mistral"])
def chatty(request):
    """A tokenizer with a chat template, as one of these families has it."""
    family = {"qwen3": "qwen", "mistral": "llama3"}.get(request.param, request.param)
    tokenizer = family_tokenizer(family)
    own = {"qwen3": QWEN3, "gemma": GEMMA, "mistral": MISTRAL}
    tokenizer.chat_template = own.get(request.param, tokenizer.chat_template)
    return tokenizer


@pytest.fixture
def qwen():
    tokenizer = family_tokenizer("qwen")
    tokenizer.chat_template = QWEN3
    return tokenizer


def one(tokenizer, prompt, **template):
    (found,) = encode_prompts(tokenizer, [prompt], TemplateSpec(**template))
    return found


def theirs(tokenizer, messages, **options):
    """The ids that transformers gives."""
    options = {"enable_thinking": False, "add_generation_prompt": True} | options
    return tokenizer.apply_chat_template(messages, return_dict=False, **options)


# --- conversations


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_has_the_ids_that_transformers_gives_it(chatty, name):
    messages = CONVERSATIONS[name]
    if messages[0] == SYSTEM and chatty.chat_template in (GEMMA, MISTRAL):
        says = "leaves out the system turn.*leave it out"
        if chatty.chat_template == GEMMA:
            says = "rejects.*System role.*leave out its system turn, or put it into the user's"
        with pytest.raises(InputError, match=says):
            one(chatty, messages)
        return
    found = one(chatty, messages)
    assert list(found.head) == theirs(chatty, messages)
    assert found.at_start and found.kind == "chat" and found.added == 0
    assert found == one(chatty, messages, chat=True)


def test_text_with_chat_is_a_conversation_of_one_turn(chatty):
    assert one(chatty, USER["content"], chat=True).head == one(chatty, [USER]).head
    bos = chatty.bos_token_id
    assert bos is None or one(chatty, [USER]).head[:2] != (bos, bos)


def test_a_last_turn_by_the_assistant_is_continued_as_by_a_text_generation_pipeline(chatty):
    messages = [USER, SAID]
    found = one(chatty, messages)
    want = theirs(chatty, messages, add_generation_prompt=False, continue_final_message=True)
    assert list(found.head) == want
    assert not found.at_start
    assert chatty.decode(found.head).endswith(SAID["content"])


def test_without_a_generation_prompt_the_conversation_is_as_the_template_writes_it(chatty):
    for messages in ([USER], [USER, SAID]):
        found = one(chatty, messages, add_generation_prompt=False)
        assert list(found.head) == theirs(chatty, messages, add_generation_prompt=False)
        assert not found.at_start


def test_thinking_is_closed_unless_an_option_opens_it(qwen):
    closed, opened = (
        one(qwen, [USER]),
        one(qwen, [USER], chat_template_kwargs={"enable_thinking": True}),
    )
    assert qwen.decode(closed.head).endswith("assistant\n<think>\n\n</think>\n\n")
    assert qwen.decode(opened.head).endswith("assistant\n")
    assert list(opened.head) == theirs(qwen, [USER], enable_thinking=True)
    assert closed == one(qwen, [USER], chat_template_kwargs={"enable_thinking": False})
    assert closed.at_start and opened.at_start


@pytest.mark.parametrize("name", ["enable_thinkin", "tokenize", "add_generation_prompt", "x"])
def test_an_option_that_the_template_never_reads_is_refused(qwen, name):
    template = qwen.chat_template
    with pytest.raises(InputError, match=f"no option '{name}'"):
        one(qwen, [USER], chat_template_kwargs={name: True})
    assert qwen.chat_template == template


def test_a_system_message_comes_first_and_is_refused_beside_another(qwen):
    assert one(qwen, [USER], system="Be brief.").head == one(qwen, [SYSTEM, USER]).head
    with pytest.raises(InputError, match="already begins with a system turn: leave out system"):
        one(qwen, [SYSTEM, USER], system="Be brief.")


def test_content_as_parts_is_their_text(qwen):
    parts = [{"type": "text", "text": "add "}, {"type": "text", "text": "two numbers"}]
    assert one(qwen, [{"role": "user", "content": parts}]).head == one(qwen, [USER]).head


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (
            [{"role": "human", "content": "x"}],
            "'human': it should be system, user or assistant",
        ),
        ([{"content": "x"}], "role None"),
        ([{"role": "user"}], "no content"),
        ([{"role": "user", "content": None}], "no content"),
        ([{"role": "user", "content": 3}], "content of type int"),
        ([{"role": "user", "content": " \n"}], "is empty"),
        ([USER, {"role": "assistant", "content": ""}], r"messages\[1\] of .* is empty"),
        (
            [{"role": "user", "content": [{"type": "image", "url": "x.png"}]}],
            "type 'image': only text",
        ),
        ([{"role": "user", "content": ["x"]}], "type 'str'"),
        ([{"role": "user", "content": "\ud800"}], "surrogate"),
        ([USER, {"role": "assistant", "content": "", "tool_calls": [{}]}], "calls tools"),
        ([SYSTEM], "no user turn"),
        ([], "empty list|no messages"),
    ],
)
def test_a_message_that_no_template_could_write_is_refused_in_one_sentence(
    qwen, jsonl, unchecked, messages, says
):
    with pytest.raises(InputError, match=says):
        as_prompts(qwen, [messages])
    with pytest.raises(InputError, match=says):
        Prompt(messages=messages)
    if "\ud800" not in str(messages):
        with pytest.raises(InputError, match=says) as refusal:
            load_prompts(jsonl({"messages": messages}))
        assert "set.jsonl line 1" in str(refusal.value)


# --- plain text, and text that holds the template


def test_plain_text_is_raw_which_is_said_once_where_a_template_exists(chatty, capsys):
    for _ in range(2):
        found = one(chatty, "add two numbers")
        assert list(found.head) == chatty("add two numbers")["input_ids"]
        assert found.kind == "plain" and not found.at_start
    said = capsys.readouterr().err
    assert said.count("chat=True (prompts.chat: true)") == 1
    one(family_tokenizer("gpt2"), "add two numbers")
    one(chatty, "add two numbers", chat=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("chat", [None, True, False])
def test_text_that_holds_the_template_is_never_wrapped_again(chatty, chat, capsys):
    for messages in CONVERSATIONS.values():
        if messages[0] == SYSTEM:
            continue
        asked = chatty.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        found = one(chatty, asked, chat=chat)
        assert list(found.head) == chatty(asked, add_special_tokens=False)["input_ids"]
        assert found.at_start and found.kind == "templated"
        closed = one(chatty, asked + "It is", chat=chat)
        assert not closed.at_start
    assert capsys.readouterr().err.count("not wrapped") == (chat is True)


def test_a_template_without_special_tokens_is_recognised_by_its_end():
    tokenizer = family_tokenizer("gpt2")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    asked = "user: add two numbers\nassistant:"
    assert one(tokenizer, asked, chat=True).head == one(tokenizer, [USER]).head
    assert one(tokenizer, asked).at_start
    assert not one(tokenizer, "user: add two numbers\n").at_start


@pytest.mark.parametrize(
    "option",
    [{"system": "x"}, {"chat_template_kwargs": {"a": 1}}, {"add_generation_prompt": False}],
)
def test_options_of_the_template_are_refused_for_what_is_read_as_it_is(qwen, option):
    (name,) = option
    asked = qwen.apply_chat_template([USER], tokenize=False)
    for prompt, what in (("add", "plain text"), (asked, "already contains"), ([5, 6], "token ids")):
        with pytest.raises(InputError, match=f"{name} applies to the chat template.*{what}"):
            one(qwen, prompt, **option)
    with pytest.raises(ValueError, match=f"{name} needs the chat template"):
        TemplateSpec(chat=False, **option)


def test_a_conversation_cannot_be_read_without_the_template(qwen):
    with pytest.raises(InputError, match="leave out chat=False"):
        one(qwen, [USER], chat=False)


# --- token ids


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_token_ids_are_read_as_they_are(chatty, unchecked, kind):
    asked = theirs(chatty, [USER])
    found = one(chatty, kind(asked))
    assert list(found.head) == asked and found.at_start and found.added == 0
    assert found.prompt.text == chatty.decode(asked)
    assert Prompt("1", ids=kind(asked)) == Prompt("1", ids=asked)
    assert one(chatty, [*torch.tensor(asked)]).head == found.head
    cut = one(chatty, kind(asked[1:-1]))
    assert list(cut.head) == asked[1:-1] and not cut.at_start


@pytest.mark.parametrize("ids", [[-1], [3, True], [3, 1.5], [], [10**12], torch.tensor([[3, 4]])])
def test_what_is_no_token_id_is_refused(qwen, unchecked, ids):
    with pytest.raises(InputError, match=r"token id|nothing|float|bool|list of list"):
        as_prompts(qwen, [ids])
    with pytest.raises(InputError, match="token id"):
        Prompt(ids=ids)


# --- lists


@pytest.mark.parametrize(
    ("prompts", "line"),
    [
        ("add", r"write prompts=\['add'\]"),
        ([USER, SAID], r"write prompts=\[messages\]"),
        ([3, 4, 5], r"write prompts=\[ids\]"),
        (USER, r"write prompts=\[\[message\]\]"),
        (Prompt(text="x"), r"write prompts=\[prompt\]"),
        (torch.ones(2, 3, dtype=torch.long), r"row\.tolist\(\) for row"),
        (pd.DataFrame({"prompt": ["add"]}), r"write prompts=list\(table\['prompt'\]\)"),
        (None, "prompts is a single NoneType"),
        (5, "prompts is a single int"),
        (["add", USER], r"prompts\[1\] is a single message: write \[message\]"),
        (["add", 5], r"prompts\[1\] is a int: it should be text, a Prompt"),
        ([["add", "two"]], r"prompts\[0\] is a list of str"),
        ([["add", 2]], r"prompts\[0\] is a list of int and str"),
        (["add", ""], r"prompts\[1\] has no text"),
    ],
)
def test_a_prompt_outside_a_list_is_refused_with_the_line_to_write(qwen, unchecked, prompts, line):
    with pytest.raises(InputError, match=line):
        as_prompts(qwen, prompts)


def test_all_kinds_stand_in_one_list_and_are_numbered(qwen):
    named = Prompt("own", "print hello", "a")
    found = as_prompts(qwen, ["add", [USER], [5, 6], named, Prompt(text="free", answer="x")])
    assert [p.id for p in found] == ["1", "2", "3", "own", "5"]
    assert [p.text for p in found] == [
        "add",
        "add two numbers",
        qwen.decode([5, 6]),
        *("print hello", "free"),
    ]
    assert found[3] is named and found[4].answer == "x"


@pytest.mark.parametrize("kind", [tuple, np.array, pd.Series, iter])
def test_texts_may_come_in_any_list(qwen, kind):
    assert [p.text for p in as_prompts(qwen, kind(["add", "two"]))] == ["add", "two"]


@pytest.mark.parametrize(
    "fields",
    [{"text": None}, {"text": 5}, {"id": 3, "text": "x"}, {"text": "x", "domain": None},
     {"text": "x", "answer": ["a"]}, {"text": "half \ud800"}, {"text": "x", "answer": "\ud800"}],
)  # fmt: skip
def test_fields_of_a_prompt_are_text(fields, unchecked):
    with pytest.raises(InputError, match=r"give a string|surrogate"):
        Prompt(**fields)


def test_token_ids_with_another_text_are_refused_once_the_tokenizer_tells(qwen):
    shown = qwen.decode([5, 6])
    assert as_prompts(qwen, [Prompt(text=shown, ids=[5, 6])])[0].text == shown
    with pytest.raises(InputError, match="both text and ids"):
        as_prompts(qwen, [Prompt(text="something else", ids=[5, 6])])


def test_an_answer_needs_the_place_where_it_begins(chatty):
    answered = Prompt("1", messages=[USER], answer="def add(a, b):")
    found = one(chatty, answered)
    assert found.ids == found.head + found.answer
    with pytest.raises(InputError, match=r"has an answer.*remove one of the two"):
        one(chatty, answered, add_generation_prompt=False)
    assert one(chatty, [USER], add_generation_prompt=False).answer == ()


@pytest.mark.parametrize(
    "broken", ["{{ 'a' + 1 }}", "{{ raise_exception('no') }}", "{{ messages[0].content.x.y }}"]
)
def test_a_template_that_fails_is_refused_for_chats_and_ignored_for_plain_text(qwen, broken):
    qwen.chat_template = broken
    with pytest.raises(InputError, match="the chat template rejects prompt '1'"):
        one(qwen, [USER])
    assert one(qwen, "plain").kind == "plain"


def test_tables_show_the_last_user_turn_of_a_conversation():
    assert Prompt(messages=[SYSTEM, USER, SAID, OTHER]).text == "now three"
    assert Prompt(messages=[USER, SAID]).text == "add two numbers"


@pytest.mark.parametrize("more", [{"text": "x"}, {"ids": [1]}])
def test_a_prompt_of_two_kinds_is_refused(more):
    with pytest.raises(InputError, match="give one of the two"):
        Prompt(messages=[USER], **more)


# --- everything that is read counts


def test_hash_and_disjointness_look_at_all_turns_and_ids():
    kinds = [
        Prompt(text="now three"),
        Prompt(messages=[USER, SAID, OTHER]),
        Prompt(messages=[OTHER, SAID, OTHER]),
        Prompt(messages=[SYSTEM, OTHER]),
        Prompt(ids=[1, 2]),
        Prompt(ids=[2, 1]),
    ]
    assert len({prompts_hash([p]) for p in kinds}) == len(kinds)
    assert len({hash(p.content) for p in kinds}) == len(kinds)
    for i, prompt in enumerate(kinds):
        check_disjoint([prompt], kinds[:i] + kinds[i + 1 :])
        with pytest.raises(InputError, match="both steered and used for selection"):
            check_disjoint([prompt], kinds)
    with pytest.raises(InputError, match="both steered"):  # a text is a user's turn
        check_disjoint([Prompt(text="now three")], [Prompt(messages=[OTHER])])


def test_words_are_added_to_the_last_turn_of_the_user():
    assert Prompt("1", "add").followed_by("now").text == "add now"
    asked = Prompt("1", messages=[SYSTEM, USER]).followed_by("in code")
    assert asked.messages[-1]["content"] == asked.text == "add two numbers in code"
    for prompt in (Prompt("1", ids=[3]), Prompt("1", messages=[USER, SAID])):
        with pytest.raises(InputError, match="does not end in a user turn"):
            prompt.followed_by("now")


# --- files


@pytest.mark.parametrize("column", ["messages", "prompt"])
def test_a_row_may_be_a_conversation_whose_last_assistant_turn_is_the_answer(jsonl, column):
    rows = [{column: [SYSTEM, USER, SAID], "domain": "code"}, {column: [USER]}, {"text": "plain"}]
    found = load_prompts(jsonl(*rows))
    assert found == [
        Prompt("1", "", "code", SAID["content"], [SYSTEM, USER]),
        Prompt("2", messages=[USER]),
        Prompt("3", "plain"),
    ]
    again = load_prompts(jsonl(*(p.to_row() for p in found), name="again.jsonl"))
    assert again == found


def test_a_row_may_hold_token_ids_under_prompt(jsonl, qwen):
    path = jsonl({"prompt": [5, 6, 7], "id": "a"})
    assert load_prompts(path) == [Prompt("a", ids=[5, 6, 7])]
    assert one(qwen, load_prompts(path)[0]).head == (5, 6, 7)


def test_messages_come_before_a_text_beside_them_and_two_answers_are_refused(jsonl):
    (found,) = load_prompts(jsonl({"prompt": "add", "messages": [USER, SAID, OTHER, SAID]}))
    assert found.messages == (USER, SAID, OTHER) and found.answer == SAID["content"]
    with pytest.raises(InputError, match=r"line 1 has two answers"):
        load_prompts(jsonl({"messages": [USER, SAID], "answer": "y"}, name="two.jsonl"))


def test_extra_keys_of_messages_change_nothing(jsonl):
    row = {"messages": [{**USER, "name": None, "country": "x"}]}
    assert load_prompts(jsonl(json.dumps(row))) == [Prompt("1", messages=[USER])]
