"""The logit sweep and the completions of `benchmarks.gpu`, beside the loops people write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from benchmarks.loops import Loop, hooked_transformer, hugging_face_hook, pushed
from benchmarks.qwen3_shape import RandomBench, Task
from benchmarks.side_by_side import interleaved, medians
from benchmarks.sweep import REFERENCE, Row, our_logits, ours
from saelens_steer.config import CompletionSpec, TokenSetSpec
from saelens_steer.data import pad_left, token_set
from saelens_steer.metrics import resolve_metrics
from saelens_steer.sweeps import CompletionSweep, UnsteeredPass, run_completions
from saelens_steer.sweeps.logits import run_logits
from saelens_steer.sweeps.texts import judged

FEW = 2
"""Directions on which full forward passes are timed and logits compared."""
TEXT_METRICS = ("code_validity", "latex_validity", "latex_first")


@torch.no_grad()
def sweeping(task: Task) -> dict[str, Any]:
    """Part 1: the logit sweep, steered everywhere and at last tokens alone."""
    return {positions: _swept(task, positions) for positions in ("all", "last")}


def _swept(task: Task, positions: str) -> dict[str, Any]:
    """Seconds for all rows, ratios, memory, and how far all are from the Hugging Face hook (b)."""
    bench, few = task.bench, _few(task.bench)
    loops, rows = loops_of(bench), _sample(few, task.sample)
    settings: dict[str, Any] = {"batch_tokens": task.batch_tokens}

    def run(whom: RandomBench, **more: Any) -> None:
        run_logits(ours(whom, positions, **settings, **more))

    paths: dict[str, Callable[[], Any]] = {
        name: partial(run_loop, few, loop, rows, positions == "last")
        for name, loop in loops.items()
    }
    paths |= {"e_whole_passes": partial(run, few, whole_passes=True), "f_ours": partial(run, bench)}
    peaks = {name: task.peak_gib(path) for name, path in paths.items()}
    all_rows, here = bench.sizes()["rows"], _computed(few)
    times = dict.fromkeys(loops, _computed(bench) / len(rows))
    times |= {"e_whole_passes": _computed(bench) / here, "f_ours": 1.0}
    timed = medians(interleaved(paths, task.repeats, task.clock))
    seconds = {name: value * times[name] for name, value in timed.items()}
    sweep = ours(few, positions, **settings)
    return {
        "rows": all_rows,
        "rows_computed": _computed(bench),
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "times_faster": {n: round(value / seconds["f_ours"], 2) for n, value in seconds.items()},
        "timed_on_rows": dict.fromkeys(loops, len(rows)) | {"e_whole_passes": here},
        "peak_gpu_gib": peaks,
        "ours_starts_at_hook": sweep.full_pass_reason is None,
        "against_b": _agreement(few, loops, sweep, rows, positions == "last"),
    }


def _few(bench: RandomBench) -> RandomBench:
    return replace(bench, n_directions=min(FEW, bench.n_directions))


def _computed(bench: RandomBench) -> int:
    """Rows that a sweep of ours runs: α = 0 once for each prompt."""
    own = bench.n_directions * sum(alpha != 0 for alpha in bench.alphas)
    return bench.n_prompts * (own + (0.0 in bench.alphas))


def loops_of(bench: RandomBench) -> dict[str, Loop]:
    """One row at a time: our model class, and transformers with all logits and with the last."""
    return {
        "a_hooked_transformer": hooked_transformer(bench),
        REFERENCE: hugging_face_hook(bench),
        "b_keeping_one_logit": hugging_face_hook(bench, logits_to_keep=1),
    }


def _sample(bench: RandomBench, n: int) -> list[Row]:
    """Rows that go round prompts, directions and strengths."""
    d, a = bench.n_directions, bench.alphas
    return [(i % bench.n_prompts, i % d, a[i % len(a)]) for i in range(n)]


def run_loop(bench: RandomBench, loop: Loop, rows: Sequence[Row], last_only: bool) -> Tensor:
    """Last-token logits of some rows, [row, d_vocab]."""
    tokens = [torch.tensor([bench.prompts[p]], device=bench.device) for p, _, _ in rows]
    both = zip(tokens, rows, strict=True)
    return torch.stack([loop(ids, bench.push(d, a), last_only) for ids, (_, d, a) in both])


def _agreement(
    bench: RandomBench, loops: dict[str, Loop], sweep: Any, rows: list[Row], last_only: bool
) -> dict[str, Any]:
    """How far (a) and ours are from (b) on the sampled rows; in bfloat16, all are rounded."""
    target = token_set(
        TokenSetSpec(name="latex_delimiters"), bench.model.tokenizer, bench.model.cfg.d_vocab
    )
    want = run_loop(bench, loops[REFERENCE], rows, last_only).float()
    others = {name: loop for name, loop in loops.items() if name.startswith("a_")}
    found = {name: run_loop(bench, loop, rows, last_only).float() for name, loop in others.items()}
    found["f_ours"] = our_logits(sweep, rows)
    note = f"all in {bench.sizes()['dtype']}; logits' standard deviation {float(want.std()):.2f}"
    return {name: _compared(x, want, target) for name, x in found.items()} | {"note": note}


def _compared(found: Tensor, want: Tensor, target: list[int]) -> dict[str, Any]:
    """Largest |Δ|, also of what a margin reads (its targets, and the best of all others), and rows
    whose most likely token differs, with the largest lead that token had in `want`."""
    ours, theirs = found.argmax(-1, keepdim=True), want.argmax(-1, keepdim=True)
    leads = want.gather(1, theirs) - want.gather(1, ours)
    read = (_read_by_margin(found, target) - _read_by_margin(want, target)).abs().max()
    return {
        "rows": len(want),
        "max_abs_delta": float((found - want).abs().max()),
        "max_abs_delta_margin": float(read),
        "argmax_differs": int((ours != theirs).sum()),
        "largest_lead_lost": float(leads.max()),
    }


def _read_by_margin(logits: Tensor, target: list[int]) -> Tensor:
    others = logits.index_fill(1, torch.tensor(target, device=logits.device), -torch.inf)
    return torch.cat([logits[:, target], others.amax(1, keepdim=True)], dim=1)


@torch.no_grad()
def generating(task: Task) -> dict[str, Any]:
    """Part 2: every cell under every prompt written on greedily, α = 0 for each direction too.

    Hugging Face's `generate` is timed on one batch of the size of ours, the first direction's.
    """
    bench, n = task.bench, task.amounts.new_tokens
    first, rows = replace(bench, n_directions=1), bench.sizes()["rows"]
    one = run_completions(_completions(first, task))
    texts = one.sort_values(["cell", "prompt"])["completion"].tolist()
    theirs = partial(_hugging_face_texts, first, n)
    same = [text == other for text, other in zip(texts, theirs(), strict=True)]
    tables: list[pd.DataFrame] = []
    paths: dict[str, Callable[[], Any]] = {
        "hugging_face_generate": theirs,
        "ours": lambda: tables.append(run_completions(_completions(bench, task))),
    }
    timed = medians(interleaved(paths, task.repeats, task.clock))
    seconds = {**timed, "hugging_face_generate": timed["hugging_face_generate"] * rows / len(texts)}
    peak = task.peak_gib(lambda: run_completions(_completions(first, task)))
    start = task.clock()
    judged(_completions(bench, task), tables[-1])
    return {
        "rows": rows,
        "new_tokens": n,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "tokens_per_second": {name: round(rows * n / value) for name, value in seconds.items()},
        "times_faster": round(seconds["hugging_face_generate"] / seconds["ours"], 2),
        "of_which_seconds_for_judging_texts": round(task.clock() - start, 4),
        "hugging_face_timed_on_rows": len(texts),
        "rows_ended_early": int((~tables[-1]["truncated"]).sum()),
        "same_text_as_hugging_face": sum(same) / len(same),
        "peak_gpu_gib": peak,
    }


def _completions(bench: RandomBench, task: Task) -> CompletionSweep:
    """Our sweep of completions, fresh."""
    unsteered_pass = UnsteeredPass(
        model=bench.model,
        hook_name=bench.hook_name,
        prompts=bench.prompts,
        batch_tokens=task.batch_tokens,
        new_tokens=task.amounts.new_tokens,
    )
    return CompletionSweep(
        unsteered_pass=unsteered_pass,
        directions=bench.directions,
        cells=[(d, alpha) for d in range(bench.n_directions) for alpha in bench.alphas],
        metrics=resolve_metrics(TEXT_METRICS, bench.model.tokenizer, bench.model.cfg.d_vocab),  # type: ignore[arg-type]
        spec=CompletionSpec(max_new_tokens=task.amounts.new_tokens),
    )


def _hugging_face_texts(bench: RandomBench, n: int) -> list[str]:
    """All rows of a bench in one batch of `generate`, the pushes in a hook; cell by cell."""
    cells = [(d, alpha) for d in range(bench.n_directions) for alpha in bench.alphas]
    push = torch.stack([bench.push(*cell) for cell in cells for _ in bench.prompts])[:, None]
    words, model = bench.model.tokenizer, bench.hugging_face
    tokens, mask = pad_left([*bench.prompts] * len(cells), words, device=bench.device)

    def add(module: Any, args: Any, kwargs: Any) -> Any:
        return (pushed(args[0], push, last_only=False), *args[1:]), kwargs

    handle = model.model.layers[bench.layer].register_forward_pre_hook(add, with_kwargs=True)
    try:
        out = model.generate(tokens, attention_mask=mask.long(), max_new_tokens=n, do_sample=False)
    finally:
        handle.remove()
    return words.batch_decode(out[:, tokens.shape[1] :], skip_special_tokens=True)


def attention_kernels(bench: RandomBench) -> dict[str, str]:
    """Which kernel torch picks for attention within prompts, and of one new token behind a mask.

    The second as `model.layers.attention` asks for it: heads that share keys are its positions.
    """
    shape, n, pos = bench.shape, 64, 64

    def heads(n_heads: int, n_pos: int) -> Tensor:
        return torch.zeros(n, n_heads, n_pos, shape.d_head, dtype=bench.dtype, device=bench.device)

    q, new = heads(shape.n_heads, pos), heads(shape.n_kv, shape.n_heads // shape.n_kv)
    k, mask = (
        heads(shape.n_kv, pos),
        torch.ones(n, 1, 1, pos, dtype=torch.bool, device=bench.device),
    )
    picked = {
        "within_prompts": torch._fused_sdp_choice(q, k, k, is_causal=True, enable_gqa=True),
        "of_a_new_token": torch._fused_sdp_choice(new, k, k, attn_mask=mask),
    }
    return {name: SDPBackend(number).name for name, number in picked.items()}
