"""Whatever a config, prompt, checkpoint or answer holds is accepted, or refused in plain words."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import random_qwen3, small_tokenizer

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from faults import odd  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

TIMES = 20
"""Examples of a nightly run, in multiples of the default."""


def accepted(act: Callable[[], Any], seconds: float = 5.0) -> Any:
    """What `act` returns; None if it is refused with one line, or one for each mistake."""
    from saelens_steer.errors import InputError

    start, found = time.process_time(), None
    try:
        found = act()
    except InputError as error:
        first, *more = str(error).split("\n")
        assert first.strip() and len(str(error)) < 20_000
        assert all(line.startswith("- ") for line in more), str(error)
        assert "For further information" not in str(error) and "Traceback" not in str(error)
    assert time.process_time() - start < seconds
    return found


@dataclass(frozen=True)
class Place:
    """What the laws share."""

    home: Path
    checkpoint: Path


def law_of_configs(data: Any, place: Place) -> None:
    from saelens_steer.config import RunSpec, draft_config, dump_config, parse_config
    from saelens_steer.pipeline.rules import check_config

    def act() -> RunSpec:
        draft = draft_config(data)
        check_config(draft, place.home / "run")
        return draft.spec

    if spec := accepted(act):
        text = dump_config(spec)
        assert dump_config(parse_config(yaml.safe_load(text), [])) == text


def law_of_config_texts(text: str, place: Place) -> None:
    from saelens_steer.config import load_config

    file = place.home / "config.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    accepted(lambda: load_config(file))


def law_of_prompts(rows: list[Any], place: Place) -> None:
    from saelens_steer.data import encode_prompts, load_prompts

    file = place.home / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if (prompts := accepted(lambda: load_prompts(file))) is not None:
        encoded = accepted(lambda: encode_prompts(TOKENIZER, prompts))
        assert encoded is None or len(encoded) == len(prompts)


def law_of_checkpoints(cfg: Any, place: Place) -> None:
    import torch

    from saelens_steer.model import load_model

    (place.checkpoint / "config.json").write_text(json.dumps(cfg))
    model = accepted(lambda: load_model(place.checkpoint, device="cpu"), seconds=30)
    if model is not None:  # proven equal to the checkpoint when loaded
        with torch.no_grad():
            assert model(torch.arange(3)[None]).isfinite().all()


def law_of_texts(text: str, place: Place) -> None:
    from saelens_steer.metrics import resolve_metrics

    names = ["code_validity", "latex_validity", "latex_first", "distinct_words"]
    mentions = {"mentions": {"name": "m", "words": ["car", "x"]}}
    start = time.process_time()
    for metric in resolve_metrics([*names, mentions, "kl"], TOKENIZER, len(TOKENIZER) + 8):
        for truncated in (False, True) if hasattr(metric, "from_start") else ():
            found = metric.fn(text, truncated)
            assert all(math.isnan(v) or 0 <= v < math.inf for v in dict(found).values())
    assert time.process_time() - start < 3


def law_of_answers(given: tuple[str, bool], place: Place) -> None:
    from saelens_steer.labels import reading
    from saelens_steer.labels.labeller import LabelError
    from saelens_steer.labels.server import Answer

    answer, start = Answer(*given, "m"), time.process_time()
    for read in (
        reading.read_name,
        lambda a: reading.read_numbers(a, 10),
        lambda a: reading.read_letters(a, 3),
    ):
        try:
            assert read(answer) is not None
        except LabelError as error:
            assert "\n" not in str(error)
    assert time.process_time() - start < 10  # hundreds of openings, each nested deeply


TOKENIZER = small_tokenizer()
LAWS: dict[str, tuple[int, Callable[[Any, Place], None], Any]] = {
    "configs": (170, law_of_configs, odd.mutated(odd.CONFIG)),
    "config texts": (60, law_of_config_texts, odd.edited()),
    "prompts": (
        80,
        law_of_prompts,
        odd.mutated(st.lists(st.sampled_from(odd.ROWS), min_size=1, max_size=4)).filter(
            lambda d: isinstance(d, list)
        ),
    ),
    "checkpoints": (20, law_of_checkpoints, None),
    "texts": (90, law_of_texts, odd.pieces(odd.CODE + odd.LATEX)),
    "answers": (80, law_of_answers, st.tuples(odd.pieces(odd.JSON), st.booleans())),
}
"""What is read → examples of the default run, what must hold, and what is drawn."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    home = tmp_path_factory.mktemp("inputs")
    return Place(home, random_qwen3(home / "model", num_hidden_layers=1))


def explore(name: str, place: Place, times: int) -> None:
    """Draw examples, the same each time, and check that the law holds for each."""
    examples, law, drawn = LAWS[name]
    if drawn is None:
        drawn = odd.mutated(st.just(json.loads((place.checkpoint / "config.json").read_text())))
    settings = hypothesis.settings(
        max_examples=examples * times,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=[*hypothesis.HealthCheck],
    )
    settings(hypothesis.given(drawn)(lambda given: law(given, place)))()


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.usefixtures("unchecked")
def test_any_input_is_accepted_or_refused_in_plain_words(name, place):
    explore(name, place, 1)


@pytest.mark.nightly
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.usefixtures("unchecked")
def test_twenty_times_as_many(name, place):
    explore(name, place, TIMES)


def test_500_inputs_are_drawn():
    assert sum(examples for examples, *_ in LAWS.values()) == 500
