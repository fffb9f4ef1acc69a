"""The commands that put a finished run into files for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saelens_steer.cli.common import RunFolder, app, exit_status, quiet


@app.command()
def images(run_folder: RunFolder) -> None:
    """Write the figures as plots/*.png and the report as report.pdf, by an installed Chromium."""
    with exit_status():
        quiet()
        from saelens_steer.report import export_images

        print(export_images(run_folder))


@app.command()
def export(
    run_folder: RunFolder,
    file: Annotated[Path, typer.Argument(help="What to write: .safetensors, or .gguf.")],
    feature: Annotated[
        list[int] | None, typer.Option(help="A feature, again for more [all candidates].")
    ] = None,
    alpha: Annotated[float, typer.Option(help="The multiple of W_dec[f].")] = 1.0,
) -> None:
    """Write steering vectors: of the candidates, or of one feature for llama.cpp (.gguf)."""
    with exit_status():
        quiet()
        from saelens_steer.pipeline.export import export_vectors

        print(export_vectors(run_folder, file, feature or (), alpha))
