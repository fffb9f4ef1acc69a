"""Caching and training in `benchmarks.gpu`, and all its parts by name."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks.gpu_rows import generating, sweeping
from benchmarks.qwen3_shape import Amounts, Task
from benchmarks.side_by_side import interleaved, medians, say
from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import TrainSpec
from saelens_steer.sae.training.config import runner_config
from saelens_steer.sae.training.runner import Runner


@torch.no_grad()
def caching(task: Task) -> dict[str, Any]:
    """Part 3: `cache_activations` from texts to vectors, kept in memory and written to disk."""
    bench, amounts = task.bench, task.amounts
    texts = bench.random_texts(amounts.n_texts, amounts.text_tokens)
    run = partial(cache_activations, bench.model, hook_name=bench.hook_name, chat=False)
    kept: list[Activations] = []
    run(texts[: len(texts) // 8])
    peak = task.peak_gib(lambda: kept.append(run(texts)))
    n_tokens = len(kept.pop())
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Callable[[], Any]] = {
            "in_memory": lambda: run(texts),
            "to_disk": lambda: run(texts, out=Path(folder) / "activations"),
        }
        seconds = medians(interleaved(paths, task.repeats, task.clock))
    return {
        "texts": len(texts),
        "tokens": n_tokens,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "tokens_per_second": {name: round(n_tokens / value) for name, value in seconds.items()},
        "peak_gpu_gib": peak,
    }


def training(task: Task) -> dict[str, Any]:
    """Part 4: steps of SAELens's trainer on cached activations, held-out losses among them."""
    amounts, times = task.amounts, list[float]()
    peak = task.peak_gib(lambda: _train(task, amounts))  # warms up, too
    for number in range(task.repeats):
        times.append(_train(task, amounts))
        say(f"{number + 1}/{task.repeats} {amounts.steps} steps: {times[-1]:.2f} s")
    seconds = statistics.median(times)
    return {
        "architecture": "batchtopk",
        "d_in": task.bench.shape.d_model,
        "d_sae": amounts.d_sae,
        "k": amounts.k,
        "batch_tokens": amounts.batch_tokens,
        "steps": amounts.steps,
        "epochs": amounts.steps / amounts.cached_batches,
        "steps_per_second": round(amounts.steps / seconds, 2),
        "tokens_per_second": round(amounts.steps * amounts.batch_tokens / seconds),
        "peak_gpu_gib": peak,
    }


class TimedRunner(Runner):
    """Our runner, which notes how long `fit` takes: the cache is filled before."""

    clock: Callable[[], float]
    seconds: float

    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        fit = trainer.fit

        def timed() -> Any:
            start = self.clock()
            sae = fit()
            self.seconds = self.clock() - start
            return sae

        trainer.fit = timed
        return super().run_trainer_with_interruption_handling(trainer)


def _train(task: Task, amounts: Amounts) -> float:
    """Seconds that the steps took."""
    bench = task.bench
    spec = TrainSpec(
        architecture="batchtopk",
        d_sae=amounts.d_sae,
        options={"k": amounts.k, "topk_threshold_lr": 0.03},
        training_tokens=amounts.steps * amounts.batch_tokens,
        cached_tokens=amounts.cached_batches * amounts.batch_tokens,
        batch_tokens=amounts.batch_tokens,
        context_size=amounts.context_size,
        lr=3e-4,
    )
    texts = bench.random_texts(amounts.n_texts, amounts.text_tokens)
    with (
        torch.random.fork_rng(),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
    ):
        torch.manual_seed(0)
        warnings.filterwarnings("ignore", module="sae_lens.training.activations_store")
        config = runner_config(spec, bench.model, bench.hook_name, Path(folder))
        runner = TimedRunner(config, Dataset.from_dict({"text": texts}), bench.model, spec)
        runner.clock = task.clock
        runner.run()
    return runner.seconds


PARTS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "sweep": sweeping,
    "generate": generating,
    "cache": caching,
    "train": training,
}
