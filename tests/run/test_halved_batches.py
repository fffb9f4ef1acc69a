"""A run whose batches do not fit records them at once, and resumes to the same result."""

import json
from functools import wraps

import pytest
import torch

import saelens_steer.sweeps.logits as engine
import saelens_steer.sweeps.texts as writing
from saelens_steer.config import parse_config
from saelens_steer.pipeline.run import run

pytestmark = pytest.mark.slow

SMALL = [
    "sae.train.training_tokens=20000",
    "sae.train.d_sae=128",
    "prompts.limit=5",
    "select.k=2",
    "sweep.n_controls=40",
    "sweep.alphas=[-4,0,4]",
    "sweep.batch_tokens=512",
    "sweep.completions.max_new_tokens=4",
    "sweep.completions.top=1",
    "metrics=[kl,latex_first]",
    "label=null",
]


class Stopped(Exception):
    """Interrupts a run."""


@pytest.fixture
def cramped(monkeypatch):
    """A model on which at most twelve rows fit."""
    real = engine.measure

    @wraps(real)
    def narrow(sweep, whole, batch):
        if len(batch) > 12:
            raise torch.OutOfMemoryError("full")
        return real(sweep, whole, batch)

    monkeypatch.setattr(engine, "measure", narrow)


def rows_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "sweep").glob("*.parquet")}


def test_halved_batches_are_in_provenance_at_once_and_halved_again_after_a_stop(
    cramped, tmp_path, monkeypatch
):
    spec = parse_config({}, SMALL)
    run(spec, tmp_path / "whole", until="sweep")

    def stop(*args):
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(writing, "write_batch", stop)
        with pytest.raises(Stopped):
            run(spec, tmp_path / "stopped", until="sweep")
    about = json.loads((tmp_path / "stopped" / "provenance.json").read_text())
    assert about["halved_batches"] and min(about["halved_batches"]) > 12
    run(spec, tmp_path / "stopped", until="sweep")
    assert rows_of(tmp_path / "stopped") == rows_of(tmp_path / "whole")
    again = json.loads((tmp_path / "stopped" / "provenance.json").read_text())
    assert again["halved_batches"] == about["halved_batches"]
