"""The part of a checkpoint that is proved in float32 when it is loaded in half precision."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from saelens_steer.model.memory import rebuilt

WHOLE_IN_FLOAT32 = 1_000_000_000
"""Parameters up to which the whole model is proved in float32."""
SHALLOW_LAYERS = 2
WHOLE, PARTS = (
    "the whole model in float32",
    "first layers, last layer and unembedding in float32, the whole model in its own dtype",
)


def float32_twin(hf: PreTrainedModel) -> tuple[PreTrainedModel, str]:
    """The model in float32, whole or cut to the layers worth proving, and which of these."""
    n = hf.config.num_hidden_layers
    small = sum(weight.numel() for weight in hf.parameters()) <= WHOLE_IN_FLOAT32
    layers = list(range(n)) if small else layers_to_prove(hf)
    state = _of_layers(hf.state_dict(), _stack(hf)[0], layers)
    twin = rebuilt(type(hf).__name__, state, config_of(hf.config, layers), torch.float32)
    return twin, WHOLE if len(layers) == n else PARTS


def layers_to_prove(hf: PreTrainedModel) -> list[int]:
    """The first layers, with one of each kind, and the last; the first two if all are alike."""
    kinds = _kinds(hf)
    first = max(*(kinds.index(kind) + 1 for kind in set(kinds)), min(SHALLOW_LAYERS, len(kinds)))
    return sorted({*range(first), len(kinds) - 1})


def config_of(config: PretrainedConfig, layers: list[int]) -> PretrainedConfig:
    """The config of a model that has these layers only."""
    cut, n = copy.deepcopy(config), config.num_hidden_layers
    for name, value in list(vars(cut).items()):
        if isinstance(value, list) and len(value) == n:
            setattr(cut, name, [value[i] for i in layers])
    cut.num_hidden_layers = len(layers)
    return cut


def _kinds(hf: PreTrainedModel) -> list[Any]:
    """What distinguishes layers: their modules, and what the config lists for each."""
    n = hf.config.num_hidden_layers
    listed = [v for v in vars(hf.config).values() if isinstance(v, list) and len(v) == n]
    return [
        (
            tuple(repr(values[i]) for values in listed),
            tuple((name, type(module).__name__) for name, module in layer.named_modules()),
        )
        for i, layer in enumerate(_stack(hf)[1])
    ]


def _stack(hf: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The list of the model's layers, and its name."""
    n = hf.config.num_hidden_layers
    lists = ((name, m) for name, m in hf.named_modules() if isinstance(m, nn.ModuleList))
    return next((name, found) for name, found in lists if len(found) == n)


def _of_layers(
    state: dict[str, torch.Tensor], stack: str, layers: list[int]
) -> dict[str, torch.Tensor]:
    """The weights of these layers, numbered anew, and all others."""
    places, kept = {old: new for new, old in enumerate(layers)}, {}
    for name, weight in state.items():
        found = re.match(rf"{re.escape(stack)}\.(\d+)\.", name)
        if found is None:
            kept[name] = weight
        elif int(found[1]) in places:
            kept[f"{stack}.{places[int(found[1])]}.{name[found.end() :]}"] = weight
    return kept
