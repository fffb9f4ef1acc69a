"""What the commands share: the app, its options, quiet libraries, exit statuses."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from saelens_steer.errors import REPORT_IT, InputError, one_line


class WholeHelp(TyperGroup):
    """Lists each command with the whole first paragraph of its help, which click cuts."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        about = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first(command)) for name, command in about])


def _first(command: Any) -> str:
    """The first paragraph of a command's help, on one line."""
    return " ".join((command.help or "").split("\n\n")[0].split())


app = typer.Typer(
    cls=WholeHelp,
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


STOPPED = (
    "Interrupted. Rerun the same command to resume (SAE training only if sae.train.resume is set)"
)


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

    2 and one sentence on bad input, or if the system refuses a file; 1 on Ctrl-C and on any other
    exception, with a traceback unless `run` has written it to a file.
    """
    _quiet()
    try:
        yield
    except (InputError, OSError, UnicodeEncodeError) as error:
        print(f"saelens-steer: {_sentence(error)}", file=sys.stderr)
        raise typer.Exit(2) from None
    except SystemExit as error:  # of a metric, which names itself, it is an InputError
        print(
            "saelens-steer: one of your edits, sources or families called "
            f"sys.exit({error.code!r}): raise an error instead",
            file=sys.stderr,
        )
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print(f"\nsaelens-steer: {STOPPED}", file=sys.stderr)
        raise typer.Exit(1) from None
    except Exception as error:
        notes = getattr(error, "__notes__", ())
        if not (where := [note for note in notes if note.startswith(REPORT_IT)]):
            raise
        about = f"{type(error).__name__}: {one_line(error)}. {where[0]}"
        print(f"saelens-steer: {about}", file=sys.stderr)
        raise typer.Exit(1) from None


def _sentence(error: Exception) -> str:
    """What is wrong, and what to change."""
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} has characters that this locale cannot encode: set PYTHONUTF8=1"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
