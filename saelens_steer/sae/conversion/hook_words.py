"""Words of other libraries for a hook, and TransformerLens's name of it.

`blocks.8.hook_resid_pre` is read as it stands. `model.layers.12.output`, `layers.3.mlp` and `h.3`
are modules of transformers: their output, unless the word or a setting says that it is the input.
`resid_post_layer_8` is a place in a layer.
"""

from __future__ import annotations

import re

PLACES = {
    "resid_post_mlp": "hook_resid_post",
    "resid_post_attn": "hook_resid_mid",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_delta_attn": "hook_attn_out",
    "mlp_post_act": "mlp.hook_post",
    "resid_post": "hook_resid_post",
    "resid_out": "hook_resid_post",
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
}
"""Words for a place in a layer → TransformerLens's. The first five are OpenAI's."""
MODULES = {
    ("", "output"): "hook_resid_post",
    ("", "input"): "hook_resid_pre",
    **dict.fromkeys(
        [
            *(("mlp", "output"), ("post_feedforward_layernorm", "output")),
            *((f"mlp.{name}", "output") for name in ("down_proj", "c_proj", "dense_4h_to_h")),
        ],
        "hook_mlp_out",
    ),
    **dict.fromkeys(
        [(f"mlp.{name}", "input") for name in ("down_proj", "c_proj", "dense_4h_to_h")],
        "mlp.hook_post",
    ),
    **dict.fromkeys(
        [
            *((name, "output") for name in ("self_attn", "attn", "attention")),
            *(("self_attn.o_proj", "output"), ("attn.c_proj", "output")),
            ("attention.dense", "output"),
        ],
        "hook_attn_out",
    ),
    **dict.fromkeys(
        [(name, "input") for name in ("self_attn.o_proj", "attn.c_proj", "attention.dense")],
        "attn.hook_z",
    ),
}
"""A module of a decoder layer, and its side → the hook that holds the same activation."""
HOOKS = (
    *(r"hook_resid_(pre|mid|post)", r"hook_(mlp|attn)_(in|out)", r"hook_[qkv]_input"),
    *(r"ln[12](_post)?\.hook_(normalized|scale)", r"mlp\.hook_(pre|pre_linear|post|in|out)"),
    r"attn\.hook_(q|k|v|z|result|pattern|attn_scores|in|out)",
)
OWN = re.compile(
    rf"blocks\.\d+\.({'|'.join(HOOKS)})|hook_embed|hook_pos_embed|ln_final\.hook_normalized"
)
"""TransformerLens's names."""
DECODER = "model|transformer|language_model|text_model|base_model|gpt_neox|decoder|backbone|module"
MODULE = re.compile(rf"(?:(?:{DECODER})\.)*(?:layers|h|blocks?)\.(\d+)((?:\.[a-z_0-9]+)*)")
"""A module of a language model's layer; those of vision towers and encoders are other layers."""
PLACE = rf"(?:hook_)?({'|'.join(PLACES)})"
LAYER = r"(?:layers?|blocks?)[._-]?(\d+)"
PLACED = re.compile(rf"{PLACE}[._-]?{LAYER}")
"""`resid_post_layer_8`"""


def hook_of_word(word: str, side: str | None = None) -> str | None:
    """TransformerLens's name of a hook in any library's words; None if the word is unknown.

    side: "input" or "output" of a module that names none; its output by default.
    """
    if OWN.fullmatch(word):
        return word  # a hook point puts out what it reads, so it has no sides
    if module := MODULE.fullmatch(word):
        inner = module[2].lstrip(".")
        rest, _, own = inner.rpartition(".")
        own_side = own in ("input", "output")
        key = (rest, own) if own_side else (inner, side or "output")
        agree = not own_side or side in (None, own)
        return f"blocks.{module[1]}.{MODULES[key]}" if agree and key in MODULES else None
    placed = PLACED.fullmatch(word)
    return hook_of_place(placed[1], int(placed[2]), side) if placed else None


def hook_of_place(word: str, layer: int | None, side: str | None) -> str | None:
    """The hook of a place such as `resid_post_mlp` in a layer; a place has no input side."""
    place = PLACES.get(word.removeprefix("hook_"))
    known = place is not None and layer is not None and side in (None, "output")
    return f"blocks.{layer}.{place}" if known else None
