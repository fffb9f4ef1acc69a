"""Several SAEs on one pass of activations: which architecture, at which sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from saelens_steer.config import LogSpec, TrainSpec
from saelens_steer.errors import InputError
from saelens_steer.model import check_stream
from saelens_steer.sae.training.config import check_train_spec, runner_config
from saelens_steer.sae.training.loggers import check_log
from saelens_steer.sae.training.runner import Runner, gather
from saelens_steer.sae.training.stream import Cache
from saelens_steer.sae.training.train import NO_LOG, Training, load_texts, without_chatter

SHARED = ("corpus", "tokens", "cached_tokens", "context_size", "max_norm", "batch_tokens", "seed")
"""What the SAEs of a grid have in common, since it decides the activations and their order."""


class SAEGrid:
    """The SAEs of some specs, each trained when asked for; activations are computed once, then.

    specs: name → spec, each with cached_tokens; memory holds the cache that one of them takes.
    Raises InputError for an unknown hook, architecture or option, and for specs that differ in
    what decides the activations.
    """

    def __init__(
        self, model: Any, specs: Mapping[str, TrainSpec], hook_name: str, log: LogSpec = NO_LOG
    ) -> None:
        check_stream(model, hook_name)
        check_log(log)
        if not specs:
            raise InputError("the grid has no SAE: give sae.grid an architecture")
        first = next(iter(specs.values()))
        for spec in specs.values():
            check_train_spec(spec)
            if any(getattr(spec, key) != getattr(first, key) for key in SHARED):
                raise InputError(f"the SAEs of a grid must have one {', '.join(SHARED)}")
        if first.cached_tokens is None:
            raise InputError("the SAEs of a grid share cached activations: give cached_tokens")
        self.model, self.specs, self.hook_name, self.log = model, dict(specs), hook_name, log
        self.first = first

    def train(self, name: str, out: str | Path) -> SAE[Any]:
        """The SAE of this name, saved to the folder `out` as `train_sae` does."""
        where = self.hook_name, Path(out), *self._texts
        return Training(
            self.model, self.specs[name], *where, log=self.log, cache=self._cache
        ).carry_out()

    @cached_property
    def _texts(self) -> tuple[Any, Any]:
        return load_texts(self.model, self.first)

    @cached_property
    def _cache(self) -> Cache:
        config = runner_config(self.first, self.model, self.hook_name, Path("unused"))
        with torch.random.fork_rng(), without_chatter(), torch.no_grad():
            return gather(Runner(config, self._texts[0], self.model, self.first))
