"""The commands that carry out a config: the story, up to a step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saelens_steer.cli.common import Config, Out, Set, app, exit_status, quiet


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
def train(
    config: Config,
    out: Out = None,
    set_: Set = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Every SAE of sae.grid instead, compared in grid.csv.")
    ] = False,
) -> None:
    """Train the SAE, or load it (and what comes before, where that is not done)."""
    if not grid:
        _carry_out(config, out, set_, "train")
        return
    with exit_status():
        from saelens_steer.config import load_config

        spec = load_config(config, set_ or [])
        quiet()
        from saelens_steer.pipeline.run import train_grid

        print(train_grid(spec, out or Path("runs") / config.stem))


@app.command()
def select(config: Config, out: Out = None, set_: Set = None) -> None:
    """Choose the candidate features (and what comes before)."""
    _carry_out(config, out, set_, "select")


@app.command()
def sweep(config: Config, out: Out = None, set_: Set = None) -> None:
    """Steer and measure, against controls (and what comes before)."""
    _carry_out(config, out, set_, "sweep")


@app.command()
def label(config: Config, out: Out = None, set_: Set = None) -> None:
    """Name the features and test the names (and what comes before); exit status 1 if some of it
    could not be asked."""
    _carry_out(config, out, set_, "label")
    with exit_status():
        from saelens_steer.labels import unfinished

        folder = out or Path("runs") / config.stem
        if unfinished(folder / "labels.json"):
            raise typer.Exit(1)


@app.command()
def compare_edits(config: Config, out: Out = None, set_: Set = None) -> None:
    """Write original and patched outputs side by side (and what comes before)."""
    _carry_out(config, out, set_, "compare_edits")


@app.command()
def compare(config: Config, out: Out = None, set_: Set = None) -> None:
    """Compare ways to choose features by what the chosen ones do (and what comes before)."""
    _carry_out(config, out, set_, "compare_directions")


@app.command()
def tradeoffs(config: Config, out: Out = None, set_: Set = None) -> None:
    """Measure directions and edits on every domain: effect, damage (and what comes before)."""
    _carry_out(config, out, set_, "tradeoffs")


@app.command()
def report(config: Config, out: Out = None, set_: Set = None) -> None:
    """Write the report (and whatever it still needs)."""
    _carry_out(config, out, set_, "report")


def _carry_out(
    config: Path | None, out: Path | None, overrides: list[str] | None, until: str
) -> None:
    """Run a config up to a step and print the path of what that step made."""
    with exit_status():
        from saelens_steer.config import load_config, parse_config

        given = overrides or []
        spec = load_config(config, given) if config else parse_config({}, given)
        quiet()
        from saelens_steer.pipeline.run import run as run_spec

        folder = out or Path("runs") / (config.stem if config else "demo")
        print(run_spec(spec, folder, until))  # type: ignore[arg-type]
