"""`saelens-steer …`: parse, call, print. Heavy imports happen inside the commands."""

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
    help="Steer language models along SAE features, and know whether to believe the result.",
)

Config = Annotated[Path, typer.Argument(help="A YAML config; see configs/.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="The run folder [runs/NAME OF THE CONFIG].")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in sweep.n_controls=64."),
]


@app.command()
def demo(out: Out = None, set_: Set = None) -> None:
    """The whole story on the shipped model: `run` with the default config."""
    _carry_out(None, out or Path("runs/demo"), set_, "report")


@app.command()
def run(config: Config, out: Out = None, set_: Set = None) -> None:
    """The whole story of a config, to the report; goes on where it was stopped."""
    _carry_out(config, out, set_, "report")


@app.command()
def cache(config: Config, out: Out = None, set_: Set = None) -> None:
    """Cache the activations of the selection prompts."""
    _carry_out(config, out, set_, "cache")


@app.command()
def train(config: Config, out: Out = None, set_: Set = None) -> None:
    """Train the SAE, or load it (and what comes before, where that is not done)."""
    _carry_out(config, out, set_, "train")


@app.command()
def select(config: Config, out: Out = None, set_: Set = None) -> None:
    """Choose the candidate features (and what comes before)."""
    _carry_out(config, out, set_, "select")


@app.command()
def sweep(config: Config, out: Out = None, set_: Set = None) -> None:
    """Steer and measure, against controls (and what comes before)."""
    _carry_out(config, out, set_, "sweep")


@app.command()
def metrics(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run with its logits kept.")],
    set_: Set = None,
) -> None:
    """Add metrics to a finished sweep, as --set "metrics=[…]", from the logits and texts it kept.

    Rows need no forward pass; a first metric of text, and variants of `patch`, still do.
    """
    with _exit_status():
        from saelens_steer.config import load_config

        config = run_folder / "config.yaml"
        if not config.is_file():
            raise InputError(f"{run_folder} holds no run: there is no config.yaml")
        known = load_config(config, [])
        if not known.sweep.cache_logits:
            raise InputError(
                f"{run_folder} kept no logits: sweep with --set sweep.cache_logits=true first"
            )
        for given in set_ or []:
            if given.split("=")[0] != "metrics":
                raise InputError(f"{given}: only metrics can be added to a finished sweep")
        asked = load_config(config, set_ or []).metrics
        new = tuple(metric for metric in asked if metric not in known.metrics)
        spec = known.model_copy(update={"metrics": known.metrics + new})
        _quiet()
        from saelens_steer.runner import run as run_spec

        print(run_spec(spec, run_folder, "report"))


@app.command()
def patch(config: Config, out: Out = None, set_: Set = None) -> None:
    """Write original and patched outputs side by side (and what comes before)."""
    _carry_out(config, out, set_, "patch")


@app.command()
def compare(config: Config, out: Out = None, set_: Set = None) -> None:
    """Compare ways to choose features by what the chosen ones do (and what comes before)."""
    _carry_out(config, out, set_, "compare")


@app.command()
def matrix(config: Config, out: Out = None, set_: Set = None) -> None:
    """Measure directions and edits on every domain: effect, damage (and what comes before)."""
    _carry_out(config, out, set_, "matrix")


@app.command()
def report(config: Config, out: Out = None, set_: Set = None) -> None:
    """Write the report (and whatever it still needs)."""
    _carry_out(config, out, set_, "report")


@app.command()
def doctor(config: Config, out: Out = None, set_: Set = None) -> None:
    """Test a config on its own model and prompts, and say what a run of it would take."""
    with _exit_status():
        from saelens_steer.config import load_config

        spec = load_config(config, set_ or [])
        _quiet()
        from saelens_steer.doctor import HEADER, examine, outcome

        print(HEADER)
        findings = []
        for finding in examine(spec):
            print(finding, flush=True)
            findings.append(finding)
        print(outcome(findings))
        print(out or Path("runs") / config.stem)
        if any(finding.failed for finding in findings):
            raise typer.Exit(1)


@app.command()
def convert(
    old: Annotated[str, typer.Argument(help="A checkpoint, a SAELens release or owner/name.")],
    new: Annotated[Path, typer.Argument(help="The folder to write, in SAELens's format.")],
    sae_id: Annotated[str | None, typer.Option(help="Which SAE of a release or hub.")] = None,
    d_model: Annotated[int | None, typer.Option(help="The model's width.")] = None,
    hook_name: Annotated[str | None, typer.Option(help="The hook, where OLD names none.")] = None,
) -> None:
    """Write an SAE from elsewhere in SAELens's format."""
    with _exit_status():
        _quiet()
        from saelens_steer.sae import convert_sae

        print(convert_sae(old, new, sae_id, d_model=d_model, hook_name=hook_name))


@app.command("generate-topic")
def generate_topic(
    config: Config,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    set_: Set = None,
) -> None:
    """Let the model continue the selection prompts, and write them with what it wrote."""
    with _exit_status():
        from saelens_steer.config import load_config

        spec = load_config(config, set_ or [])
        _quiet()
        from saelens_steer.stages import generate_topic as write_continuations

        print(write_continuations(spec, out))


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


def _carry_out(
    config: Path | None, out: Path | None, overrides: list[str] | None, until: str
) -> None:
    """Run a config up to a step and print the path of what that step made."""
    with _exit_status():
        from saelens_steer.config import load_config, parse_config

        given = overrides or []
        spec = load_config(config, given) if config else parse_config({}, given)
        _quiet()
        from saelens_steer.runner import run as run_spec

        folder = out or Path("runs") / (config.stem if config else "demo")
        print(run_spec(spec, folder, until))  # type: ignore[arg-type]


def _quiet() -> None:
    """Keep libraries from talking over the progress bars, and from reporting home."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("sae_lens", "transformer_lens", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


@contextlib.contextmanager
def _exit_status() -> Iterator[None]:
    """Exit status 2 and one sentence for bad input, 1 for a stop; anything else goes its way."""
    try:
        yield
    except InputError as error:
        print(f"saelens-steer: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print("saelens-steer: stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(1) from None


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
