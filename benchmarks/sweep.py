"""The logit sweep beside the loops people write: `python -m benchmarks.sweep`.

Prints one JSON line: median seconds of each path for all rows, how many times faster ours (f) is,
and how far each is from a plain Hugging Face hook (b): ours on all rows, the others on a sample.
(e) is our own batched path in whole forward passes. The loops are timed on a fixed sample of rows,
every prompt equally often, and scaled to all rows, since each of their rows is computed alone;
`--full` times all of them. α = 0 counts once for each prompt, on every path. `b_batched_hook` is
the hook at its best: one prompt under 64 pushes at a time, the last logits alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.loops import Loop, batched_hook, loops
from benchmarks.side_by_side import Bench, interleaved, medians, say, strengths
from saelens_steer.metrics import LogitMetric, resolve_metrics
from saelens_steer.sweeps import LogitSweep, UnsteeredPass, grid
from saelens_steer.sweeps.logits import run_logits

Row = tuple[int, int, float]
"""Prompt, direction, α."""
MARGIN = {"margin": {"name": "math_margin", "target": "latex_delimiters"}}
BATCHED_PROMPTS = 14
"""So many prompts are run by the batched hook; prompts do not share its batches."""
REFERENCE = "b_hugging_face_hook"
TIE = 1e-4
"""Two largest logits closer than this are a tie: rounding decides between them."""


def ours(bench: Bench, positions: str, **settings: Any) -> LogitSweep:
    """Our sweep of the whole grid, fresh: nothing is left over from an earlier one."""
    unsteered_pass = UnsteeredPass(
        model=bench.model,
        hook_name=bench.hook_name,
        prompts=bench.prompts,
        positions=positions,  # type: ignore[arg-type]
        **settings,
    )
    metrics = resolve_metrics([MARGIN], bench.model.tokenizer, bench.model.cfg.d_vocab)
    cells = grid(bench.n_directions, bench.alphas)
    return LogitSweep(
        unsteered_pass=unsteered_pass, directions=bench.directions, cells=cells, metrics=metrics
    )


def sample(bench: Bench, n: int) -> list[Row]:
    """Rows of the grid, every prompt equally often."""
    draw = torch.Generator().manual_seed(0)
    each = max(1, n // bench.n_prompts)

    def drawn(size: int) -> int:
        return int(torch.randint(size, (1,), generator=draw))

    return [
        (prompt, drawn(bench.n_directions), bench.alphas[drawn(len(bench.alphas))])
        for prompt in range(bench.n_prompts)
        for _ in range(each)
    ]


def every_row(bench: Bench) -> list[Row]:
    """The whole grid."""
    cells = [(d, a) for d in range(bench.n_directions) for a in bench.alphas]
    return [(p, d, a) for p in range(bench.n_prompts) for d, a in cells]


def run_loop(bench: Bench, loop: Loop, rows: list[Row], last_only: bool) -> Tensor:
    """Last-token logits of some rows, [row, d_vocab]."""
    found = [
        loop(torch.tensor([bench.prompts[p]]), bench.push(d, a), last_only) for p, d, a in rows
    ]
    return torch.stack(found)


def our_logits(sweep: LogitSweep, rows: list[Row]) -> Tensor:
    """The same rows of our sweep."""
    seen: list[Tensor] = []

    def keep(logits: Tensor, baseline: Tensor) -> Tensor:
        seen.append(logits)
        return logits[:, 0]

    keeping = LogitSweep(
        unsteered_pass=sweep.unsteered_pass,
        directions=sweep.directions,
        cells=sweep.cells,
        metrics=[LogitMetric("kept", keep)],
    )
    table = run_logits(keeping)
    places = {(int(p), int(c)): i for i, (p, c) in enumerate(table[["prompt", "cell"]].to_numpy())}
    cell = {(-1 if a == 0 else sweep.cells.index((d, a))): (d, a) for _, d, a in rows}
    number = {value: key for key, value in cell.items()}
    logits = torch.cat(seen)
    return logits[[places[p, -1 if a == 0 else number[d, a]] for p, d, a in rows]]


def compared(found: Tensor, want: Tensor) -> dict[str, Any]:
    """Largest |Δ|, rows whose most likely token differs, and those where two tokens tie."""
    top = want.topk(2, dim=-1).values
    ties = top[:, 0] - top[:, 1] < TIE
    differ = found.argmax(-1) != want.argmax(-1)
    return {
        "rows": len(want),
        "max_abs_delta": float((found - want).abs().max()),
        "argmax_differs": int((differ & ~ties).sum()),
        "argmax_ties": int(ties.sum()),
    }


def measured(bench: Bench, positions: str, rows: list[Row], repeats: int) -> dict[str, Any]:
    """One kind of positions: seconds for all rows, ratios, agreement."""
    found, last_only = loops(bench), positions == "last"
    every = every_row(bench)
    say(f"{REFERENCE}: all {len(every)} rows")
    want = run_loop(bench, found[REFERENCE], every, last_only)
    few = want[[every.index(row) for row in rows]]
    agreement = {
        name: compared(run_loop(bench, loop, rows, last_only), few) for name, loop in found.items()
    }
    paths: dict[str, Callable[[], Any]] = {
        name: partial(run_loop, bench, loop, rows, last_only) for name, loop in found.items()
    }
    for name, settings in {"e_whole_passes": {"whole_passes": True}, "f_ours": {}}.items():
        agreement[name] = compared(our_logits(ours(bench, positions, **settings), every), want)
        paths[name] = lambda settings=settings: run_logits(ours(bench, positions, **settings))
    prompts = range(0, bench.n_prompts, max(1, bench.n_prompts // BATCHED_PROMPTS))
    batched = batched_hook(bench, prompts)
    cells = [(0, 0.0), *grid(bench.n_directions, bench.alphas)]
    alike = [every.index((p, d, a)) for p in prompts for d, a in cells]
    agreement["b_batched_hook"] = compared(batched(last_only), want[alike])
    paths["b_batched_hook"] = partial(batched, last_only)
    computed = bench.n_prompts * len(cells)
    times = dict.fromkeys(found, computed / len(rows))
    times["b_batched_hook"] = bench.n_prompts / len(prompts)
    seconds = {
        name: value * times.get(name, 1)
        for name, value in medians(interleaved(paths, repeats)).items()
    }
    return {
        "rows_computed": computed,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "times_faster": {n: round(s / seconds["f_ours"], 2) for n, s in seconds.items()},
        "agreement": agreement,
        "loops_timed_on_rows": len(rows),
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=112)
    parser.add_argument("--directions", type=int, default=17)
    parser.add_argument("--alphas", type=int, default=9)
    parser.add_argument("--positions", choices=["all", "last", "both"], default="both")
    parser.add_argument("--source", default="tiny", help="tiny, or a prompt set by name")
    parser.add_argument("--sample", type=int, default=448, help="rows on which loops are timed")
    parser.add_argument("--full", action="store_true", help="time the loops on all rows")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    bench = Bench(options.prompts, options.directions, strengths(options.alphas), options.source)
    rows = every_row(bench) if options.full else sample(bench, options.sample)
    wanted = ["all", "last"] if options.positions == "both" else [options.positions]
    found = {positions: measured(bench, positions, rows, options.repeats) for positions in wanted}
    print(json.dumps({"benchmark": "sweep", **bench.sizes(), "positions": found}))


if __name__ == "__main__":
    main()
