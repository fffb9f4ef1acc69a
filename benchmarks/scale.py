"""How time and memory grow with the rows of a logit sweep: `python -m benchmarks.scale`.

From one to eighteen directions (112 prompts, nine strengths: 896 to 16,128 rows), each size a fresh
sweep through a record store on disk, in turn and repeated. Prints one JSON line: CPU seconds, how
far each size is off a straight line through all of them, what a sweep costs before its first row
(in rows: the unsteered pass over the prompts), the most memory that was held beyond what was there,
and how far batches of other sizes change the numbers.

`--million` runs 1,000 directions once instead, to the tables and claims of a run folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.memory import Peak
from benchmarks.side_by_side import Bench, interleaved, medians, say, strengths
from benchmarks.sweep import MARGIN, compared, every_row, our_logits, ours
from saelens_steer.config import MarginMetric, SweepSpec, TemplateSpec
from saelens_steer.data import Prompt
from saelens_steer.directions import with_controls
from saelens_steer.pipeline.outputs import read_rows, write_rows
from saelens_steer.pipeline.result import Result
from saelens_steer.steering import Directions
from saelens_steer.sweeps import Measurement, Store
from saelens_steer.sweeps.logits import logit_shards, unsteered_rows

DIRECTIONS = (1, 2, 4, 9, 18)
N_PROMPTS, ALPHAS = 112, strengths(9)
BUDGETS = (2048, 64, 512, 8192, 65_536)


def swept(n_directions: int, n_prompts: int = N_PROMPTS) -> None:
    """A fresh sweep through a store; its tables are let go as they are committed."""
    sweep = ours(Bench(n_prompts, n_directions, ALPHAS), "all")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), "k")
        unsteered_rows(sweep, store)
        for _ in logit_shards(sweep, store):
            pass


def growth(sizes: Sequence[int], repeats: int, n_prompts: int = N_PROMPTS) -> dict[str, Any]:
    """Seconds and memory of each size; the first, smallest one also warms up."""
    rows = {f"{n}": n_prompts * n * (len(ALPHAS) - 1) for n in sizes}
    swept(sizes[0], n_prompts)
    peaks = dict[str, float]()
    for n in sizes:
        with Peak() as peak:
            swept(n, n_prompts)
        peaks[f"{n}"] = round(peak.grown, 1)
    paths = {f"{n}": partial(swept, n, n_prompts) for n in sizes}
    seconds = medians(interleaved(paths, repeats, time.process_time))
    return {
        "rows": list(rows.values()),
        "seconds": [round(seconds[n], 2) for n in rows],
        **line(list(rows.values()), [seconds[n] for n in rows]),
        "peak_mib": [peaks[n] for n in rows],
    }


def line(rows: Sequence[int], seconds: Sequence[float]) -> dict[str, Any]:
    """What a sweep costs at all, what each row costs, and how far each size is off that line.

    The line minimises relative distances, so that the small sizes count as much as the large.
    """
    weights = 1 / np.array(seconds)
    per_row, fixed = np.polyfit(rows, seconds, 1, w=weights)
    off = (fixed + per_row * np.array(rows)) * weights - 1
    return {
        "fixed_in_rows": round(float(fixed / per_row)),
        "off_the_line": [round(float(x), 3) for x in off],
    }


def budgets(sizes: Sequence[int], n_prompts: int = N_PROMPTS) -> dict[str, Any]:
    """The same rows in batches of other sizes, against the first: margins, and likeliest tokens."""
    bench = Bench(n_prompts, 2, ALPHAS)
    rows = every_row(bench)
    logits = [our_logits(ours(bench, "all", batch_tokens=size), rows) for size in sizes]
    metric = ours(bench, "all").metrics[0]
    margins = [metric.of(found, baseline=found) for found in logits]
    return {
        str(size): compared(found, logits[0])
        | {"max_margin_delta": float((own - margins[0]).abs().max())}
        for size, found, own in zip(sizes[1:], logits[1:], margins[1:], strict=True)
    }


def million(n_controls: int, n_prompts: int = N_PROMPTS) -> dict[str, Any]:
    """One direction and many controls, to rows on disk, the interference table and claims."""
    measurement, everything = _study(n_controls, n_prompts)
    seen, start, cpu = list[float](), time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, Peak() as peak:
        store = Store(Path(folder) / "store", "k")
        for number, _ in enumerate(measurement.logit_tables(everything, store)):
            if number % 50 == 0:
                seen.append(round(peak.grown, 1))
                say(f"shard {number}: {time.perf_counter() - start:.0f} s, {seen[-1]} MiB")
        swept_in = time.perf_counter() - start
        sweeping = round(peak.grown, 1)
        place = write_rows(Path(folder), measurement.logit_tables(everything, store))
        nothing = pd.DataFrame()
        result = Result.of(
            measurement, read_rows(place, measurement.metric_columns(nothing)), nothing
        )
        found = {
            "rows": len(result.rows),
            "rows_computed": measurement.n_rows(everything),
            "claims": len(result.claims),
            "summary": len(result.summary),
        }
    return found | {
        "sweep_seconds": round(swept_in, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mib_while_sweeping": sweeping,
        "peak_mib_every_50_shards": seen,
        "peak_mib": round(peak.grown, 1),
    }


def _study(n_controls: int, n_prompts: int) -> tuple[Measurement, Directions]:
    bench = Bench(n_prompts, 1, ALPHAS)
    prompts = tuple(Prompt(f"{i:03d}", text, "mixed") for i, text in enumerate(bench.texts))
    spec = SweepSpec(alphas=ALPHAS, n_controls=n_controls, controls="isotropic")
    metrics = (MarginMetric.model_validate(MARGIN),)
    measurement = Measurement(
        bench.model, None, bench.hook_name, prompts, spec, metrics, TemplateSpec(chat=True)
    )
    return measurement, with_controls(measurement, bench.directions, None)


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--million", type=int, nargs="?", const=1000, help="controls, once")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if options.million:
        found = million(options.million)
    else:
        found = growth(DIRECTIONS, options.repeats)
        found["token_budgets_against_2048"] = budgets(BUDGETS)
    print(json.dumps({"benchmark": "scale", "threads": 1, **found}))


if __name__ == "__main__":
    main()
