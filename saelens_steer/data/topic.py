"""Writes the topic prompts, thirty kinds of transport: `python -m saelens_steer.data.topic`.

`transport-topic` has the beginnings of English sentences, for a model to continue as they stand
(chat: false). `tiny-transport-topic` has requests and sentences in the tiny model's own words, for
its chat template: of sentences without the template it loses the thread.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from saelens_steer.data.rows import SHIPPED
from saelens_steer.files import write_jsonl
from saelens_steer.model import (
    AIR,
    BEGINNINGS,
    GOALS,
    NAMES,
    RAIL,
    ROAD,
    SNOW,
    TRANSPORT_KINDS,
    WATER,
    WEATHER,
    fill,
)
from saelens_steer.model.tiny.grammar import split_of
from saelens_steer.model.tiny.grammar.transport import REQUESTS

PER_KIND = 10
SPLIT = "select"
"""Of the grammar: the tiny model was not trained on these, and nothing steered is among them."""

ANY_WAY = (
    "We had been waiting for the <kind> for an hour when",
    "The first thing he noticed about the <kind> was",
    "A <kind> like this one is made for",
    "She had never travelled by <kind> before, so",
)
BY_WAY = {
    ROAD: (
        "The <kind> pulled up in front of the old hotel and",
        "When the <kind> turned off the main road,",
        "She left the <kind> at the side of the road because",
        "It was raining when the <kind> stopped at the crossroads and",
        "My grandfather bought the <kind> in the spring, and since then",
        "On the way to the market the <kind> began to",
    ),
    RAIL: (
        "The <kind> pulled into the station and",
        "As the <kind> began to move, the passengers",
        "He found a seat by the window of the <kind> and",
        "The last <kind> of the evening was already",
        "Every morning the <kind> carries hundreds of people to",
        "After the power cut the <kind> stood between two stations until",
    ),
    WATER: (
        "The <kind> left the harbour before sunrise and",
        "Far out on the water the <kind> began to",
        "When the storm came up, the <kind> was still",
        "They brought the <kind> close to the rocks because",
        "The old <kind> had crossed the bay many times, but",
        "The waves lifted the <kind> and",
    ),
    AIR: (
        "The <kind> rose above the clouds and",
        "High over the mountains the <kind> began to",
        "The pilot of the <kind> looked down at",
        "Strong winds had kept the <kind> on the ground until",
        "People came from all over the valley to see the <kind>, which",
        "Just before the <kind> landed,",
    ),
    SNOW: (
        "The <kind> slid to a stop in front of the cabin and",
        "Halfway down the slope the <kind> began to",
        "When the <kind> reached the frozen lake,",
        "Fresh snow had covered the <kind> during the night, so",
        "The children ran after the <kind> until",
        "It was getting dark when the <kind> left the village and",
    ),
}
"""Beginnings that suit road, rail, water, air and snow."""


def write_topics(folder: Path = SHIPPED) -> list[Path]:
    """Both sets as JSONL."""
    return [
        write_jsonl(folder / "transport-topic.jsonl", _rows(openings)),
        write_jsonl(folder / "tiny-transport-topic.jsonl", _rows(tiny_texts)),
    ]


def openings(kind: str) -> list[str]:
    """Ten beginnings of English sentences about a kind of transport."""
    own = next(texts for kinds, texts in BY_WAY.items() if kind in kinds)
    return [fill(text, {"kind": kind}) for text in (*own, *ANY_WAY)]


def tiny_texts(kind: str) -> list[str]:
    """Ten requests and sentences in the words of the tiny grammar, each form used in turn."""
    rng = random.Random(f"topic/{kind}")
    forms = [_filled(form, kind, rng) for form in REQUESTS + BEGINNINGS]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*forms))
    return list(itertools.islice(filter(None, turns), PER_KIND))


def _filled(form: str, kind: str, rng: random.Random) -> list[str]:
    """Every text of a form that belongs to the split, in random order."""
    texts = [fill(form, values) for values in _values(kind)]
    found = sorted({text for text in texts if split_of(text) == SPLIT})
    rng.shuffle(found)
    return found


def _values(kind: str) -> Iterator[Mapping[str, str]]:
    for name, goal, weather in itertools.product(NAMES, GOALS, WEATHER):
        yield {"kind": kind, "name": name, "goal": goal, "weather": weather}


def _rows(texts_of: Callable[[str], list[str]]) -> list[dict[str, str]]:
    """A row for each text of each kind; ids count within a kind."""
    return [
        {"id": f"{kind.replace(' ', '-')}-{number:02d}", "text": text, "domain": kind}
        for kind in TRANSPORT_KINDS
        for number, text in enumerate(texts_of(kind), start=1)
    ]


if __name__ == "__main__":
    for path in write_topics():
        print(path)
