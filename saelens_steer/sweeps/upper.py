"""The layers from the hook on, for many cells and prompts at once.

A cell is one way to steer. Its rows part from the unsteered pass at the hook, so everything before
it is shared; the last layer runs for the last tokens alone, since nothing else is read from it.
Where only last tokens are steered, all others stay as they were, and so do their keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Float
from torch import Tensor

from saelens_steer.model import Layer, Touch, Tree, untouched
from saelens_steer.sweeps.shared_keys import SharedKeys, shared_keys

Nodes = Float[Tensor, "cell node d_model"]
Entering = Float[Tensor, "one_or_cell node_or_row d_model"]
Last = Float[Tensor, "cell row d_model"]
Steer = Callable[[Float[Tensor, "one_or_cell node d_model"], Bool[Tensor, " node"]], Nodes]
"""The activation at the hook, one for all cells or each its own, and where to edit ↦ edited."""


@dataclass
class Steered:
    """What steering did at the hook: activations [cell, node, d_model] before and after."""

    before: Float[Tensor, "one_or_cell node d_model"]
    after: Nodes


@dataclass(frozen=True, kw_only=True)
class Upper:
    """Some prompts, and the layers they have yet to go through."""

    layers: list[Layer]
    tree: Tree
    prefix: Float[Tensor, "node d_model"]
    """The unsteered residual before the first of the layers."""
    chosen: Bool[Tensor, " node"]
    """Where edits act."""
    touched: str | None
    """The hook inside the first layer that is steered; None: its beginning."""
    last_only: bool
    """Only last tokens are steered."""

    @property
    def kept_bytes(self) -> int:
        """What it holds, once its keys and values are computed."""
        held = self.prefix.nbytes
        if self.last_only:
            vectors = sum(group.nodes.numel() for group in self.tree.groups)
            widths = sum(2 * layer.n_kv * layer.d_head for layer in self.layers)
            held += vectors * widths * self.prefix.element_size()
        return held

    def unsteered(self) -> Float[Tensor, "row d_model"]:
        """The final residual at each prompt's last token, on the way that steered rows take."""
        if self.last_only:
            return self._last_positions(self.prefix[self.tree.last][None], untouched)[0]
        return self._all_positions(self.prefix[None], untouched)[0]

    def run(self, steer: Steer) -> tuple[Last, Steered]:
        """The same for every cell, and what was done at the hook (at last tokens alone, with
        `last_only`)."""
        chosen = self.chosen[self.tree.last] if self.last_only else self.chosen
        prefix = self.prefix[self.tree.last] if self.last_only else self.prefix
        rest = self._last_positions if self.last_only else self._all_positions
        if self.touched is None:
            after = steer(prefix[None], chosen)
            return rest(after, untouched), Steered(prefix[None], after)
        done: list[Steered] = []

        def touch(name: str, value: Tensor) -> Tensor:
            if name != self.touched:
                return value
            done.append(Steered(value, steer(value, chosen)))
            return done[0].after

        return rest(prefix[None], touch), done[0]

    def _all_positions(self, x: Entering, touch: Touch) -> Last:
        at = self.tree.positions
        whole = self.layers if self._needs_last_layer(touch) else self.layers[:-1]
        for layer in whole:
            x, touch = layer.run(x, at, self.tree.attend(layer), touch), untouched
        if len(whole) == len(self.layers):
            return x[:, self.tree.last]
        layer, last = self.layers[-1], x[:, self.tree.last]
        q = layer.q(last, at[self.tree.last])
        return layer.rest(last, self.tree.last_reads(layer, q, *layer.kv(x, at)))

    def _needs_last_layer(self, touch: Touch) -> bool:
        """Whether something at all positions is to be changed inside the last layer."""
        return len(self.layers) == 1 and touch is not untouched

    def _last_positions(self, x: Entering, touch: Touch) -> Last:
        at = self.tree.positions[self.tree.last]
        for layer, keys in zip(self.layers, self._keys, strict=True):
            x, touch = layer.run(x, at, keys.attend(layer), touch), untouched
        return x

    @cached_property
    def _keys(self) -> list[SharedKeys]:
        """Keys and values of everything before the last tokens, for each layer."""
        x, kept = self.prefix[None], []
        for layer in self.layers:
            q, k, v = layer.qkv(x, self.tree.positions)
            kept.append(shared_keys(self.tree, layer, k[0], v[0]))
            x = layer.rest(x, self.tree.attend(layer)(q, k, v))
        return kept
