"""The loops that people write: one prompt, one direction, one strength at a time.

Each takes (tokens [1, pos], push [d_model], last_only) to the last token's logits.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.side_by_side import Bench
from saelens_steer.sweeps import grid

Loop = Callable[[Tensor, Tensor, bool], Tensor]


def loops(bench: Bench) -> dict[str, Loop]:
    """The loops whose libraries are installed."""
    found = {
        "a_hooked_transformer": hooked_transformer(bench),
        "b_hugging_face_hook": hugging_face_hook(bench),
        "b_keeping_one_logit": hugging_face_hook(bench, logits_to_keep=1),
    }
    if importlib.util.find_spec("steering_vectors") and importlib.util.find_spec("sklearn"):
        found["c_steering_vectors"] = steering_vectors(bench)
    if importlib.util.find_spec("nnsight"):
        found["d_nnsight"] = nnsight(bench)
    return found


def pushed(x: Tensor, push: Tensor, last_only: bool) -> Tensor:
    """The push added everywhere, or at the last token."""
    if not last_only:
        return x + push
    x = x.clone()
    x[:, -1] += push
    return x


def hooked_transformer(bench: Bench) -> Loop:
    def run(tokens: Tensor, push: Tensor, last_only: bool) -> Tensor:
        def add(resid: Tensor, hook: Any) -> Tensor:
            return pushed(resid, push, last_only)

        return bench.model.run_with_hooks(tokens, fwd_hooks=[(bench.hook_name, add)])[0, -1]

    return run


def hugging_face_hook(bench: Bench, **options: int) -> Loop:
    model, layer = bench.hugging_face, bench.hugging_face.model.layers[bench.layer]

    def run(tokens: Tensor, push: Tensor, last_only: bool) -> Tensor:
        def add(module: Any, args: Any, kwargs: Any) -> Any:
            return (pushed(args[0], push, last_only), *args[1:]), kwargs

        handle = layer.register_forward_pre_hook(add, with_kwargs=True)
        try:
            return model(tokens, use_cache=False, **options).logits[0, -1]
        finally:
            handle.remove()

    return run


def batched_hook(bench: Bench, prompts: Sequence[int], rows: int = 64) -> Callable[[bool], Tensor]:
    """Some prompts under every push, α = 0 once, in batches of one prompt and so many pushes.

    What a careful loop does: no padding, and the last logits alone. Prompt by prompt.
    """
    model, layer = bench.hugging_face, bench.hugging_face.model.layers[bench.layer]
    cells = [(0, 0.0), *grid(bench.n_directions, bench.alphas)]
    pushes = torch.stack([bench.push(*cell) for cell in cells])

    def run(last_only: bool) -> Tensor:
        return torch.cat(
            [
                _pushed_at_once(model, layer, bench.prompts[prompt], some, last_only)
                for prompt in prompts
                for some in pushes.split(rows)
            ]
        )

    return run


def _pushed_at_once(
    model: Any, layer: Any, prompt: Sequence[int], pushes: Tensor, last_only: bool
) -> Tensor:
    def add(module: Any, args: Any, kwargs: Any) -> Any:
        push = pushes if last_only else pushes[:, None]
        return (pushed(args[0], push, last_only), *args[1:]), kwargs

    handle = layer.register_forward_pre_hook(add, with_kwargs=True)
    try:
        tokens = torch.tensor([prompt]).expand(len(pushes), -1)
        return model(tokens, use_cache=False, logits_to_keep=1).logits[:, -1]
    finally:
        handle.remove()


def steering_vectors(bench: Bench) -> Loop:
    from steering_vectors import SteeringVector

    def run(tokens: Tensor, push: Tensor, last_only: bool) -> Tensor:
        vector = SteeringVector({bench.layer - 1: push})  # what leaves the layer before
        where = {"min_token_index": None, "token_indices": [-1]} if last_only else {}
        with vector.apply(bench.hugging_face, **where):
            return bench.hugging_face(tokens, use_cache=False).logits[0, -1]

    return run


def nnsight(bench: Bench) -> Loop:
    from nnsight import NNsight

    model = NNsight(bench.hugging_face)
    layer = model.model.layers[bench.layer - 1]

    def run(tokens: Tensor, push: Tensor, last_only: bool) -> Tensor:
        with model.trace(tokens, use_cache=False):
            if last_only:
                layer.output[:, -1] += push
            else:
                layer.output[:] += push
            logits = model.output.logits[0, -1].save()
        return logits  # noqa: RET504  (read inside the trace, a value after it)

    return run
