"""Write the data that the package ships: `python -m scripts.tiny.data`.

The prompt sets are random draws from the grammar, never chosen by results. `transport-topic` has
beginnings of English sentences for a model to continue without a template (chat: false).
`tiny-transport-topic` has prompts in the tiny model's own vocabulary, because without its chat
template that model is incoherent. The corpus `tiny` is the chats drawn by seed 0.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from saelens_steer.data import Prompt, token_ids
from saelens_steer.data.corpus import TINY_CHATS
from saelens_steer.data.sources import SHIPPED
from saelens_steer.files import write_bytes, write_jsonl
from saelens_steer.model.snapshot import TINY_WEIGHTS
from scripts.tiny.grammar import Example, examples, split_of
from scripts.tiny.prose_and_transport import (
    AIR,
    BEGINNINGS,
    GOALS,
    NAMES,
    RAIL,
    REQUESTS,
    ROAD,
    SNOW,
    TRANSPORT_KINDS,
    WATER,
    WEATHER,
)
from scripts.tiny.slots import fill
from scripts.tiny.texts import Chat, chat_text, chats

DOMAINS = ("code", "math", "prose", "transport")
SEED = 7
PER_KIND = 10
TOPIC_SPLIT = "select"
"""The tiny model was not trained on these texts, and none of them is a steered prompt."""
CORPUS_TOKENS = 650_000
"""In the tiny model's tokens. configs/tiny/sae_grid.yaml needs the most, 625,000."""

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
"""Beginnings for road, rail, water, air and snow."""


def main() -> None:
    """Write everything and print the paths."""
    for path in [*write_prompts(), *write_topics(), write_corpus()]:
        print(path)


def write_prompts(folder: Path = SHIPPED) -> list[Path]:
    """Write the prompts to steer and to select features on, as JSONL."""
    drawn = {
        "tiny-domains-heldout": _draw(("mixed", *DOMAINS), 24, "heldout", SEED + 1),
        "tiny-domains": _draw(DOMAINS, 60, "select"),
        "tiny-code-math-mixed": _draw(("mixed",), 48, "heldout"),
        "tiny-transport": _draw(("transport", "prose"), 24, "heldout"),
    }
    return [
        write_jsonl(folder / f"{name}.jsonl", _prompt_rows(found, answers=name == "tiny-domains"))
        for name, found in drawn.items()
    ]


def _draw(families: tuple[str, ...], n: int, split: str, seed: int = SEED) -> list[Example]:
    return [example for family in families for example in examples(family, n, seed, split)]


def _prompt_rows(drawn: list[Example], answers: bool) -> list[dict[str, object]]:
    """One conversation per example; ids are numbered within each family."""
    counts: dict[str, int] = {}
    rows: list[dict[str, object]] = []
    for e in drawn:
        counts[e.family] = counts.get(e.family, 0) + 1
        answer = e.answer if answers else None
        prompt = Prompt(f"{e.family}-{counts[e.family]:02d}", "", e.family, answer, asked(e.prompt))
        rows.append(prompt.to_row())
    return rows


def asked(text: str) -> list[dict[str, str]]:
    """A conversation of one turn."""
    return [{"role": "user", "content": text}]


def write_topics(folder: Path = SHIPPED) -> list[Path]:
    """Write texts about thirty kinds of transport, as JSONL."""
    return [
        write_jsonl(folder / "transport-topic.jsonl", _topic_rows(openings, chat=False)),
        write_jsonl(folder / "tiny-transport-topic.jsonl", _topic_rows(tiny_texts, chat=True)),
    ]


def _topic_rows(texts_of: Callable[[str], list[str]], chat: bool) -> list[dict[str, object]]:
    """One row per text, a conversation if `chat`; ids are numbered within each kind."""
    return [
        {
            "id": f"{kind.replace(' ', '-')}-{number:02d}",
            **({"messages": asked(text)} if chat else {"text": text}),
            "domain": kind,
        }
        for kind in TRANSPORT_KINDS
        for number, text in enumerate(texts_of(kind), start=1)
    ]


def openings(kind: str) -> list[str]:
    """Ten beginnings of English sentences about a kind of transport."""
    own = next(texts for kinds, texts in BY_WAY.items() if kind in kinds)
    return [fill(text, {"kind": kind}) for text in (*own, *ANY_WAY)]


def tiny_texts(kind: str) -> list[str]:
    """Ten requests and sentences in the tiny grammar's words, cycling through the templates."""
    rng = random.Random(f"topic/{kind}")
    forms = [_filled(form, kind, rng) for form in REQUESTS + BEGINNINGS]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*forms))
    return list(itertools.islice(filter(None, turns), PER_KIND))


def _filled(form: str, kind: str, rng: random.Random) -> list[str]:
    """Every text of a template that belongs to the split, in random order."""
    texts = [fill(form, values) for values in _values(kind)]
    found = sorted({text for text in texts if split_of(text) == TOPIC_SPLIT})
    rng.shuffle(found)
    return found


def _values(kind: str) -> Iterator[Mapping[str, str]]:
    for name, goal, weather in itertools.product(NAMES, GOALS, WEATHER):
        yield {"kind": kind, "name": name, "goal": goal, "weather": weather}


def write_corpus(path: Path = TINY_CHATS) -> Path:
    """Write the chats of seed 0 in the order drawn, as gzipped JSONL.

    The bytes are the same on every run with the same zlib.
    """
    tokenizer = AutoTokenizer.from_pretrained(TINY_WEIGHTS, trust_remote_code=False)
    lines = (json.dumps({"messages": chat}) + "\n" for chat in _enough(tokenizer))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.writelines(line.encode() for line in lines)
    return write_bytes(path, packed.getvalue())


def _enough(tokenizer: PreTrainedTokenizerBase) -> Iterator[Chat]:
    left = CORPUS_TOKENS
    for chat in chats(seed=0):
        if left <= 0:
            return
        left -= len(token_ids(tokenizer, chat_text(chat, tokenizer)))
        yield chat


if __name__ == "__main__":
    main()
