"""A sweep that is killed at any moment ends, when it is started again, as if it never had been."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).with_name("killing.py")


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict:
    """What `killing.py` found; the folder of the sweep that was left alone under `whole`."""
    folder = tmp_path_factory.mktemp("killed")
    ran = subprocess.run(
        [sys.executable, SCRIPT, folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1]) | {"whole": folder / "whole"}


@pytest.mark.slow
def test_kills_come_at_12_moments_spread_over_the_sweep(killed):
    assert len(killed["kills"]) == 12
    done = [kill["committed"] for kill in killed["kills"] if kill["killed"]]
    assert len(done) >= 10
    assert min(done) == 0
    assert max(done) >= 0.7 * killed["shards"]
    assert len(set(done)) >= 8


@pytest.mark.slow
def test_nothing_committed_is_lost_rewritten_or_computed_again(killed):
    for kill in killed["kills"]:
        assert kill["lost"] == kill["rewritten"] == kill["computed_again"] == 0


@pytest.mark.slow
def test_the_final_tables_are_the_same_bytes_and_hold_every_row_once(killed):
    for kill in killed["kills"]:
        assert kill["shards"] == killed["shards"]
        assert kill["same_rows.parquet"] and kill["same_texts.parquet"]
    rows = pd.read_parquet(killed["whole"] / "rows.parquet")
    assert len(rows) == 8 * (1 + 12 * 4)
    assert not rows.duplicated(["cell", "prompt"]).any()
    texts = pd.read_parquet(killed["whole"] / "texts.parquet")
    assert len(texts) == 8 * (1 + 3 * 2)
    assert not texts.duplicated(["cell", "prompt", "sample"]).any()
