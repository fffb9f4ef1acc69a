"""The lines of metrics.jsonl: how training goes, on its batches and on what is held out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from sae_lens.saes.sae import TrainStepInput

from saelens_steer.tensors import Vectors


@torch.no_grad()
def log_line(trainer: Any, output: Any) -> dict[str, int | float]:
    """One line of metrics.jsonl: loss terms (per token), L0 and explained variance of the batch."""
    error = (output.sae_in - output.sae_out).pow(2).sum()
    spread = (output.sae_in - output.sae_in.mean(0)).pow(2).sum()
    return {
        "step": trainer.n_training_steps,
        "tokens": trainer.n_training_samples,
        "loss": output.loss.item(),
        **{name: float(torch.as_tensor(value)) for name, value in output.losses.items()},
        "l0": float((output.feature_acts != 0).float().sum(-1).mean()),
        "explained_variance": float(1 - error / spread),
        "dead_share": float(trainer.dead_neurons.float().mean()),
    }


@torch.no_grad()
def held_out_line(trainer: Any, vectors: Vectors) -> dict[str, float]:
    """Loss, L0 and explained variance of held-out vectors, with coefficients fully warmed up.

    In the units trained in, on a copy of the SAE: some architectures learn a threshold as they run.
    """
    sae, sums = copy.deepcopy(trainer.sae), _HeldOut()
    full = {name: s.final_value for name, s in trainer.coefficient_schedulers.items()}
    for part in vectors.split(trainer.cfg.train_batch_size_samples):
        sums.add(
            sae.training_forward_pass(
                TrainStepInput(
                    sae_in=trainer.activation_scaler(part.to(sae.device)),
                    coefficients=full,
                    dead_neuron_mask=None,
                    n_training_steps=trainer.n_training_steps,
                    is_logging_step=False,
                )
            )
        )
    return sums.line()


class _HeldOut:
    """Running sums over the outputs of held-out batches."""

    def __init__(self) -> None:
        self.n = 0
        self.loss = self.active = self.error = self.squares = 0.0
        self.total = torch.zeros(())

    def add(self, output: Any) -> None:
        x, rebuilt = output.sae_in.float(), output.sae_out.float()
        self.n += len(x)
        self.loss += float(output.loss) * len(x)
        self.active += float((output.feature_acts != 0).sum())
        self.error += float((x - rebuilt).pow(2).sum(dtype=torch.float64))
        self.squares += float(x.pow(2).sum(dtype=torch.float64))
        self.total = self.total + x.sum(0, dtype=torch.float64).cpu()

    def line(self) -> dict[str, float]:
        spread = self.squares - float(self.total.pow(2).sum()) / self.n
        return {
            "held_out_loss": self.loss / self.n,
            "held_out_l0": self.active / self.n,
            "held_out_explained_variance": 1 - self.error / spread,
        }


def progress_text(line: dict[str, int | float]) -> str:
    """What the progress bar says."""
    return (
        f"loss {line['loss']:.4g} | L0 {line['l0']:.1f} | "
        f"explained variance {line['explained_variance']:.3f}"
    )
