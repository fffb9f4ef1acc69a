"""Batches that do not fit into memory are halved, noted at once, and leave every row in place."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from model.model_batches import rows

import saelens_steer.sweeps.logits as engine
import saelens_steer.sweeps.texts as writing
from saelens_steer.config import CompletionSpec
from saelens_steer.metrics import resolve_metrics
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import (
    NO_STORE,
    BatchSplitter,
    CompletionSweep,
    LogitSweep,
    UnsteeredPass,
    grid,
    run_completions,
)
from saelens_steer.sweeps.logits import logit_shards
from saelens_steer.sweeps.plan import Batch
from saelens_steer.sweeps.strengths import kl_steps

WHOLE = Batch(tuple(range(5)), (0, 1, 2))
FULL = [torch.OutOfMemoryError("full"), MemoryError(), RuntimeError("can't allocate memory")]


def fits(batch: Batch, most: int, error: Exception, tried: list[int]) -> list[tuple[int, int]]:
    """The rows of a batch, where there are no more than so many."""
    tried.append(len(batch))
    if len(batch) > most:
        raise error
    return list(zip(batch.row_cells, batch.row_prompts, strict=True))


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_until_it_does(error):
    noted, tried = [], []
    splitter = BatchSplitter(note=lambda halved: noted.append(dict(halved)))
    found = splitter.run(WHOLE, partial(fits, most=3, error=error, tried=tried))
    every = [pair for pairs in found for pair in pairs]
    assert sorted(every) == [(c, p) for c in range(5) for p in range(3)]
    assert list(noted[0].values()) == [15] and noted[-1] == splitter.halved
    assert all(len(pairs) <= 3 for pairs in found)


def test_what_did_not_fit_before_a_stop_is_not_tried_again():
    tried, again, other = [], [], []
    splitter = BatchSplitter()
    before = splitter.run(WHOLE, partial(fits, most=3, error=MemoryError(), tried=tried))
    stopped = BatchSplitter(dict(splitter.halved))
    after = stopped.run(WHOLE, partial(fits, most=3, error=MemoryError(), tried=again))
    assert after == before and max(again) <= 3 < max(tried)
    fitting = Batch(tuple(range(5)), (3, 4, 5))  # a batch of another shape is tried for itself
    stopped.run(fitting, partial(fits, most=15, error=MemoryError(), tried=other))
    assert other == [15]


def test_a_single_row_that_does_not_fit_is_an_error_and_so_is_any_other_error():
    with pytest.raises(MemoryError):
        BatchSplitter().run(Batch((0,), (0,)), partial(fits, most=0, error=MemoryError(), tried=[]))
    with pytest.raises(RuntimeError, match="shapes"):
        BatchSplitter().run(WHOLE, partial(fits, most=3, error=RuntimeError("shapes"), tried=[]))


def cells(kind, model, **more):
    """A sweep of four directions at two strengths."""
    draw = torch.Generator().manual_seed(0)
    unsteered_pass = UnsteeredPass(
        model=model,
        hook_name="blocks.2.hook_resid_pre",
        prompts=[row[0].tolist() for row in rows()],
        new_tokens=5,
    )
    directions = plain_directions(torch.randn(4, model.cfg.d_model, generator=draw))
    return kind(
        unsteered_pass=unsteered_pass, directions=directions, cells=grid(4, (-3.0, 3.0)), **more
    )


@pytest.fixture
def cramped(monkeypatch):
    """No more than three rows fit."""

    def narrow(module, name: str) -> None:
        real = getattr(module, name)

        def run(*given):
            if len(given[-1]) > 3:
                raise torch.OutOfMemoryError("full")
            return real(*given)

        monkeypatch.setattr(module, name, run)

    return narrow


def test_the_rows_of_halved_batches_are_the_rows(random_model, cramped):
    metrics = resolve_metrics(["kl"], random_model.tokenizer, 512)
    sweep = cells(LogitSweep, random_model, metrics=metrics)
    (_, want), *_ = logit_shards(sweep, NO_STORE)
    cramped(engine, "measure")
    splitter = BatchSplitter()
    (_, found), *_ = logit_shards(sweep, NO_STORE, splitter=splitter)
    order = ["cell", "prompt"]
    found, want = (t.sort_values(order, ignore_index=True) for t in (found, want))
    assert splitter.halved
    np.testing.assert_allclose(found["kl"], want["kl"], atol=1e-6)
    assert found[order].equals(want[order])


def test_texts_of_halved_batches_are_the_texts_also_where_they_are_drawn(random_model, cramped):
    spec = CompletionSpec(max_new_tokens=5, temperature=1.0)
    sweep = cells(CompletionSweep, random_model, metrics=[], spec=spec)
    order = ["cell", "prompt"]
    want = run_completions(sweep).sort_values(order, ignore_index=True)
    cramped(writing, "write_batch")
    splitter = BatchSplitter()
    found = run_completions(sweep, splitter=splitter).sort_values(order, ignore_index=True)
    assert splitter.halved
    assert found.equals(want)


def test_strengths_are_found_in_halved_batches_too(random_model, monkeypatch):
    metrics = resolve_metrics(["kl"], random_model.tokenizer, 512)
    sweep = cells(LogitSweep, random_model, metrics=metrics)
    sweep = replace(sweep, cells=grid(4, (-0.1, 0.1)))
    want, real, splitter = kl_steps(sweep, 5.0), engine.measure, BatchSplitter()

    def narrow(scoring, whole, batch):
        if len(batch) > 3:
            raise torch.OutOfMemoryError("full")
        return real(scoring, whole, batch)

    monkeypatch.setattr(engine, "measure", narrow)
    assert kl_steps(sweep, 5.0, splitter) == pytest.approx(want, rel=1e-3)
    assert splitter.halved
