"""Training curves: the lines of metrics.jsonl, and loggers that receive them as they come."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.sae import TrainStepInput

from saelens_steer.aside import free_name
from saelens_steer.files import inside
from saelens_steer.progress import say
from saelens_steer.tensors import Vectors

LogLine = Mapping[str, int | float]
Logger = Callable[[LogLine], None]
"""Called with each line of metrics.jsonl as it comes."""


@torch.no_grad()
def log_line(trainer: Any, output: Any) -> dict[str, int | float]:
    """Loss terms (per token), L0, explained variance and dead share of one training batch."""
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
    """Loss, L0 and explained variance on held-out vectors, in the units trained in.

    Coefficients are fully warmed up. The forward pass runs on a copy of the SAE, because in
    training mode some architectures update a threshold.
    """
    sae, batch = copy.deepcopy(trainer.sae), trainer.cfg.train_batch_size_samples
    coefficients = {name: s.final_value for name, s in trainer.coefficient_schedulers.items()}
    n, loss, active, error, squares, total = 0, 0.0, 0.0, 0.0, 0.0, torch.zeros(())
    for part in vectors.split(batch):
        step = TrainStepInput(
            sae_in=trainer.activation_scaler(part.to(sae.device)),
            coefficients=coefficients,
            dead_neuron_mask=None,
            n_training_steps=trainer.n_training_steps,
            is_logging_step=False,
        )
        output = sae.training_forward_pass(step)
        x, rebuilt = output.sae_in.float(), output.sae_out.float()
        n += len(x)
        loss += float(output.loss) * len(x)
        active += float((output.feature_acts != 0).sum())
        error += float((x - rebuilt).pow(2).sum(dtype=torch.float64))
        squares += float(x.pow(2).sum(dtype=torch.float64))
        total = total + x.sum(0, dtype=torch.float64).cpu()
    return {
        "held_out_loss": loss / n,
        "held_out_l0": active / n,
        "held_out_explained_variance": 1 - error / (squares - float(total.pow(2).sum()) / n),
    }


@contextlib.contextmanager
def open_loggers(
    out: Path,
    config: Mapping[str, Any],
    *,
    tensorboard: bool = False,
    wandb: str | None = None,
    resumed: bool = False,
) -> Iterator[list[Logger]]:
    """The loggers to use for the SAE saved to `out`, closed on exit.

    `config`: the training's settings, for Weights & Biases. `resumed`: append to the TensorBoard
    curves of the interrupted training; otherwise the folder of older curves is renamed.
    """
    with contextlib.ExitStack() as stack:
        loggers: list[Logger] = []
        if tensorboard:
            folder = inside(out.parent, f"tensorboard/{out.name}")
            if folder.is_dir() and not resumed:
                say(f"earlier curves are now in {folder.rename(free_name(folder, 'earlier'))}")
            loggers.append(stack.enter_context(_tensorboard(folder)))
        if wandb:
            loggers.append(stack.enter_context(_wandb(wandb, out, config)))
        yield loggers


@contextlib.contextmanager
def _tensorboard(folder: Path) -> Iterator[Logger]:
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def log(line: LogLine) -> None:
            for name, value in line.items():
                if name != "tokens":
                    writer.add_scalar(_grouped(name), value, int(line["tokens"]))

        yield log


@contextlib.contextmanager
def _wandb(project: str, out: Path, config: Mapping[str, Any]) -> Iterator[Logger]:
    import wandb

    folder = out.parent
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(project=project, name=out.name, dir=str(folder), config=dict(config))
    try:
        yield lambda line: run.log({_grouped(k): v for k, v in line.items()}, int(line["step"]))
    finally:
        run.finish()


def _grouped(name: str) -> str:
    """The name under held_out/ or train/."""
    held_out = name.removeprefix("held_out_")
    return f"held_out/{held_out}" if held_out != name else f"train/{name}"
