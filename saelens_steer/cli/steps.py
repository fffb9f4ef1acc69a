"""The commands that carry out a config: the whole story, and one for each step of the table."""

from __future__ import annotations

from pathlib import Path

import typer

from saelens_steer.cli.common import Config, Out, Set, app, exit_status, quiet
from saelens_steer.pipeline import step_table
from saelens_steer.pipeline.step import Step


@app.command()
def demo(out: Out = None, set_: Set = None) -> None:
    """The whole story on the shipped model: `run` with the default config."""
    _carry_out(None, out or Path("runs/demo"), set_, "report")


@app.command()
def run(config: Config, out: Out = None, set_: Set = None) -> None:
    """The whole story of a config, to the report; resumes where it was stopped."""
    _carry_out(config, out, set_, "report")


def add_commands(to: typer.Typer) -> None:
    """A command for each step of the table that has a help."""
    for step in step_table.STEPS:
        if step.help:
            _add_command(to, step)


def _add_command(to: typer.Typer, step: Step) -> None:
    @to.command(step.command, help=step.help)
    def carry_out(config: Config, out: Out = None, set_: Set = None) -> None:
        folder = _carry_out(config, out, set_, step.name)
        with exit_status():
            from saelens_steer.pipeline.run_folder import RunFolder

            if RunFolder(folder).is_unfinished(step.name):
                raise typer.Exit(1)


add_commands(app)


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
