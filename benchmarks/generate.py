"""Steered completions beside the loops people write: `python -m benchmarks.generate`.

Prints one JSON line: median seconds of each path for all rows, how many times faster ours (f) is,
and how many rows are not, token for token, those of a plain Hugging Face hook (b). (e) is our own
batched path through `model.generate`. `b_batched` is Hugging Face's own batched `generate` with a
hook, at the better of its batch sizes. What writes one row at a time is timed on a fixed sample and
scaled to all rows; `--full` times all of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.loops import hugging_face_hook
from benchmarks.side_by_side import Bench, interleaved, medians, strengths
from benchmarks.sweep import TIE, Row, every_row, sample
from benchmarks.writers import Asked, Writer, batched, writers
from saelens_steer.config import CompletionSpec
from saelens_steer.sweeps import CompletionSweep, UnsteeredPass, grid, run_completions

REFERENCE = "b_hugging_face_hook"
HF_ROWS = (64, 256)
"""Rows in Hugging Face's batches."""


def ours(bench: Bench, n_tokens: int, **settings: Any) -> CompletionSweep:
    """Our sweep of the whole grid, fresh."""
    unsteered_pass = UnsteeredPass(
        model=bench.model,
        hook_name=bench.hook_name,
        prompts=bench.prompts,
        new_tokens=n_tokens,
        **settings,
    )
    return CompletionSweep(
        unsteered_pass=unsteered_pass,
        directions=bench.directions,
        cells=[(0, 0.0), *grid(bench.n_directions, bench.alphas)],
        metrics=[],
        spec=CompletionSpec(max_new_tokens=n_tokens),
    )


def our_texts(sweep: CompletionSweep, rows: Sequence[Row]) -> list[str]:
    """The same rows of our sweep; α = 0 is written once for each prompt."""
    table = run_completions(sweep).set_index(["cell", "prompt"])["completion"]
    number = {cell: i for i, cell in enumerate(sweep.cells)}
    return [table[number[(d, a) if a else (0, 0.0)], p] for p, d, a in rows]


def asked(bench: Bench, rows: Sequence[Row]) -> list[Asked]:
    """Rows as the other paths take them."""
    return [(bench.prompts[p], bench.push(d, a)) for p, d, a in rows]


def written_once(bench: Bench) -> list[Row]:
    """The grid without its repetitions: α = 0 once for each prompt, as ours writes it."""
    return [(p, d, a) for p, d, a in every_row(bench) if a != 0 or d == 0]


def texts(bench: Bench, new: Sequence[list[int]]) -> list[str]:
    """Tokens as text, as a completion is kept."""
    return [bench.model.tokenizer.decode(ids, skip_special_tokens=True) for ids in new]


def compared(bench: Bench, rows: Sequence[Row], found: list[str], want: list[list[int]]) -> Any:
    """Rows with another text than (b), those apart where (b) had two tokens in a tie."""
    other = [i for i, text in enumerate(texts(bench, want)) if found[i] != text]
    ties = sum(tied(bench, rows[i], found[i], want[i]) for i in other)
    return {"rows": len(rows), "differ": len(other) - ties, "differ_after_a_tie": ties}


def tied(bench: Bench, row: Row, found: str, want: list[int]) -> bool:
    """Whether the two likeliest tokens were a tie where a text left the one of (b)."""
    decode = bench.model.tokenizer.decode
    same = next(
        n
        for n in range(len(want) + 1)
        if not found.startswith(decode(want[: n + 1])) or n == len(want)
    )
    prompt, direction, alpha = row
    tokens = torch.tensor([bench.prompts[prompt] + want[:same]])
    logits = hugging_face_hook(bench)(tokens, bench.push(direction, alpha), False)
    top = logits.topk(2).values
    return bool(top[0] - top[1] < TIE)


def measured(bench: Bench, n_tokens: int, rows: list[Row], repeats: int) -> dict[str, Any]:
    """Seconds for all rows, ratios, agreement."""
    every, few = written_once(bench), asked(bench, rows)
    loops = writers(bench, n_tokens)
    want = loops[REFERENCE](few)
    agreement = {
        name: compared(bench, rows, texts(bench, write(few)), want) for name, write in loops.items()
    }
    paths: dict[str, Callable[[], Any]] = {n: partial(w, few) for n, w in loops.items()}
    for size in HF_ROWS:
        write: Writer = batched(bench, n_tokens, size)
        agreement[f"b_batched_{size}"] = compared(bench, rows, texts(bench, write(few)), want)
        paths[f"b_batched_{size}"] = partial(write, asked(bench, every))
    for name, settings in {"e_model_generate": {"whole_passes": True}, "f_ours": {}}.items():
        sweep = ours(bench, n_tokens, **settings)
        agreement[name] = compared(bench, rows, our_texts(sweep, rows), want)
        paths[name] = lambda settings=settings: run_completions(ours(bench, n_tokens, **settings))
    scale = {name: len(every) / len(rows) for name in loops}
    seconds = {
        name: value * scale.get(name, 1.0)
        for name, value in medians(interleaved(paths, repeats)).items()
    }
    return {
        "rows": len(every),
        "mean_new_tokens": round(sum(map(len, want)) / len(want), 1),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "times_faster": {n: round(s / seconds["f_ours"], 2) for n, s in seconds.items()},
        "agreement": agreement,
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=112)
    parser.add_argument("--directions", type=int, default=2)
    parser.add_argument("--alphas", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--sample", type=int, default=112, help="rows that are written one by one")
    parser.add_argument("--full", action="store_true", help="write all rows one by one, too")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    bench = Bench(options.prompts, options.directions, strengths(options.alphas))
    rows = written_once(bench) if options.full else sample(bench, options.sample)
    found = measured(bench, options.tokens, rows, options.repeats)
    sizes = {**bench.sizes(), "new_tokens": options.tokens}
    print(json.dumps({"benchmark": "generate", **sizes, **found}))


if __name__ == "__main__":
    main()
