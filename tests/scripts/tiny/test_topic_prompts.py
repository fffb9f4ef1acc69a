"""The topic prompts: thirty kinds of transport, ten texts each, as the script writes them."""

from __future__ import annotations

from collections import Counter

import pytest

from saelens_steer.data import load_prompts
from saelens_steer.data.sources import SHIPPED
from scripts.tiny.data import write_topics
from scripts.tiny.grammar import split_of
from scripts.tiny.prose_and_transport import TRANSPORT_KINDS

SETS = ("transport-topic", "tiny-transport-topic")


def test_the_shipped_sets_are_what_the_script_writes(tmp_path):
    written = write_topics(tmp_path)
    assert [path.stem for path in written] == list(SETS)
    for path in written:
        assert path.read_text() == (SHIPPED / path.name).read_text()


@pytest.mark.parametrize("name", SETS)
def test_each_of_the_thirty_kinds_has_ten_texts_that_name_it(name):
    prompts = load_prompts(name)
    assert list(Counter(p.domain for p in prompts).items()) == [(k, 10) for k in TRANSPORT_KINDS]
    assert len({p.text for p in prompts}) == 300
    for prompt in prompts:
        assert prompt.domain in prompt.text and prompt.answer is None
    assert next(p.id for p in prompts if p.domain == "cable car") == "cable-car-01"


def test_a_beginning_stops_where_the_next_word_is_open():
    for prompt in load_prompts("transport-topic"):
        assert prompt.text[-1].isalpha() or prompt.text[-1] == ","
        assert "<" not in prompt.text and prompt.text[0].isupper()


def test_the_tiny_models_texts_are_new_to_it_and_never_steered():
    texts = {p.text for p in load_prompts("tiny-transport-topic")}
    assert {split_of(text) for text in texts} == {"select"}
    assert not texts & {p.text for p in load_prompts("tiny-transport")}
