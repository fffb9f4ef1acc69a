"""The hook a checkpoint was trained at, in its settings or the names of its folders.

All statements of a hook must agree. A hook in unknown words stays open, for the user to give. The
names of the file and its folders count if the settings name no hook; they may give layer and place
apart (`resid_post/layer_12_width_16k`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_steer.errors import InputError
from saelens_steer.model import hook_layer, same_places
from saelens_steer.sae.conversion.checkpoint import Checkpoint, is_number, truth
from saelens_steer.sae.conversion.hook_words import (
    LAYER,
    MODULE,
    OWN,
    PLACE,
    PLACES,
    hook_of_place,
    hook_of_word,
)
from saelens_steer.sae.conversion.unread import ignoring

HOOK_KEYS = (
    *("hook_name", "hook_point", "hook_point_in", "hook_in", "act_name"),
    *("hf_hook_point_in", "hf_hook_name", "hookpoint", "hook", "submodule_name", "submodule"),
)
OUT_KEYS = ("hook_name_out", "hook_point_out", "hook_out", "hf_hook_point_out", "hf_hook_name_out")
"""Settings of a transcoder's target."""
PLACE_KEYS = ("location", "site")
LAYER_KEYS = ("layer", "layer_index", "hook_layer", "hook_point_layer")
SIDE_KEYS = ("io", "hook_mode")
"""Settings of dictionary_learning and sparsify: which side of a module is read."""
SIDES = {
    **dict.fromkeys(("in", "input"), "input"),
    **dict.fromkeys(("out", "output"), "output"),
    **dict.fromkeys(("in_and_out", "transcode"), "transcoder"),
}
SIDED = (".input", ".output")
"""Ends of modules that name their side themselves."""
GEMMA_SCOPE = {
    **dict.fromkeys(("resid_post", "-res"), "hook_resid_post"),
    **dict.fromkeys(("mlp_out", "-mlp"), "hook_mlp_out"),
    **dict.fromkeys(("attn_out", "-att"), "attn.hook_z"),
}
"""The same in the folders and repositories of Gemma Scope (`params.npz`, `params.safetensors`)."""
OWN_NAME = re.compile(rf"({OWN.pattern})(?:_\d+)?")
"""A folder may add the SAE's width."""
OTHER_MODEL = re.compile(
    r"(?<![a-z])(vision|visual|image|audio|siglip|clip|vit|encoder)(?![a-z])", re.I
)
PLACE_NAME = re.compile(rf"(?<![a-z0-9]){PLACE}(?![a-z0-9])")
GEMMA_PLACE = re.compile(r"(resid_post|mlp_out|attn_out|-(?:res|mlp|att)(?=$|-))")
LAYER_NAME = re.compile(rf"(?<!n_)(?<![a-z0-9]){LAYER}")
NORMED = re.compile(
    r"hook_normalized$|(^|[._])([a-z_]*norm|ln(_?[12f])?)(\.output)?$|mlp(\.input|\.hook_in|_in)$"
)
"""What transcoders read, and hardly any SAE: a norm's output, which is the MLP's input."""
QWEN_SCOPE = re.compile(r"SAE-Res-(.+)-W(\d+)K-L0_(\d+)$")
"""A repository of Qwen-Scope: the model, the width in units of 1,024, and k."""
NEAREST = 5
"""Names searched: the file's and those of its folders, innermost first."""


@dataclass(frozen=True)
class Hooks:
    """Where an SAE reads and, if it is a transcoder, where it writes; None if unknown."""

    name: str | None
    word: str | None
    """The same in the checkpoint's own words."""
    out: str | None = None
    out_word: str | None = None
    transcoder: bool | None = None
    """Whether it is one; None if the settings do not say."""

    @property
    def differ(self) -> bool:
        """Whether input and output are different places, as in a transcoder."""
        own = self.word if self.out is None or self.name is None else self.name
        out = self.out_word if self.out is None or self.name is None else self.out
        return bool(self.transcoder) or (out is not None and own != out)

    @property
    def normed(self) -> bool:
        """Whether it reads a norm's output and nothing says that it writes there too."""
        word = self.name or self.word or ""
        plain = self.transcoder is False or self.out_word is not None
        return not plain and bool(NORMED.search(word))

    def metadata(self) -> dict[str, Any]:
        """Keys of SAELens's metadata."""
        found = {"hook_name": self.name}
        if self.word is not None and MODULE.fullmatch(self.word) and not OWN.fullmatch(self.word):
            found["hf_hook_name"] = self.word
        return found


