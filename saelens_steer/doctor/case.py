"""The case of the self-tests: a run, a few of its prompts, and random directions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from saelens_steer.model import flat, last_token_logits, run_to_hook
from saelens_steer.pipeline.context import RunContext
from saelens_steer.steering import Edit, add_rows, steered
from saelens_steer.sweeps import HALF_TOLERANCE, Measurement
from saelens_steer.sweeps.unsteered_pass import TOLERANCE
from saelens_steer.tensors import Logits, Mask, Tokens, Vectors

N_PROMPTS = 4
"""Prompts in the self-tests."""
RELATIVE_NORM = 0.5
"""‖push‖ / median ‖x‖ at the hook."""


def spread(measurement: Measurement, n: int) -> Measurement:
    """The same measurement on up to n of its prompts, from the shortest to the longest."""
    order = sorted(range(len(measurement.ids)), key=lambda row: len(measurement.ids[row]))
    places = sorted({round(i * (len(order) - 1) / (n - 1)) for i in range(n)})
    prompts = tuple(measurement.prompts[order[place]] for place in places)
    return replace(measurement, prompts=prompts)


def pushes(measurement: Measurement, n: int) -> Vectors:
    """n random directions with norm RELATIVE_NORM × median ‖x‖, float32, CPU."""
    tokens, real = measurement.unsteered_pass.padded
    x = run_to_hook(measurement.model, tokens, real, measurement.hook_name)[real]
    norms = x.float().norm(dim=-1)
    seeded = torch.Generator().manual_seed(0)
    drawn = torch.randn(n, measurement.width, generator=seeded)
    return RELATIVE_NORM * norms.median().cpu() * drawn / drawn.norm(dim=-1, keepdim=True)


@contextlib.contextmanager
def captured(model: Any, hook_name: str) -> Iterator[list[Tensor]]:
    """Collect the activation at a hook, after earlier edits there, in each pass in the context."""
    seen: list[Tensor] = []

    def keep(activation: Tensor, hook: Any) -> None:  # noqa: ARG001 (TransformerLens passes hook=)
        seen.append(flat(hook_name, activation.detach().clone()))

    with model.hooks(fwd_hooks=[(hook_name, keep)]):
        yield seen


@dataclass(frozen=True)
class Pass:
    """The result of a steered pass."""

    logits: Logits
    """At the last position."""
    at_hook: Vectors
    """The edited activations at the hook, at real positions."""
    positions: int
    """The number of steered positions."""


@dataclass(frozen=True)
class SelfTestCase:
    """A run, and its measurement on a few of the prompts."""

    run: RunContext
    measurement: Measurement

    @property
    def model(self) -> Any:
        return self.measurement.model

    @property
    def hook_name(self) -> str:
        return self.measurement.hook_name

    @property
    def allowed(self) -> float:
        """The largest relative error between two passes that is attributed to rounding."""
        return TOLERANCE.get(self.model.cfg.dtype, HALF_TOLERANCE)

    @cached_property
    def pushes(self) -> Vectors:
        """One for each prompt, but at least two."""
        return pushes(self.measurement, max(2, len(self.measurement.prompts)))

    @property
    def own_pushes(self) -> Vectors:
        """Exactly one for each prompt."""
        return self.pushes[: len(self.measurement.prompts)]

    @property
    def batch(self) -> tuple[Tokens, Mask]:
        """The prompts, left-padded."""
        return self.measurement.unsteered_pass.padded

    def alone(self, row: int) -> tuple[Tokens, Mask]:
        """One prompt without padding."""
        tokens = torch.tensor([self.measurement.ids[row]], device=self.model.cfg.device)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)

    def under(self, edit: Edit, tokens: Tokens, mask: Mask) -> Pass:
        """Run a pass under an edit at the positions that the config's sweep steers."""
        spec = self.measurement.spec
        where = spec.model_dump(include={"positions", "exclude_special_tokens", "max_norm"})
        added = self._added(tokens, mask)
        steering = steered(self.model, edit, self.hook_name, **where, added=added)
        with steering as receipt, captured(self.model, self.hook_name) as seen:
            logits = last_token_logits(self.model, tokens, mask)
        return Pass(logits, seen[0][mask], receipt.positions)

    def _added(self, tokens: Tokens, mask: Mask) -> list[int]:
        """Length of the BOS of each row that is never steered."""
        known = {tuple(e.ids): e.added for e in self.measurement.encoded}
        return [known[tuple(row[real].tolist())] for row, real in zip(tokens, mask, strict=True)]

    @contextlib.contextmanager
    def pushed(self, hook_name: str) -> Iterator[list[Tensor]]:
        """Push all positions in the context; collect the activation at `hook_name` in each pass."""
        edit = add_rows(self.own_pushes)
        with steered(self.model, edit, self.hook_name), captured(self.model, hook_name) as seen:
            yield seen
