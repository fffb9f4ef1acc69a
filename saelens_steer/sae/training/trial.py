"""Try SAELens's trainer first, as it refuses some options only hours into a training."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from saelens_steer.config import TrainSpec
from saelens_steer.errors import InputError, one_line

TRIED_WIDTH, ROWS, STEPS = 8, 32, 2
"""Width, batch size and steps of the trial."""


def try_steps(spec: TrainSpec, config: Any) -> None:
    """Train an SAE of this config on noise, with every feature dead, and convert it for inference.

    Raises InputError for whatever SAELens raises, and if a weight is not finite afterwards.
    """
    sae = None
    with (
        torch.random.fork_rng(devices=[]),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the training itself will show them
        torch.manual_seed(spec.seed)
        try:
            sae = SAE_TRAINING_CLASS_REGISTRY[spec.architecture][0](config)
            _trainer(sae).fit()
            state = sae.state_dict()
            sae.process_state_dict_for_saving_inference(state)
            sae.cfg.get_inference_sae_cfg_dict()
        except Exception as error:  # SAELens's checks share no base class
            why = one_line(error) or type(error).__name__
            raise InputError(f"SAELens rejects the options of {spec.architecture}: {why}") from None
    if not all(weight.isfinite().all() for weight in sae.parameters()):
        raise InputError(
            f"with these options, the weights of {spec.architecture} are not finite after the "
            "first step: change the coefficients"
        )


class _AllDead(SAETrainer[Any, Any]):
    """A trainer that takes every feature to be dead."""

    @property
    def dead_neurons(self) -> Tensor:
        return torch.ones_like(self.n_forward_passes_since_fired, dtype=torch.bool)


def _trainer(sae: Any) -> _AllDead:
    config = SAETrainerConfig(
        total_training_samples=STEPS * ROWS,
        train_batch_size_samples=ROWS,
        lr_end=3e-5,
        n_batches_for_norm_estimate=4,
    )
    return _AllDead(config, sae, _noise())


def _noise() -> Iterator[Tensor]:
    while True:
        yield torch.randn(ROWS, TRIED_WIDTH)
