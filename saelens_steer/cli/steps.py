"""The commands that run a config: all steps, or up to one of them."""

from __future__ import annotations

from pathlib import Path

import typer

from saelens_steer.cli.common import Config, Out, Set, app, exit_status
from saelens_steer.pipeline import step_table
from saelens_steer.pipeline.step import Step


@app.command()
@exit_status()
def demo(out: Out = None, set_: Set = None) -> None:
    """Run a complete study of the shipped model, from training an SAE to the report."""
    _carry_out(None, out, set_, "report")


@app.command()
@exit_status()
def run(config: Config, out: Out = None, set_: Set = None) -> None:
    """Run all steps of a config, up to the report; resume if interrupted."""
    _carry_out(config, out, set_, "report")


def add_commands(to: typer.Typer) -> None:
    """Add a command for each step that has a help text."""
    for step in step_table.STEPS:
        if step.help:
            _add_command(to, step)


def _add_command(to: typer.Typer, step: Step) -> None:
    @to.command(step.command, help=step.help)
    @exit_status()
    def carry_out(config: Config, out: Out = None, set_: Set = None) -> None:
        folder = _carry_out(config, out, set_, step.name)
        from saelens_steer.run_folder import RunFolder

        if RunFolder(folder).is_unfinished(step.name):
            raise typer.Exit(1)


add_commands(app)


def _carry_out(
    config: Path | None, out: Path | None, overrides: list[str] | None, until: str
) -> Path:
    """Run a config up to a step and print the path of its output; returns the run folder."""
    from saelens_steer.config import DEMO
    from saelens_steer.pipeline.run import run as run_config

    folder = out or Path("runs") / (config.stem if config else "demo")
    print(run_config(config or DEMO, folder, until=until, overrides=overrides or []))
    return folder
