"""No alarm on right pairs, and no harmful fault unseen: the tiny model and random checkpoints."""

from __future__ import annotations

import pandas as pd
import pytest
from checkpoints import random_gemma3, random_llama, random_qwen3

import saelens_steer as ss
from benchmarks.audit import random_places, random_scenes, rows, summary, tiny_places, tiny_scenes

CHECKPOINTS = {"qwen3": random_qwen3, "llama": random_llama, "gemma3": random_gemma3}


@pytest.fixture(scope="module")
def random_rows(tmp_path_factory) -> pd.DataFrame:
    folders = {name: make(tmp_path_factory.mktemp(name)) for name, make in CHECKPOINTS.items()}
    scenes = random_scenes((name, ss.load_model(str(f))) for name, f in folders.items())
    return pd.DataFrame(rows([p for scene in scenes for p in random_places(scene)], scenes))


@pytest.fixture(scope="module")
def tiny_rows(tiny_model) -> pd.DataFrame:
    scenes = tiny_scenes(tiny_model)
    return pd.DataFrame(rows(tiny_places(*scenes), scenes))


def missed(table: pd.DataFrame) -> list[tuple[str, str]]:
    silent = table[table["harmful"] & (table["failures"].map(len) == 0)]
    return list(zip(silent["place"], silent["fault"], strict=True))


def alarms(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    loud = table[(table["fault"] == "") & (table["failures"].map(len) > 0)]
    return list(zip(loud["place"], loud["failures"], strict=True))


@pytest.mark.slow
def test_on_random_checkpoints_right_pairs_pass_and_harmful_faults_do_not(random_rows):
    assert (alarms(random_rows), missed(random_rows)) == ([], [])


@pytest.mark.slow
def test_on_the_tiny_model_right_pairs_pass_and_harmful_faults_do_not(tiny_rows):
    assert (alarms(tiny_rows), missed(tiny_rows)) == ([], [])


@pytest.mark.slow
def test_a_fine_tuned_model_is_told_from_its_base(tiny_rows):
    swapped = tiny_rows[tiny_rows["fault"].str.startswith("model ")]
    assert swapped["harmful"].any()
    assert all(len(found) > 0 for found in swapped.loc[swapped["harmful"], "failures"])


@pytest.mark.slow
def test_the_pairs_are_many_and_most_faults_need_no_promise(random_rows, tiny_rows):
    found = summary(pd.concat([random_rows, tiny_rows], ignore_index=True))
    assert found["right_pairs"] >= 24
    assert found["faults"] >= 24 and found["caught"] == found["faults"]
    assert found["caught_without_promises"] >= 0.9 * found["faults"]
