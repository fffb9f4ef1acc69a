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
    return {
        "step": trainer.n_training_steps,
        "tokens": trainer.n_training_samples,
        "loss": output.loss.item(),
        **{name: float(torch.as_tensor(value)) for name, value in output.losses.items()},
        "l0": float((output.feature_acts != 0).float().sum(-1).mean()),
        "explained_variance": explained_variance([output]),
        "dead_share": float(trainer.dead_neurons.float().mean()),
    }


@torch.no_grad()
def held_out_line(trainer: Any, vectors: Vectors) -> dict[str, float]:
    """Loss, L0 and explained variance of held-out vectors, with coefficients fully warmed up.

    On a copy of the SAE: some architectures learn a threshold as they run.
    """
    sae = copy.deepcopy(trainer.sae)
    full = {name: s.final_value for name, s in trainer.coefficient_schedulers.items()}
    outputs = [
        sae.training_forward_pass(
            TrainStepInput(
                sae_in=part.to(sae.device),
                coefficients=full,
                dead_neuron_mask=None,
                n_training_steps=trainer.n_training_steps,
                is_logging_step=False,
            )
        )
        for part in vectors.split(trainer.cfg.train_batch_size_samples)
    ]
    total = sum(float(output.loss) * len(output.sae_in) for output in outputs)
    active = sum(float((output.feature_acts != 0).sum()) for output in outputs)
    return {
        "held_out_loss": total / len(vectors),
        "held_out_l0": active / len(vectors),
        "held_out_explained_variance": explained_variance(outputs),
    }


def explained_variance(outputs: list[Any]) -> float:
    """1 − Σ‖x − x̂‖² / Σ‖x − x̄‖² over the vectors of these training outputs."""
    x = torch.cat([output.sae_in for output in outputs]).float()
    rebuilt = torch.cat([output.sae_out for output in outputs]).float()
    return float(1 - (x - rebuilt).pow(2).sum() / (x - x.mean(0)).pow(2).sum())


def progress_text(line: dict[str, int | float]) -> str:
    """What the progress bar says."""
    return (
        f"loss {line['loss']:.4g} | L0 {line['l0']:.1f} | "
        f"explained variance {line['explained_variance']:.3f}"
    )
