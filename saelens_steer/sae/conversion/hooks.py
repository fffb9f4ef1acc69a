"""The hook a checkpoint was trained at, from other libraries' terms and the names of its folders.

`blocks.8.hook_resid_pre` is read as it stands. `model.layers.12.output`, `layers.3.mlp` and `h.3`
are modules of transformers: their output, unless the word ends in `.input`. `resid_post_layer_8`,
or a `location` with a `layer`, is a place in a layer; the names of a file and its folders may give
the two separately (`resid_post/layer_12_width_16k`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_steer.sae.conversion.checkpoint import Checkpoint

HOOK_KEYS = (
    *("hook_name", "hook_point", "hook_point_in", "hook_in", "act_name"),
    *("hf_hook_point_in", "hf_hook_name", "hookpoint", "hook", "submodule_name", "submodule"),
)
OUT_KEYS = ("hook_name_out", "hook_point_out", "hook_out", "hf_hook_point_out", "hf_hook_name_out")
"""Settings of a transcoder's target."""
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
GEMMA_SCOPE = {
    **dict.fromkeys(("resid_post", "-res"), "hook_resid_post"),
    **dict.fromkeys(("mlp_out", "-mlp"), "hook_mlp_out"),
    **dict.fromkeys(("attn_out", "-att"), "attn.hook_z"),
}
"""The same in the folders and repositories of Gemma Scope (`params.npz`, `params.safetensors`)."""
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
OWN = re.compile(r"blocks\.\d+\.(\w+\.)*hook_\w+|hook_\w+")
MODULE = re.compile(r"(?:[a-z_]+\.)*(?:layers|h|blocks?)\.(\d+)((?:\.[a-z_0-9]+)*)")
PLACE = re.compile("|".join(PLACES))
GEMMA_PLACE = re.compile(r"resid_post|mlp_out|attn_out|-(?:res|mlp|att)(?=$|-)")
LAYER = re.compile(r"(?:layers?|blocks?)[._-]?(\d+)")
QWEN_SCOPE = re.compile(r"SAE-Res-(.+)-W(\d+)K-L0_(\d+)$")
"""A repository of Qwen-Scope: the model, the width in units of 1,024, and k."""
NEAREST = 5
"""Names searched: the file's and those of its folders, innermost first."""


@dataclass(frozen=True)
class Hooks:
    """Where an SAE reads and, if it is a transcoder, where it writes; None if unknown."""

    name: str | None
    word: str | None
    """The same in the checkpoint's own terms."""
    out: str | None
    out_word: str | None

    @property
    def differ(self) -> bool:
        """Whether input and output are different places, as in a transcoder."""
        own = self.word if self.out is None or self.name is None else self.name
        out = self.out_word if self.out is None or self.name is None else self.out
        return out is not None and own != out

    def metadata(self) -> dict[str, Any]:
        """Keys of SAELens's metadata."""
        found = {"hook_name": self.name}
        if self.word is not None and MODULE.fullmatch(self.word) and not OWN.fullmatch(self.word):
            found["hf_hook_name"] = self.word
        return found


def hooks_of(checkpoint: Checkpoint) -> Hooks:
    """The hooks in the settings, or else in the names of the file and its folders."""
    words = [w for w in map(checkpoint.settings.get, HOOK_KEYS) if isinstance(w, str) and w]
    outs = [w for w in map(checkpoint.settings.get, OUT_KEYS) if isinstance(w, str) and w]
    read = [(hook_of_word(word), word) for word in words]
    name, word = next((pair for pair in read if pair[0]), (None, words[0] if words else None))
    if name is None:
        name = _of_place(checkpoint.settings) or _of_names(checkpoint.file)
    out = next((hook for hook in map(hook_of_word, outs) if hook), None)
    return Hooks(name, word, out, outs[0] if outs else None)


def hook_of_word(word: str) -> str | None:
    """TransformerLens's name of a hook in any library's terms; None if the term is unknown."""
    if OWN.fullmatch(word):
        return word
    if module := MODULE.fullmatch(word):
        inner = module[2].lstrip(".")
        rest, _, side = inner.rpartition(".")
        key = (rest, side) if side in ("input", "output") else (inner, "output")
        return f"blocks.{module[1]}.{MODULES[key]}" if key in MODULES else None
    place, layer = PLACE.search(word), LAYER.search(word)
    return f"blocks.{layer[1]}.{PLACES[place[0]]}" if place and layer else None


def names_of(file: Path) -> list[str]:
    """The names of the file and its nearest folders, and of its repository in the hub's cache."""
    parts = file.absolute().parts[::-1]
    cached = [part.split("--")[-1] for part in parts if part.startswith("models--")]
    return [file.stem, *parts[1:NEAREST], *cached[:1]]


def qwen_scope(file: Path) -> re.Match[str] | None:
    """The parts of the name of a Qwen-Scope repository, if the file lies in one."""
    return next((found for n in names_of(file) if (found := QWEN_SCOPE.fullmatch(n))), None)


def _of_place(settings: dict[str, Any]) -> str | None:
    """The hook of settings such as `location: resid_post_mlp, layer: 8`."""
    layers = (
        settings.get(key) for key in ("layer", "layer_index", "hook_layer", "hook_point_layer")
    )
    layer = next((n for n in layers if isinstance(n, int) and not isinstance(n, bool)), None)
    words = (str(settings.get(key, "")) for key in (*HOOK_KEYS, "location", "site"))
    place = next((PLACES[word] for word in words if word in PLACES), None)
    return None if layer is None or place is None else f"blocks.{layer}.{place}"


def _of_names(file: Path) -> str | None:
    """The hook in the names: one name that gives it all, or neighbours with a layer and a place."""
    names = names_of(file)
    whole = (hook_of_word(name) for name in names if OWN.match(name) or MODULE.fullmatch(name))
    if found := next((hook for hook in whole if hook), None):
        return found
    if file.stem == "params":
        place, layer = _first(GEMMA_PLACE, names), _first(LAYER, names)
        return f"blocks.{layer[1][1]}.{GEMMA_SCOPE[place[1][0]]}" if place and layer else None
    place, layer = _first(PLACE, names), _first(LAYER, names)
    if qwen_scope(file) and layer:
        return f"blocks.{layer[1][1]}.hook_resid_post"
    if place and file.stem.isdigit() and "autoencoders" in names:  # OpenAI's `…/autoencoders/8.pt`
        return f"blocks.{file.stem}.{PLACES[place[1][0]]}"
    if place is None or layer is None or abs(place[0] - layer[0]) > 1:
        return None
    return f"blocks.{layer[1][1]}.{PLACES[place[1][0]]}"


def _first(pattern: re.Pattern[str], names: list[str]) -> tuple[int, re.Match[str]] | None:
    """The first name that matches: its number and the match."""
    found = ((i, match) for i, name in enumerate(names) if (match := pattern.search(name)))
    return next(found, None)
