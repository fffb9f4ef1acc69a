"""Training curves beside metrics.jsonl: TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from saelens_steer.config import LogSpec
from saelens_steer.errors import InputError
from saelens_steer.files import inside, remove

LogLine = Mapping[str, int | float]
Sink = Callable[[LogLine], None]
"""Takes a line of metrics.jsonl as soon as it is there."""


def check_log(log: LogSpec) -> None:
    """Raise InputError where a logger that is switched on is not installed."""
    if log.tensorboard and find_spec("tensorboard") is None:
        raise InputError(
            "sae.log.tensorboard needs TensorBoard: pip install 'saelens-steer[tensorboard]'"
        )


@contextlib.contextmanager
def sinks(
    log: LogSpec, out: Path, about: Mapping[str, Any], going_on: bool = False
) -> Iterator[list[Sink]]:
    """The loggers that are switched on, for the SAE that goes to the folder `out`.

    about: the config of the training, for Weights & Biases. going_on: keep what an earlier part of
    this training has told TensorBoard; otherwise curves of an earlier training there are removed.
    """
    with contextlib.ExitStack() as stack:
        found: list[Sink] = []
        if log.tensorboard:
            folder = inside(out.parent, f"tensorboard/{out.name}")
            if not going_on:
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
    """Held-out figures in a group of their own."""
    held_out = name.removeprefix("held_out_")
    return f"held_out/{held_out}" if held_out != name else f"train/{name}"
