"""What the commands share: the app, its options, quiet libraries, exit statuses."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from saelens_steer.errors import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Steer language models along SAE features, and test whether the effect is real.",
)

Config = Annotated[Path, typer.Argument(help="A YAML config; configs/ has examples.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="The run folder [default: runs/ and the config's name]."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, e.g. sweep.n_controls=64; repeatable."
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def _print_version(wanted: bool) -> bool:
    if wanted:
        from saelens_steer.version import __version__

        print(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


STOPPED = "Interrupted. Rerun the same command to resume (SAE training: if sae.train.resume is set)"


def _quiet() -> None:
    """Silence libraries, switch telemetry off, and let threads sleep while they wait.

    Spinning threads make a run many times slower beside other work; torch reads this on import.
    """
    import logging
    import warnings

    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("sae_lens", "transformer_lens", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


@contextlib.contextmanager
def exit_status() -> Iterator[None]:
    """Decorate a command: silence libraries and set the exit status.

    2 and one sentence on bad input, 1 on Ctrl-C; other exceptions propagate.
    """
    _quiet()
    try:
        yield
    except InputError as error:
        print(f"saelens-steer: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print(f"\nsaelens-steer: {STOPPED}", file=sys.stderr)
        raise typer.Exit(1) from None
