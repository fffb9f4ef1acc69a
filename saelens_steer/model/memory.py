"""A transformers model in memory as a checkpoint, which is no more than its config and weights."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import re
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from saelens_steer.errors import InputError, first_line
from saelens_steer.model.checkpoint import OTHER_PARTS, TEXT_MODEL, Checkpoint, quiet
from saelens_steer.model.configs import text_config
from saelens_steer.model.parity import FLOAT32_TOLERANCE
from saelens_steer.model.tokenizer import stop_ids, tokenizer_digest

TOKENS = 32
"""Arbitrary tokens on which two models are compared."""
HALF_TOLERANCE = 1e-2
"""Largest relative difference of the logits in half precision, on one device and with one kind of
attention: copies of a model then agree exactly."""


def from_memory(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Checkpoint:
    """A transformers model as it is now, with the tokenizer that goes with it."""
    if tokenizer is None:
        raise InputError(
            "A model in memory comes without a tokenizer: pass load_model(model, tokenizer=…)."
        )
    config = copy.deepcopy(hf.config)
    config.architectures = [type(hf).__name__]
    config = text_config(config)
    kept = weakref.ref(hf)
    return Checkpoint(
        name=str(hf.config.name_or_path or type(hf).__name__),
        source="memory",
        config=config,
        tokenizer=tokenizer,
        fingerprint=_digest(hf, tokenizer),
        commit=None,
        read=lambda dtype: _copied(kept, config, dtype),
    )


def _copied(
    kept: weakref.ref[PreTrainedModel], config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """A copy of a model in memory, in eager attention, which is checked to compute the same."""
    if (hf := kept()) is None:
        raise InputError("The transformers model that this model was loaded from no longer exists.")
    if any(weight.is_meta for weight in hf.parameters()):
        raise InputError("Some weights are not in memory: load the model without offloading.")
    name, weights = type(hf).__name__, hf.state_dict()
    alike = rebuilt(name, weights, config, hf.dtype, config._attn_implementation)
    with _evaluating(hf):
        theirs = few_logits(hf, config)
    difference = apart(few_logits(alike.to(hf.device), config), theirs)  # pyright: ignore[reportArgumentType]
    if not difference <= (FLOAT32_TOLERANCE if hf.dtype == torch.float32 else HALF_TOLERANCE):
        raise InputError(
            f"The model {name} does not compute what its config and weights say (logits differ "
            f"by {difference:.1e}): remove its hooks, undo changes to its modules and config, and "
            "choose its dtype in from_pretrained, as casting it later rounds rotary frequencies."
        )
    del alike
    copied = rebuilt(name, weights, config, dtype)
    copied.generation_config = copy.deepcopy(hf.generation_config)
    return copied


@contextlib.contextmanager
def _evaluating(hf: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode inside the context; each module then has its own mode back."""
    modes = {module: module.training for module in hf.modules()}
    hf.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def few_logits(hf: Any, config: PretrainedConfig) -> Float[Tensor, "pos d_vocab"]:
    """Logits of a transformers (or peft) model at a few arbitrary tokens, in float32."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (1, TOKENS), generator=draw)
    return hf(input_ids=tokens.to(hf.device)).logits[0].float()


def apart(ours: Float[Tensor, "pos d_vocab"], theirs: Float[Tensor, "pos d_vocab"]) -> float:
    """The largest ‖ours − theirs‖ / ‖theirs‖ at a position; NaN if one is not finite."""
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())


def rebuilt(
    name: str,
    state: dict[str, Tensor],
    config: PretrainedConfig,
    dtype: torch.dtype,
    attention: str | None = "eager",
) -> PreTrainedModel:
    """The text model of a config, on the CPU, with these weights.

    InputError if a weight is missing, left over, or tied to one that differs from it.
    """
    named = {_text_name(key): w for key, w in state.items() if not OTHER_PARTS.search(key)}
    config = copy.deepcopy(config)
    config._attn_implementation = attention
    vars(config).pop("quantization_config", None)  # these weights are no longer quantised
    with quiet(), torch.random.fork_rng(devices=[]):
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    try:
        hf.load_state_dict({key: weight.to("cpu", dtype) for key, weight in named.items()})
    except RuntimeError as e:
        line = (str(e).splitlines() or [""])[1:2] or [first_line(e)]
        raise InputError(
            f"The weights of the model {name} do not match its config ({line[0].strip()}); "
            "merge adapters and undo changes to its modules first."
        ) from e
    for key, weight in hf.state_dict().items():
        if not torch.equal(weight, named[key].to("cpu", dtype)):
            raise InputError(
                f"In the model {name}, {key} differs from the weight it is tied to; set "
                "tie_word_embeddings to false."
            )
    return hf.eval()


def _text_name(key: str) -> str:
    """The name that a weight has in the text model alone."""
    for pattern, name in TEXT_MODEL.items():
        key, found = re.subn(pattern, name, key)
        if found:
            break
    return key


def _digest(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over a model's config, tokenizer and weights."""
    digest = hashlib.sha256(hf.config.to_json_string().encode())
    digest.update(tokenizer_digest(tokenizer).encode())
    digest.update(repr(stop_ids(hf, tokenizer)).encode())
    for name, weight in sorted(hf.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
