"""Sweeps in child processes that are killed, for test_sweeps_killed: `python killing.py FOLDER`.

The model is loaded once; every sweep runs in a fork of this process. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
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

KILLS = 25
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


def carry_out(logits: LogitSweep, texts: CompletionSweep, folder: Path) -> None:
    """The whole sweep through stores in the folder, and its sorted table as the last file."""
    store = Store(folder / "rows", "k")
    rows = run_logits(logits, noting(store, folder)).sort_values(["cell", "prompt"])
    written = run_completions(texts, noting(Store(folder / "texts", "k"), folder))
    rows.to_parquet(folder / "rows.parquet", index=False)
    written.sort_values(["cell", "prompt"]).to_parquet(folder / "texts.parquet", index=False)


def noting(store: Store, folder: Path) -> Store:
    """The store, which also notes the name of every shard that is computed."""
    plain = store.frame

    def frame(name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        def noted() -> pd.DataFrame:
            with (folder / COMPUTED).open("a") as log:
                log.write(name + "\n")
            return compute()

        return plain(name, noted)

    store.frame = frame  # type: ignore[method-assign]
    return store


def in_child(work: Callable[[], None], kill_after: float | None) -> float:
    """Run in a fork, killed after so many seconds; how long it took."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if kill_after is None and status != 0:
        raise SystemExit(f"a sweep ended with status {status}")
    return time.monotonic() - start


def committed(folder: Path) -> dict[str, tuple[int, int]]:
    """Shard → inode and time of writing."""
    paths = [*folder.glob("rows/k-*.parquet"), *folder.glob("texts/k-*.parquet")]
    return {p.stem[2:]: (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


def kill_once(sweep: Callable[[Path], None], folder: Path, moment: float) -> dict[str, int]:
    """Kill a sweep, finish it, and say what was lost, done twice or written twice."""
    folder.mkdir()
    in_child(partial(sweep, folder), moment)
    before = committed(folder)
    log = folder / COMPUTED
    begun = len(log.read_text().splitlines()) if log.exists() else 0
    in_child(partial(sweep, folder), None)
    after = committed(folder)
    finishing = log.read_text().splitlines()[begun:]
    return {
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
    duration = in_child(partial(sweep, whole), None)
    draw = random.Random(0)
    found = []
    for number in range(KILLS):
        moment = duration * (number + draw.random()) / KILLS
        place = folder / f"killed{number}"
        found.append(kill_once(sweep, place, moment))
        for name in ("rows.parquet", "texts.parquet"):
            same = (place / name).read_bytes() == (whole / name).read_bytes()
            found[-1][f"same_{name}"] = int(same)
    print(json.dumps({"duration": duration, "shards": len(committed(whole)), "kills": found}))


if __name__ == "__main__":
    main()
