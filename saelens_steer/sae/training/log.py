"""The lines of metrics.jsonl, and TensorBoard and Weights & Biases, which receive them too."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.sae import TrainStepInput

from saelens_steer.config import LogSpec
from saelens_steer.errors import InputError
from saelens_steer.files import inside, remove
from saelens_steer.tensors import Vectors

LogLine = Mapping[str, int | float]
Sink = Callable[[LogLine], None]
"""Receives each line of metrics.jsonl as it is written."""


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
    sae, batch = copy.deepcopy(trainer.sae), trainer.cfg.train_batch_size_samples
    coefficients = {name: s.final_value for name, s in trainer.coefficient_schedulers.items()}
    n, loss, active, error, squares, total = 0, 0.0, 0.0, 0.0, 0.0, torch.zeros(())
    for part in vectors.split(batch):
        given = TrainStepInput(
            sae_in=trainer.activation_scaler(part.to(sae.device)),
            coefficients=coefficients,
            dead_neuron_mask=None,
            n_training_steps=trainer.n_training_steps,
            is_logging_step=False,
        )
        output = sae.training_forward_pass(given)
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


def progress_text(line: dict[str, int | float]) -> str:
    """The text of the progress bar."""
    return (
        f"loss {line['loss']:.4g} | L0 {line['l0']:.1f} | "
        f"explained variance {line['explained_variance']:.3f}"
    )


def check_log(log: LogSpec) -> None:
    """Raise InputError if a logger that is switched on is not installed."""
    if log.tensorboard and find_spec("tensorboard") is None:
        raise InputError(
            "sae.log.tensorboard needs TensorBoard: pip install 'saelens-steer[tensorboard]'"
        )


@contextlib.contextmanager
def sinks(
    log: LogSpec, out: Path, about: Mapping[str, Any], resumed: bool = False
) -> Iterator[list[Sink]]:
    """The loggers that are switched on, for the SAE written to the folder `out`.

    about: the config of the training, for Weights & Biases. resumed: keep the curves of
    the training that continues here; otherwise curves of an earlier training are removed.
    """
    with contextlib.ExitStack() as stack:
        found: list[Sink] = []
        if log.tensorboard:
            folder = inside(out.parent, f"tensorboard/{out.name}")
            if not resumed:
                remove(folder)
            found.append(stack.enter_context(_tensorboard(folder)))
        if log.wandb:
            found.append(stack.enter_context(_wandb(log.wandb, out, about)))
        yield found


@contextlib.contextmanager
def _tensorboard(folder: Path) -> Iterator[Sink]:
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def note(line: LogLine) -> None:
            for name, value in line.items():
                if name != "tokens":
                    writer.add_scalar(_grouped(name), value, int(line["tokens"]))

        yield note


@contextlib.contextmanager
def _wandb(project: str, out: Path, about: Mapping[str, Any]) -> Iterator[Sink]:
    import wandb

    folder = out.parent
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(project=project, name=out.name, dir=str(folder), config=dict(about))
    try:
        yield lambda line: run.log({_grouped(k): v for k, v in line.items()}, int(line["step"]))
    finally:
        run.finish()


def _grouped(name: str) -> str:
    """The name under held_out/ or train/."""
    held_out = name.removeprefix("held_out_")
    return f"held_out/{held_out}" if held_out != name else f"train/{name}"