def hooks_of(checkpoint: Checkpoint) -> Hooks:
    """The hooks in the settings, or else in the names of the file and its folders.

    Raises InputError if what is stated contradicts itself.
    """
    settings, side = checkpoint.settings, _side(checkpoint)
    layer = _layer(checkpoint)
    stated = {
        key: word
        for key in (*HOOK_KEYS, *PLACE_KEYS)
        if isinstance(word := settings.get(key), str) and word
    }
    words = list(stated.values())
    read = {
        f"{key}: {word}": hook_of_word(word, side) or hook_of_place(word, layer, side)
        for key, word in stated.items()
    }
    if not read:
        words, hook = _of_names(checkpoint.file, side)
        read = dict.fromkeys(words, hook)
    known = {label: hook for label, hook in read.items() if hook}
    _check_one_place(checkpoint, known, layer)
    name = next(iter(known.values()), None)
    word = next((w for w, hook in zip(words, read.values(), strict=True) if hook == name), None)
    if word and side == "input" and MODULE.fullmatch(word) and not word.endswith(SIDED):
        word += ".input"
    outs = [w for w in map(settings.get, OUT_KEYS) if isinstance(w, str) and w]
    out = next((hook for hook in map(hook_of_word, outs) if hook), None)
    said = {truth(settings.get(key)) for key in ("transcode", "transcoder")}
    plain = False if False in said or side in ("input", "output") else None
    transcoder = True if True in said or side == "transcoder" else plain
    return Hooks(name, word, out, outs[0] if outs else None, transcoder)


def names_of(file: Path) -> list[str]:
    """The names of the file and its nearest folders, and of its repository in the hub's cache."""
    parts = file.absolute().parts[::-1]
    cached = [part.split("--")[-1] for part in parts if part.startswith("models--")]
    return [file.stem, *parts[1:NEAREST], *cached[:1]]


def qwen_scope(file: Path) -> re.Match[str] | None:
    """The parts of the name of a Qwen-Scope repository, if the file lies in one."""
    return next((found for n in names_of(file) if (found := QWEN_SCOPE.fullmatch(n))), None)


def _side(checkpoint: Checkpoint) -> str | None:
    """Which side of a module is read, if the settings say it; an unknown word stays as it is."""
    words = (checkpoint.settings.get(key) for key in SIDE_KEYS)
    found = {SIDES.get(word.lower(), word) for word in words if isinstance(word, str) and word}
    if len(found) > 1:
        raise InputError(
            f"{checkpoint.file} has both io: {checkpoint.settings['io']} and hook_mode: "
            f"{checkpoint.settings['hook_mode']}: remove the wrong one"
        )
    return next(iter(found), None)


def _layer(checkpoint: Checkpoint) -> int | None:
    """The layer in the settings. Raises InputError for one that is not counted from 0."""
    found = {key: checkpoint.settings.get(key) for key in LAYER_KEYS}
    stated = {key: int(value) for key, value in found.items() if is_number(value)}
    if len(set(stated.values())) > 1 or any(layer < 0 for layer in stated.values()):
        listed = " and ".join(f"{key}: {layer}" for key, layer in stated.items())
        raise InputError(
            f"{checkpoint.file} has {listed}: give one layer, counted from 0, or write "
            f'"hook_name": "blocks.LAYER.hook_resid_pre" and {ignoring(*stated)}'
        )
    return next(iter(stated.values()), None)


def _check_one_place(checkpoint: Checkpoint, known: dict[str, str], layer: int | None) -> None:
    """Raise InputError unless all hooks, and the layer, are the same place."""
    first = next(iter(known.items()), None)
    if first is None:
        return
    places = same_places(first[1])
    other = next((label for label, hook in known.items() if hook not in places), None)
    layers = {hook_layer(place) for place in places if place.startswith("blocks.")}
    if other is None and layer is not None and layers and layer not in layers:
        other = f"{next(key for key in LAYER_KEYS if key in checkpoint.settings)}: {layer}"
    if other is not None:
        raise InputError(
            f"{checkpoint.file} has {first[0]} and {other}, which disagree about the hook: if "
            f"the first is right, write {ignoring(other.split(':')[0])}"
        )


def _of_names(file: Path, side: str | None) -> tuple[list[str], str | None]:
    """The hook in the names: one name that says all, or neighbours with a layer and a place.

    The first name of a hook or module decides, even if it is unknown.
    """
    names = names_of(file)
    if any(map(OTHER_MODEL.search, names)):
        return [], None
    for name in names:
        if own := OWN_NAME.fullmatch(name):
            return [own[1]], own[1]
        if MODULE.fullmatch(name):
            return [name], hook_of_word(name, side)
    word, hook = next(_apart(file, names), ("", None))
    return ([word], hook) if side in (None, "output") and hook else ([], None)


def _apart(file: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """The place and layer in different names or parts of a name, and the hook they make."""
    layer = _first(LAYER_NAME, names)
    if file.stem == "params":
        place = _first(GEMMA_PLACE, names)
        if place and layer:
            yield place[1][1], f"blocks.{layer[1][1]}.{GEMMA_SCOPE[place[1][1]]}"
        return
    place = _first(PLACE_NAME, names)
    if qwen_scope(file) and layer:
        yield "residual", f"blocks.{layer[1][1]}.hook_resid_post"
    elif place and file.stem.isdigit() and "autoencoders" in names:  # OpenAI's `autoencoders/8.pt`
        yield place[1][1], f"blocks.{file.stem}.{PLACES[place[1][1]]}"
    elif place and layer and abs(place[0] - layer[0]) <= 1:
        yield place[1][1], f"blocks.{layer[1][1]}.{PLACES[place[1][1]]}"


def _first(pattern: re.Pattern[str], names: list[str]) -> tuple[int, re.Match[str]] | None:
    """The first name that matches: its number and the match."""
    found = ((i, match) for i, name in enumerate(names) if (match := pattern.search(name)))
    return next(found, None)
