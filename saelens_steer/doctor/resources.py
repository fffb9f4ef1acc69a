"""Estimate the rows, memory, disk and time that a run needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from saelens_steer.config import FAMILIES, FLOAT32, QUESTIONS, TRAINING_COPIES, is_custom, is_file
from saelens_steer.data import encode_prompts
from saelens_steer.doctor.case import pushes, spread
from saelens_steer.doctor.findings import Finding
from saelens_steer.evidence import least_controls
from saelens_steer.numbers import count
from saelens_steer.pipeline.context import RunContext
from saelens_steer.steering import plain_directions, vectors_at
from saelens_steer.sweeps import COMPLETION_BATCH_FACTOR, Measurement, grid

TIMED_PROMPTS = 16
"""Prompts on which rows and texts are timed."""
TRIES = (4, 16, 64)
"""Directions in successive tries, after a warm-up with one, until a try takes LONG."""
LONG = 0.5
"""Seconds. If the warm-up takes ten times as long, it is the only try."""
NEW_TOKENS = (4, 12)
"""Texts are timed at two lengths, to separate the time for the prompt from that per token."""
T = TypeVar("T")


@dataclass(frozen=True)
class WorkSizes:
    """Upper bounds on the sizes of a run: as many candidates as the config allows."""

    lengths: list[int]
    """Tokens in each steered prompt."""
    tested: int
    controls: int
    rows: int
    texts: int

    @classmethod
    def of(cls, run: RunContext, measurement: Measurement) -> WorkSizes:
        """The sizes of this run."""
        sweep, n = run.spec.sweep, len(measurement.ids)
        tested = _tested(run)
        controls, few = sweep.work(tested)
        rows = n * len(grid(tested + controls, sweep.alphas))
        texts = n * (1 + len(grid(few, sweep.alphas))) * sweep.completions.samples
        lengths, written = [len(ids) for ids in measurement.ids], measurement.text_metrics and few
        return cls(lengths, tested, controls, rows, texts if written else 0)

    @property
    def mean_length(self) -> float:
        return sum(self.lengths) / len(self.lengths)


def _tested(run: RunContext) -> int:
    """Upper bound on the number of directions under test. Both signs of α are swept, so a
    difference of means or a probe counts as one direction."""
    sweep = run.spec.sweep
    if sweep.directions is None:
        return len(sweep.named) or 2 * run.spec.select.k
    return sum(_of_source(run, source, sweep.top) for source in sweep.directions)


def _of_source(run: RunContext, source: str | int, k: int) -> int:
    """Upper bound on the directions that a source yields; see `DirectionFinder.under_test`."""
    if isinstance(source, int) or source in ("difference_of_means", "linear_probe"):
        return 1
    if is_file(source):
        return min(k, len(vectors_at(source, run.hook_name, run.model.cfg.d_model)))
    return k if is_custom(source) or source in FAMILIES else 2 * k


def sizes_of_work(run: RunContext, measurement: Measurement, sizes: WorkSizes) -> Iterator[Finding]:
    """The size of each part of a run."""
    cfg, spec, lengths = run.model.cfg, run.spec, sizes.lengths
    select, tested = spec.select, sizes.tested
    yield Finding(
        "model", f"{spec.model.name}: {cfg.n_layers} layers of {cfg.d_model}, on {cfg.device}"
    )
    yield Finding("hook", run.hook_name)
    yield Finding("prompts", f"{len(lengths)} steered, of {min(lengths)} to {max(lengths)} tokens")
    sides = f"{select.positive} against {select.negative}"
    if select.reference:
        sides = f"{select.positive} and {select.negative}, each against {select.reference}"
    yield Finding("selection", f"{count(len(run.selection_prompts), 'prompt')}, {sides}")
    yield Finding("metrics", ", ".join(metric.name for metric in measurement.metrics))
    if compared := spec.compare_edits:
        few = len(lengths[: compared.limit])
        yield Finding(
            "compare_edits", f"{len(compared.variants)} variants of the model on {few} prompts"
        )
    many = f"{count(tested, 'direction')} and {count(sizes.controls, 'control')}"
    swept = f"{count(sizes.rows, 'row')}, {count(sizes.texts, 'text')}"
    yield Finding("sweep", f"{many}: {swept}")
    if label := spec.label:
        n = len(run.label_prompts)
        labelled = 2 * select.k + len({*spec.sweep.named, *spec.features.also})
        n_texts = label.n_texts(labelled, n)
        by = "the offline provider"
        if label.server:
            by = f"{label.server.model} (at most {QUESTIONS * labelled} questions)"
        default = "" if "label" in spec.model_fields_set else " (label: null leaves them out)"
        what = f"{count(labelled, 'feature')}, by {by}, from {count(n_texts, 'text')}"
        yield Finding("labels", f"{what}{default}")
    needed, n = least_controls(tested), next(iter(spec.sweep.controls_by_family.values()), 0)
    enough = "enough" if n >= needed else f"too few: at least {needed:,} are needed"
    yield Finding("controls", f"{n:,} for {count(tested, 'claim')} per metric: {enough}")


def memory_of_work(
    run: RunContext, measurement: Measurement, sizes: WorkSizes
) -> Iterator[Finding]:
    """Memory on the model's device, as if everything were held at once; then disk."""
    parts = {
        "SAE": _sae_bytes(run),
        "a sweep batch": _row_bytes(measurement, sizes),
        "a batch of texts": _text_bytes(measurement, sizes),
    }
    listed = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
    free = free_bytes(run.model)
    yield Finding("memory", f"model {_gib(weight_bytes(run.model))} GiB; plus {listed}")
    yield Finding("", _verdict(sum(parts.values()), free, run.model.cfg.device))
    kept = {"activations": _activation_bytes(run)}
    if measurement.spec.cache_logits:
        kept["logits"] = FLOAT32 * sizes.rows * run.model.cfg.d_vocab
    yield Finding("disk", ", ".join(f"{name} {_gib(size)}" for name, size in kept.items()) + " GiB")


