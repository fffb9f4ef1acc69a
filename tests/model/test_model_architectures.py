"""Every architecture, under the names that people type, computes what transformers computes."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import put_in_hub_cache
from checkpoints_any import ARCHITECTURES, BRIDGED, random_checkpoint
from huggingface_hub import constants
from model_batches import left_padded
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM

from saelens_steer.model import (
    default_hook_name,
    find_model,
    generate,
    last_token_logits,
    model_provenance,
    run_to_hook,
)
from saelens_steer.steering import add, steered

NAMES = {
    "gpt2": ("openai-community/gpt2", "gpt2-small"),
    "neox": ("EleutherAI/pythia-70m-deduped", "pythia-70m-deduped"),
    "neox-sequential": ("EleutherAI/gpt-neox-20b", "neox"),
    "gpt-neo": ("EleutherAI/gpt-neo-125M", "gpt-neo-125M"),
    "gptj": ("EleutherAI/gpt-j-6B", "gpt-j"),
    "opt": ("facebook/opt-125m", "opt-125m"),
    "bloom": ("bigscience/bloom-560m", "bloom-560m"),
    "phi": ("microsoft/phi-2", "phi-2"),
    "phi3": ("microsoft/Phi-3-mini-4k-instruct", "phi-3"),
    "phi3-partial": ("microsoft/Phi-4-mini-instruct",) * 2,
    "mistral": ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
    "mistral-plain": ("mistralai/Mistral-7B-v0.3",) * 2,
    "mixtral": ("mistralai/Mixtral-8x7B-v0.1", "mixtral"),
    "olmo": ("allenai/OLMo-1B-hf",) * 2,
    "olmo2": ("allenai/OLMo-2-0425-1B",) * 2,
    "olmo2-grouped": ("allenai/OLMo-2-0325-32B",) * 2,
    "olmo3": ("allenai/Olmo-3-1025-7B",) * 2,
    "olmoe": ("allenai/OLMoE-1B-7B-0924",) * 2,
    "llama2": ("meta-llama/Llama-2-7b-hf", "Llama-2-7b"),
    "llama3": ("meta-llama/Llama-3.1-8B",) * 2,
    "gemma": ("google/gemma-2b-it", "gemma-2b-it"),
    "gemma2": ("google/gemma-2-2b", "gemma-2-2b"),
    "gemma3": ("google/gemma-3-270m-it",) * 2,
    "gemma3-multimodal": ("google/gemma-3-4b-pt",) * 2,
    "qwen1.5": ("Qwen/Qwen1.5-0.5B", "qwen1.5-0.5b"),
    "qwen2": ("Qwen/Qwen2.5-0.5B-Instruct",) * 2,
    "qwen3": ("Qwen/Qwen3-1.7B", "qwen3-1.7b"),
    "gpt-oss": ("openai/gpt-oss-20b",) * 2,
    "qwen2-moe": ("Qwen/Qwen1.5-MoE-A2.7B",) * 2,
    "qwen3-moe": ("Qwen/Qwen3-30B-A3B-Base",) * 2,
    "qwen3-next": ("Qwen/Qwen3-Next-80B-A3B-Instruct",) * 2,
    "qwen3.5": ("Qwen/Qwen3.5-2B-Base",) * 2,
    "smollm3": ("HuggingFaceTB/SmolLM3-3B",) * 2,
}
"""The id in the cache, and what is typed."""
N = 8


@dataclass
class Loaded:
    """A model, loaded by its name, and the transformers model of the same checkpoint."""

    name: str
    model: Any
    hf: Any
    weightless: Any

    def theirs(self, tokens: torch.Tensor, mask: torch.Tensor) -> Any:
        """transformers' outputs, hidden states too, with positions from each row's first token."""
        positions = {"position_ids": (mask.long().cumsum(1) - 1).clamp(min=0)}
        taken = positions if "position_ids" in signature(self.hf.forward).parameters else {}
        return self.hf(tokens, attention_mask=mask.long(), output_hidden_states=True, **taken)

    @property
    def text(self) -> Any:
        """The part of the transformers model that has the layers."""
        return getattr(self.hf.get_decoder(), "language_model", self.hf.get_decoder())


@pytest.fixture(scope="module", params=ARCHITECTURES)
def loaded(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("architectures")
    folder = random_checkpoint(request.param, root / "written")
    hub_id, typed = NAMES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.setattr(constants, "HF_HUB_CACHE", str(root / "hub"))
        put_in_hub_cache(root / "hub", hub_id, folder)
        found = find_model(typed)
        weightless, model = found.weightless, found.loaded
    return Loaded(request.param, model, _hugging_face(folder, request.param), weightless)


def _hugging_face(folder: Path, architecture: str) -> Any:
    multimodal = "multimodal" in architecture
    kind = AutoModelForMultimodalLM if multimodal else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def _prompts():
    """Longer and shorter than the sliding windows."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(5, 380, (1, n), generator=draw) for n in (17, 4, 9, 1)]


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest ‖ours − theirs‖ / ‖theirs‖ of the last axis."""
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())


def test_the_class_is_said_and_recorded(loaded):
    bridged = loaded.name in BRIDGED
    assert type(loaded.model).__name__ == ("TransformerBridge" if bridged else "HookedTransformer")
    record = model_provenance(loaded.model)
    assert record["proof"] == "the whole model in float32"
    assert max(record["parity"].values()) <= 2e-5


def test_before_its_weights_are_read_it_has_its_hooks_and_settings(loaded):
    assert {weight.device.type for weight in loaded.weightless.parameters()} == {"meta"}
    assert list(loaded.weightless.hook_dict) == list(loaded.model.hook_dict)
    settings = [
        {k: str(v) for k, v in vars(m.cfg).items()} for m in (loaded.weightless, loaded.model)
    ]
    assert settings[0] == settings[1]


@torch.no_grad()
def test_logits_and_the_middle_residual_are_those_of_transformers(loaded):
    tokens, mask = left_padded(_prompts())
    theirs = loaded.theirs(tokens, mask)
    ours = loaded.model(tokens, attention_mask=mask.long())
    assert _apart(ours[mask], theirs.logits[mask]) <= 1e-4
    assert _apart(last_token_logits(loaded.model, tokens, mask), theirs.logits[:, -1]) <= 1e-4
    hook = default_hook_name(loaded.model)
    resid = run_to_hook(loaded.model, tokens, mask, hook)
    middle = theirs.hidden_states[loaded.model.cfg.n_layers // 2]
    assert _apart(resid[mask], middle[mask]) <= 1e-4


def test_greedy_text_is_that_of_transformers(loaded):
    ours = generate(loaded.model, *left_padded(_prompts()), N)
    for row, prompt in zip(ours, _prompts(), strict=True):
        options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": N}
        theirs = loaded.hf.generate(prompt, do_sample=False, **options)[0, prompt.shape[1] :]
        assert torch.equal(row[: len(theirs)], theirs)


@torch.no_grad()
def test_a_push_is_that_of_a_plain_hook_on_transformers(loaded):
    tokens, mask = left_padded(_prompts())
    push = torch.randn(loaded.model.cfg.d_model, generator=torch.Generator().manual_seed(1))
    layer = loaded.model.cfg.n_layers // 2

    def pushed(module: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (args[0] + push, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + push}

    layers = next(
        m for m in loaded.text.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4
    )
    handle = layers[layer].register_forward_pre_hook(pushed, with_kwargs=True)
    theirs = loaded.theirs(tokens, mask).logits
    handle.remove()
    with steered(loaded.model, add(push, 1.0), f"blocks.{layer}.hook_resid_pre"):
        ours = loaded.model(tokens, attention_mask=mask.long())
    assert _apart(ours[mask], theirs[mask]) <= 1e-4
    assert _apart(loaded.theirs(tokens, mask).logits[mask], theirs[mask]) > 1e-2
