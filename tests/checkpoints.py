"""Small random checkpoints in Hugging Face format, for tests that need a model but no knowledge."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SENTENCES = [
    "Write a Python function that returns the sum of two numbers.",
    "def add(a, b):\n    return a + b\n",
    "```python\nprint('hello')\n```",
    "Let $x$ be a real number with $$x^2 = 2$$, so \\(x\\) is \\[\\sqrt{2}\\].",
    "system user assistant answer the question and show your work",
]

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}


LLAMA3_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
"""Llama 3.1's scaling; within a prompt of a few tokens, it matters."""

GEMMA: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": [
        "sliding_attention",
        "sliding_attention",
        "full_attention",
        "sliding_attention",
    ],
    "sliding_window": 5,
    "query_pre_attn_scalar": 24,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
}
"""Gemma 3's two kinds of layers, with a window shorter than most prompts."""

GEMMA_LINEAR: dict[str, Any] = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}
"""Rotary embeddings as Gemma 3 of 4B and more has them."""


def small_tokenizer(vocab_size: int = 512, bos: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's special tokens and chat template.

    With `bos`, texts and chats begin with that token, as Llama's and Gemma's do.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [*SPECIAL, bos] if bos else SPECIAL
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=("{{ bos_token }}" if bos else "") + CHAT_TEMPLATE,
        **({"bos_token": bos} if bos else {}),
    )


TURNS = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Gemma's chat template, without its refusal of system messages."""
FAMILIES: dict[str, dict[str, Any]] = {
    "llama3": {"bos": "<|begin_of_text|>"},
    "gemma": {"bos": "<bos>", "marks": ["<start_of_turn>", "<end_of_turn>"], "template": TURNS},
    "smollm2": {"bos_token": "<|im_start|>"},
    "qwen": {},
    "gpt2": {
        **dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>"),
        **dict.fromkeys(("pad_token", "template")),
    },
}
"""How tokenizers of model families treat special tokens, as arguments of `family_tokenizer`."""


def family_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A small tokenizer that begins texts, chats and padding as those of a family of models do."""
    about = dict(FAMILIES[family])
    tokenizer = small_tokenizer(bos=about.pop("bos", None))
    if marks := about.pop("marks", []):
        tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = about.pop("template", tokenizer.chat_template)
    for name, token in about.items():
        setattr(tokenizer, name, token)
    return tokenizer


def random_family(folder: Path, family: str) -> Path:
    """Write a random Qwen3 to `folder` with the tokenizer of a family."""
    random_qwen3(folder)
    for file in (*folder.glob("tokenizer*"), *folder.glob("*.jinja")):
        file.unlink()
    family_tokenizer(family).save_pretrained(folder)
    return folder


def random_qwen3(folder: Path, *, seed: int = 0, scale: float = 0.2, **cfg: Any) -> Path:
    """Write a random dense Qwen3 with tokenizer to `folder`; `cfg` overrides `SMALL`.

    `scale` is the standard deviation of the weights: large enough that layers matter.
    The vocabulary is a little larger than the tokenizer, as Qwen's is.
    """
    config = {**SMALL, **cfg}
    return _write_random(folder, Qwen3Config, Qwen3ForCausalLM, config, seed=seed, scale=scale)


def random_qwen2(folder: Path, *, seed: int = 0, scale: float = 0.2, **cfg: Any) -> Path:
    """As random_qwen3, a Qwen2.5: biases on queries, keys and values, heads of d_model / n."""
    config = {key: value for key, value in SMALL.items() if key != "head_dim"} | cfg
    return _write_random(folder, Qwen2Config, Qwen2ForCausalLM, config, seed=seed, scale=scale)


def random_llama(folder: Path, *, seed: int = 0, scale: float = 0.2, **cfg: Any) -> Path:
    """As random_qwen3, a Llama 3.1: scaled rotary embeddings, untied embeddings, a BOS token."""
    own = {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False, "head_dim": 8}
    kinds = LlamaConfig, LlamaForCausalLM
    bos = "<|begin_of_text|>"
    return _write_random(folder, *kinds, {**SMALL, **own, **cfg}, bos, seed=seed, scale=scale)


def random_gemma3(folder: Path, *, seed: int = 0, scale: float = 0.2, **cfg: Any) -> Path:
    """As random_qwen3, the text model of a Gemma 3: see `GEMMA`, and a BOS token."""
    kinds = Gemma3TextConfig, Gemma3ForCausalLM
    return _write_random(folder, *kinds, {**SMALL, **GEMMA, **cfg}, "<bos>", seed=seed, scale=scale)


def _write_random(
    folder: Path,
    config_class: type[PretrainedConfig],
    model_class: Any,
    cfg: dict[str, Any],
    bos: str | None = None,
    *,
    seed: int,
    scale: float,
) -> Path:
    """A model of this class with random weights, saved with its tokenizer."""
    tokenizer = small_tokenizer(bos=bos)
    config = config_class(
        vocab_size=len(tokenizer) + 8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        initializer_range=scale,
        **cfg,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        offset = 1.0 if model_class is Gemma3ForCausalLM else 0.0
        for name, weight in model.named_parameters():
            if "norm" in name:  # norms of one would hide a norm that is applied twice
                weight.data.uniform_(0.5 - offset, 1.5 - offset)
            elif name.endswith("bias"):
                weight.data.normal_(0.0, scale)
            elif offset and "embed" in name:  # Gemma multiplies it: the last token would come again
                weight.data.mul_(0.2)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def put_in_hub_cache(cache_dir: Path, repo_id: str, source_folder: Path) -> Path:
    """Lay `source_folder` out as a hub cache would hold `repo_id`; the snapshot folder."""
    repo = Path(cache_dir) / f"models--{repo_id.replace('/', '--')}"
    commit = hashlib.sha1(repo_id.encode()).hexdigest()
    snapshot = repo / "snapshots" / commit
    for folder in (snapshot, repo / "blobs", repo / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    (repo / "refs" / "main").write_text(commit)
    for file in Path(source_folder).iterdir():
        blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(Path("../..") / "blobs" / blob.name)
    return snapshot
