"""The GPU benchmark's parts, on a CPU with a small shape."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import PARTS
from benchmarks.gpu_rows import attention_kernels, loops_of, run_loop
from benchmarks.qwen3_shape import Amounts, RandomBench, Shape, Task

SMALL = Shape(n_layers=4, d_model=32, n_heads=4, n_kv=2, d_head=16, d_mlp=64, d_vocab=400)
AMOUNTS = Amounts(
    new_tokens=4,
    n_texts=64,
    text_tokens=(8, 24),
    d_sae=64,
    k=4,
    batch_tokens=64,
    context_size=16,
    cached_batches=4,
    steps=12,
)


@pytest.fixture(scope="module")
def task() -> Task:
    bench = RandomBench(
        n_prompts=5,
        n_directions=2,
        alphas=(-8.0, 0.0, 8.0),
        shape=SMALL,
        dtype=torch.float32,
        device="cpu",
        prompt_tokens=(18, 30),
    )
    return Task(bench, AMOUNTS, repeats=1, sample=10)


def assert_positive(figures: dict[str, Any]) -> None:
    assert figures
    assert all(value > 0 for value in figures.values()), figures


def test_the_sweep_is_timed_for_every_path_and_agrees_with_the_hugging_face_hook(task):
    found = PARTS["sweep"](task)
    for positions in ("all", "last"):
        here = found[positions]
        names = {"a_hooked_transformer", "b_hugging_face_hook", "b_keeping_one_logit"}
        assert set(here["seconds"]) == names | {"e_whole_passes", "f_ours"}
        assert_positive(here["seconds"])
        assert_positive(here["times_faster"])
        assert (here["rows"], here["rows_computed"]) == (30, 25)
        assert here["ours_starts_at_hook"]
        for name in ("a_hooked_transformer", "f_ours"):
            against = here["against_b"][name]
            assert against["rows"] == 10
            assert against["max_abs_delta"] < 1e-4
            assert against["max_abs_delta_margin"] <= against["max_abs_delta"]
            assert against["argmax_differs"] == 0


def test_steered_and_unsteered_rows_of_the_benchmark_differ(task):
    rows = [(0, 0, 0.0), (0, 0, 8.0), (0, 1, 8.0)]
    for loop in loops_of(task.bench).values():
        with torch.no_grad():
            unsteered, *steered = run_loop(task.bench, loop, rows, last_only=True)
        assert all((x - unsteered).abs().max() > 0.1 for x in steered)


def test_generation_writes_every_row_out_as_hugging_face_does(task):
    found = PARTS["generate"](task)
    assert found["rows"] == 30
    assert found["rows_ended_early"] == 0
    assert found["same_text_as_hugging_face"] == 1.0
    assert_positive(found["seconds"])
    assert_positive(found["tokens_per_second"])


def test_caching_counts_every_token(task):
    found = PARTS["cache"](task)
    texts = task.bench.random_texts(64, (8, 24))
    assert found["tokens"] == sum(len(text.split()) for text in texts)
    assert_positive(found["tokens_per_second"])


def test_training_steps_are_timed_on_cached_activations(task):
    found = PARTS["train"](task)
    assert found["epochs"] == 3
    assert found["steps_per_second"] > 0
    assert found["tokens_per_second"] > 0


def test_kernels_of_attention_have_names(task):
    assert all(name != "ERROR" for name in attention_kernels(task.bench).values())


def test_prompts_begin_and_end_alike_and_hold_no_special_token(task):
    prompts = task.bench.prompts
    assert len({tuple(p[:10]) for p in prompts}) == len({tuple(p[-5:]) for p in prompts}) == 1
    assert len({tuple(p) for p in prompts}) == 5
    assert not set(task.bench.model.tokenizer.all_special_ids) & {i for p in prompts for i in p}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_command_says_so_and_ends_with_status_2():
    command = [sys.executable, "-m", "benchmarks.gpu"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert not ended.stdout
    assert "needs a CUDA GPU" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_floor_is_held_on_its_own_side():
    assert gpu.held("sweep", {"all": {"seconds": {"f_ours": 7.9}}})
    assert not gpu.held("generate", {"seconds": {"ours": 60.1}})
    assert gpu.held("cache", {"tokens_per_second": {"in_memory": 110_001}})
    assert not gpu.held("cache", {"tokens_per_second": {"in_memory": 109_999}})