def _verdict(needed: int, free: int | None, device: Any) -> str:
    if free is None:
        return f"free memory on {device} is not known"
    if needed <= free:
        return f"{_gib(free)} GiB free on {device}: enough"
    return f"{_gib(free)} GiB free on {device}: too little; lower sweep.batch_tokens"


def free_bytes(model: Any) -> int | None:
    """Free bytes on the model's device; None if the system does not report it."""
    device = torch.device(model.cfg.device)
    if device.type == "cuda":  # including what torch has reserved but does not use
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    table = Path("/proc/meminfo")
    if device.type != "cpu" or not table.is_file():
        return None
    lines = (line.split() for line in table.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), None)


def weight_bytes(model: Any) -> int:
    """Bytes in parameters and buffers; shared ones count once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def _sae_bytes(run: RunContext) -> int:
    """A loaded SAE, or everything held while training one."""
    train, d_model = run.spec.sae.train, run.model.cfg.d_model
    if train is None:
        return weight_bytes(run.source_sae)
    cached = (train.cached_tokens or 0) * d_model * run.model.cfg.dtype.itemsize
    return TRAINING_COPIES * FLOAT32 * 2 * d_model * train.d_sae + cached


def _row_bytes(measurement: Measurement, sizes: WorkSizes) -> int:
    """A rough estimate of a layer's activations for a batch, and the logits of its rows."""
    cfg, tokens = measurement.model.cfg, measurement.unsteered_pass.batch_tokens
    heads = 2 * cfg.n_heads + 2 * _kv_heads(cfg)
    width = 4 * cfg.d_model + 3 * (cfg.d_mlp or 0) + heads * cfg.d_head
    rows = min(tokens / (sizes.mean_length + cfg.d_vocab // (2 * cfg.d_model)) + 1, sizes.rows)
    return int(tokens * width * cfg.dtype.itemsize + 2 * rows * cfg.d_vocab * FLOAT32)


def _text_bytes(measurement: Measurement, sizes: WorkSizes) -> int:
    """The KV cache of texts that are generated at once."""
    cfg = measurement.model.cfg
    length = sizes.mean_length + measurement.spec.completions.max_new_tokens
    tokens = min(
        sizes.texts * length, COMPLETION_BATCH_FACTOR * measurement.unsteered_pass.batch_tokens
    )
    return int(tokens * cfg.n_layers * 2 * _kv_heads(cfg) * cfg.d_head * cfg.dtype.itemsize)


def _kv_heads(cfg: Any) -> int:
    return getattr(cfg, "n_key_value_heads", None) or cfg.n_heads


def _activation_bytes(run: RunContext) -> int:
    """An upper bound: special tokens, sinks and other excluded tokens are not kept."""
    spec = run.spec
    encoded = encode_prompts(run.model.tokenizer, run.selection_prompts, **run.encoding)
    unwritten = spec.select.answer_tokens if spec.reads_answers else 0
    answers = sum(len(each.answer) or unwritten for each in encoded)
    heads = sum(len(each.head) for each in encoded)
    kept = {"last": len(encoded), "answer": answers}
    tokens = kept.get(spec.activations.tokens, heads + answers)
    return FLOAT32 * run.model.cfg.d_model * tokens


def _gib(size: int) -> str:
    gib = size / 2**30
    return f"{gib:.1f}" if gib >= 0.95 else f"{gib:.2g}"


def time_of_work(measurement: Measurement, sizes: WorkSizes, trains: bool) -> Iterator[Finding]:
    """Time for the sweep's rows and texts; other steps are not estimated."""
    few = spread(measurement, TIMED_PROMPTS)
    seconds, rows = _last_try(partial(_rows, few))
    total = about(seconds / rows * sizes.rows)
    kl = "; finding strengths by KL adds several times as much"
    more = kl if measurement.spec.calibrated else ""
    yield Finding("time", f"rows {total}, timed on {rows:,} rows{more}")
    if sizes.texts:
        _, (each, texts) = _last_try(partial(_texts, *(_of_length(few, n) for n in NEW_TOKENS)))
        total = about(each(measurement.spec.completions.max_new_tokens) * sizes.texts)
        yield Finding("", f"texts at most {total}, timed on the first tokens of {texts:,}")
    yield Finding("", f"other steps{', including SAE training' if trains else ''}: not estimated")


def _last_try(work: Callable[[int], T]) -> tuple[float, T]:
    """Seconds and result of the last try, which has the most directions."""
    seconds, made = _timed(partial(work, 1))
    if seconds > 10 * LONG:
        return seconds, made
    for n in TRIES:
        seconds, made = _timed(partial(work, n))
        if seconds > LONG:
            break
    return seconds, made


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def _rows(measurement: Measurement, n: int) -> int:
    """Measure the rows of n directions; returns the number of steered rows."""
    rows = measurement.logit_rows(plain_directions(pushes(measurement, n)))
    return int((rows["alpha"].to_numpy() != 0).sum())


def _of_length(measurement: Measurement, new_tokens: int) -> Measurement:
    """The same measurement with texts of this length."""
    few = measurement.spec.completions.model_copy(update={"max_new_tokens": new_tokens})
    return replace(measurement, spec=measurement.spec.model_copy(update={"completions": few}))


def _texts(short: Measurement, long: Measurement, n: int) -> tuple[Callable[[int], float], int]:
    """Seconds per text as a function of its new tokens, and the number of texts timed."""
    texts = short.n_texts(plain_directions(pushes(short, n)), range(n))
    (early, few), (late, many) = (
        _timed(partial(_written, measurement, n)) for measurement in (short, long)
    )
    per_token = max(late - early, 0.0) / max(many - few, 1)
    per_prompt = max(early - per_token * few, 0.0) / texts
    return lambda new_tokens: per_prompt + per_token * new_tokens, texts


def _written(measurement: Measurement, n: int) -> int:
    """Generate the texts of n directions; returns the number of tokens generated under steering."""
    texts = measurement.completion_rows(plain_directions(pushes(measurement, n)), range(n))
    return int(texts.loc[texts["alpha"] != 0, "n_tokens"].sum())


def about(seconds: float) -> str:
    """A duration in words."""
    if seconds < 1:
        return "under a second"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
