"""The commands that carry out a config: the whole story, and one for each step of the table."""

from __future__ import annotations

from pathlib import Path

import typer

from saelens_steer.cli.common import Config, Out, Set, app, exit_status, quiet
from saelens_steer.pipeline.step_table import STEPS, Step


@app.command()
def demo(out: Out = None, set_: Set = None) -> None:
    """The whole story on the shipped model: `run` with the default config."""
    _carry_out(None, out or Path("runs/demo"), set_, "report")


@app.command()
def run(config: Config, out: Out = None, set_: Set = None) -> None:
    """The whole story of a config, to the report; resumes where it was stopped."""
    _carry_out(config, out, set_, "report")


def _command(step: Step) -> None:
    """The command of a step: it, and what it is made from."""

    @app.command(step.command, help=f"{step.help} With all that it is made from.")
    def carry_out(config: Config, out: Out = None, set_: Set = None) -> None:
        folder = _carry_out(config, out, set_, step.name)
        with exit_status():
            from saelens_steer.pipeline.run_folder import RunFolder

            if RunFolder(folder).is_open(step.name):
                raise typer.Exit(1)


for _step in STEPS:
    if _step.help:
        _command(_step)


def _carry_out(
    config: Path | None, out: Path | None, overrides: list[str] | None, until: str
) -> Path:
    """Run a config up to a step and print the path of what that step made; returns the folder."""
    folder = out or Path("runs") / (config.stem if config else "demo")
    with exit_status():
        from saelens_steer.config import load_config, parse_config

        given = overrides or []
        spec = load_config(config, given) if config else parse_config({}, given)
        quiet()
        from saelens_steer.pipeline.run import run as run_spec

        print(run_spec(spec, folder, until))
    return folder
