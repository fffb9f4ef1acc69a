"""Steered writing as people do it: one row at a time, or in Hugging Face's own batches.

Each takes rows (prompt ids, push [d_model]) to the new tokens of each, up to its stop token.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.loops import pushed
from benchmarks.side_by_side import Bench
from saelens_steer.model import stop_token_ids

Asked = tuple[list[int], Tensor]
"""Token ids of the prompt, and what is added."""
Writer = Callable[[Sequence[Asked]], list[list[int]]]


def writers(bench: Bench, n_tokens: int) -> dict[str, Writer]:
    """The ways to write whose libraries are installed."""
    one_by_one = {
        "a_hooked_transformer": hooked_transformer(bench, n_tokens),
        "b_hugging_face_hook": hugging_face_hook(bench, n_tokens),
    }
    if importlib.util.find_spec("steering_vectors") and importlib.util.find_spec("sklearn"):
        one_by_one["c_steering_vectors"] = steering_vectors(bench, n_tokens)
    if importlib.util.find_spec("nnsight"):
        one_by_one["d_nnsight"] = nnsight(bench, n_tokens)
    return {name: partial(_each, write) for name, write in one_by_one.items()}


def batched(bench: Bench, n_tokens: int, rows: int) -> Writer:
    """Hugging Face's `generate` on left-padded batches of rows of like length, a push for each."""
    model, pad = bench.hugging_face, bench.model.tokenizer.pad_token_id

    def write(asked: Sequence[Asked]) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        order = sorted(range(len(asked)), key=lambda i: len(asked[i][0]))
        for start in range(0, len(order), rows):
            some = order[start : start + rows]
            ids, width = [asked[i][0] for i in some], len(asked[some[-1]][0])
            tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
            push = torch.stack([asked[i][1] for i in some])[:, None]
            with _hook(bench, push):
                new = model.generate(tokens, attention_mask=mask, **_greedy(bench, n_tokens))
            for i, row in zip(some, new[:, width:].tolist(), strict=True):
                found[i] = until_stop(bench, row)
        return [found[i] for i in range(len(asked))]

    return write


def until_stop(bench: Bench, new: list[int]) -> list[int]:
    """New tokens before the first stop token."""
    stops = stop_token_ids(bench.model)
    return new[: next((i for i, token in enumerate(new) if token in stops), len(new))]


def hooked_transformer(bench: Bench, n_tokens: int) -> Callable[[list[int], Tensor], list[int]]:
    def write(ids: list[int], push: Tensor) -> list[int]:
        def add(resid: Tensor, hook: Any) -> Tensor:
            return resid + push

        with bench.model.hooks(fwd_hooks=[(bench.hook_name, add)]):
            new = bench.model.generate(
                torch.tensor([ids]),
                max_new_tokens=n_tokens,
                eos_token_id=stop_token_ids(bench.model),
                do_sample=False,
                prepend_bos=False,
                return_type="tokens",
                verbose=False,
            )
        return until_stop(bench, new[0, len(ids) :].tolist())

    return write


def hugging_face_hook(bench: Bench, n_tokens: int) -> Callable[[list[int], Tensor], list[int]]:
    def write(ids: list[int], push: Tensor) -> list[int]:
        with _hook(bench, push):
            new = _generate(bench, ids, n_tokens)
        return until_stop(bench, new)

    return write


def steering_vectors(bench: Bench, n_tokens: int) -> Callable[[list[int], Tensor], list[int]]:
    from steering_vectors import SteeringVector

    def write(ids: list[int], push: Tensor) -> list[int]:
        vector = SteeringVector({bench.layer - 1: push})  # what leaves the layer before
        with vector.apply(bench.hugging_face):
            return until_stop(bench, _generate(bench, ids, n_tokens))

    return write


def nnsight(bench: Bench, n_tokens: int) -> Callable[[list[int], Tensor], list[int]]:
    from nnsight import LanguageModel

    warnings.filterwarnings("ignore", module="nnsight")  # an open loop ends with one, by design
    model = LanguageModel(bench.hugging_face, tokenizer=bench.model.tokenizer)
    layer = model.model.layers[bench.layer - 1]

    def write(ids: list[int], push: Tensor) -> list[int]:
        with model.generate(**_greedy(bench, n_tokens)) as tracer:
            with tracer.invoke(torch.tensor([ids])):
                for _ in tracer.iter[:]:
                    layer.output[:] += push
            with tracer.invoke():
                new = tracer.result.save()
        return until_stop(bench, new[0, len(ids) :].tolist())

    return write


def _each(
    write: Callable[[list[int], Tensor], list[int]], asked: Sequence[Asked]
) -> list[list[int]]:
    return [write(ids, push) for ids, push in asked]


def _hook(bench: Bench, push: Tensor) -> Any:
    """A forward pre-hook, taken off by `with`."""

    def add(module: Any, args: Any, kwargs: Any) -> Any:
        return (pushed(args[0], push, last_only=False), *args[1:]), kwargs

    layer = bench.hugging_face.model.layers[bench.layer]
    return layer.register_forward_pre_hook(add, with_kwargs=True)


def _generate(bench: Bench, ids: list[int], n_tokens: int) -> list[int]:
    tokens = torch.tensor([ids])
    new = bench.hugging_face.generate(
        tokens, attention_mask=torch.ones_like(tokens), **_greedy(bench, n_tokens)
    )
    return new[0, len(ids) :].tolist()


def _greedy(bench: Bench, n_tokens: int) -> dict[str, Any]:
    return {
        "max_new_tokens": n_tokens,
        "do_sample": False,
        "eos_token_id": stop_token_ids(bench.model),
        "pad_token_id": bench.model.tokenizer.pad_token_id,
    }
