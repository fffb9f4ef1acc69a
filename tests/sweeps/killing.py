"""Sweeps in child processes that are killed, for test_sweeps_killed: `python killing.py FOLDER`.

The model is loaded once; every sweep runs in a fork of this process. Moments are counted in shards
begun and processor time, so a busy machine does not move them. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

import saelens_steer as ss
import saelens_steer.sweeps.logits as logits_module
import saelens_steer.sweeps.texts as texts_module
from saelens_steer.config import CompletionSpec
from saelens_steer.data import encode_prompts
from saelens_steer.metrics import resolve_metrics
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import (
    CompletionSweep,
    LogitSweep,
    Store,
    UnsteeredPass,
    grid,
    run_completions,
)
from saelens_steer.sweeps.logits import run_logits
from saelens_steer.sweeps.plan import shards

KILLS = 12
COMPUTED = "computed.txt"
"""A line for each batch of rows that any process began to compute."""


def begin():
    """A sweep of 12 directions at four strengths, and of a few texts, in some twenty shards."""
    torch.set_num_threads(1)
    model = ss.load_model("tiny-qwen3")
    prompts = encode_prompts(model.tokenizer, ss.load_prompts("tiny-code-math-mixed", 8))
    unsteered_pass = UnsteeredPass(
        model=model,
        hook_name="blocks.4.hook_resid_pre",
        prompts=[list(p.ids) for p in prompts],
        batch_tokens=256,
        new_tokens=8,
    )
    draw = torch.Generator().manual_seed(0)
    directions = plain_directions(torch.randn(12, model.cfg.d_model, generator=draw))
    metrics = resolve_metrics(["kl"], model.tokenizer, model.cfg.d_vocab)
    logits = LogitSweep(
        unsteered_pass=unsteered_pass,
        directions=directions,
        cells=grid(12, (-4, -2, 2, 4)),
        metrics=metrics,
    )
    texts = CompletionSweep(
        unsteered_pass=unsteered_pass,
        directions=directions,
        cells=[(0, 0.0), *grid(3, (-4, 4))],
        metrics=[],
        spec=CompletionSpec(max_new_tokens=8),
    )
    logits_module.shards = partial(shards, rows=32)
    texts_module.COMPLETION_BATCH_FACTOR = 1
    return logits, texts


@dataclass(frozen=True)
class Death:
    """A process dies once it began so many shards and computed for so many seconds more."""

    shards: int
    seconds: float


def carry_out(
    logits: LogitSweep, texts: CompletionSweep, folder: Path, death: Death | None
) -> None:
    """The whole sweep through stores in the folder, and its sorted table as the last file."""
    store = Store(folder / "rows", "k")
    rows = run_logits(logits, noting(store, folder, death)).sort_values(["cell", "prompt"])
    written = run_completions(texts, noting(Store(folder / "texts", "k"), folder, death))
    rows.to_parquet(folder / "rows.parquet", index=False)
    written.sort_values(["cell", "prompt"]).to_parquet(folder / "texts.parquet", index=False)


def noting(store: Store, folder: Path, death: Death | None) -> Store:
    """The store, which also notes the name of every shard that is computed, and may be killed."""
    plain, log = store.frame, folder / COMPUTED

    def frame(name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        def noted() -> pd.DataFrame:
            with log.open("a") as file:
                file.write(name + "\n")
            if death and len(log.read_text().splitlines()) == death.shards:
                signal.setitimer(
                    signal.ITIMER_PROF, death.seconds
                )  # unhandled: as final as kill -9
            return compute()

        return plain(name, noted)

    store.frame = frame  # type: ignore[method-assign]
    return store


def in_child(work: Callable[[], None]) -> tuple[int, float]:
    """Run in a fork: the signal that ended it (0: none), and the processor seconds that it took."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        work()
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a sweep ended with status {os.WEXITSTATUS(status)}")
    return os.WTERMSIG(status), used.ru_utime + used.ru_stime


def committed(folder: Path) -> dict[str, tuple[int, int]]:
    """Shard → inode and time of writing."""
    paths = [*folder.glob("rows/k-*.parquet"), *folder.glob("texts/k-*.parquet")]
    return {p.stem[2:]: (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


def kill_once(
    sweep: Callable[[Path, Death | None], None], folder: Path, death: Death
) -> dict[str, int]:
    """Kill a sweep, finish it, and say what was lost, done twice or written twice."""
    folder.mkdir()
    ended_by, _ = in_child(partial(sweep, folder, death))
    before = committed(folder)
    log = folder / COMPUTED
    begun = len(log.read_text().splitlines())
    in_child(partial(sweep, folder, None))
    after = committed(folder)
    finishing = log.read_text().splitlines()[begun:]
    return {
        "killed": ended_by == signal.SIGPROF,
        "committed": len(before),
        "lost": len(set(before) - set(after)),
        "rewritten": sum(after[name] != before[name] for name in before if name in after),
        "computed_again": len(set(finishing) & set(before)),
        "shards": len(after),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    logits, texts = begin()
    sweep = partial(carry_out, logits, texts)
    whole = folder / "whole"
    whole.mkdir()
    _, duration = in_child(partial(sweep, whole, None))
    n_shards = len(committed(whole))
    draw = random.Random(0)
    found = []
    for number in range(KILLS):
        late = draw.random() if number else 0.0  # the first kill comes before any shard is written
        after, part = divmod(n_shards * (number + late) / KILLS, 1)
        place = folder / f"killed{number}"
        death = Death(shards=int(after) + 1, seconds=max(part * duration / n_shards, 1e-4))
        found.append(kill_once(sweep, place, death))
        for name in ("rows.parquet", "texts.parquet"):
            same = (place / name).read_bytes() == (whole / name).read_bytes()
            found[-1][f"same_{name}"] = int(same)
    print(json.dumps({"shards": n_shards, "kills": found}))


if __name__ == "__main__":
    main()
