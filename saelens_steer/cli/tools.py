"""The commands beside the story: on a finished run, a config, or an SAE from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saelens_steer.cli.common import Config, Out, RunArgument, Set, app, exit_status, quiet
from saelens_steer.errors import InputError


@app.command()
def metrics(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run with its logits kept.")],
    set_: Set = None,
) -> None:
    """Add metrics to a finished sweep, as --set "metrics=[…]", from the logits and texts it kept.

    Rows need no forward pass; a first metric of text, and variants of `compare_edits`, still do.
    """
    with exit_status():
        from saelens_steer.config import load_config

        config = _config_of(run_folder)
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
        quiet()
        from saelens_steer.pipeline.run import run as run_spec

        reported = (run_folder / "report.html").is_file()
        print(run_spec(spec, run_folder, until="report" if reported else "sweep"))


@app.command()
def features(run_folder: RunArgument, set_: Set = None) -> None:
    """Write the feature pages of a run, as --set "features.also=[12,40]"; then its report anew."""
    with exit_status():
        from saelens_steer.config import load_config

        for given in set_ or []:
            if not given.startswith("features."):
                raise InputError(f"{given}: only features.* can be changed here")
        spec = load_config(_config_of(run_folder), set_ or [])
        if not (run_folder / "features.json").is_file():
            raise InputError(f"{run_folder} has chosen no features yet: run its config first")
        quiet()
        from saelens_steer.pipeline.run import run as run_spec

        reported = (run_folder / "report.html").is_file()
        run_spec(spec, run_folder, until="report" if reported else "features")
        print(run_folder / "features.html")


def _config_of(run_folder: Path) -> Path:
    """The config of a run folder. Raises InputError where it holds no run."""
    config = run_folder / "config.yaml"
    if not config.is_file():
        raise InputError(f"{run_folder} holds no run: there is no config.yaml")
    return config


@app.command()
def doctor(config: Config, out: Out = None, set_: Set = None) -> None:
    """Test a config on its own model and prompts, and say what a run of it would take."""
    with exit_status():
        from saelens_steer.config import load_config

        spec = load_config(config, set_ or [])
        quiet()
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
    with exit_status():
        quiet()
        from saelens_steer.sae import convert_sae

        print(convert_sae(old, new, sae_id, d_model=d_model, hook_name=hook_name))


@app.command("generate-topic")
def generate_topic(
    config: Config,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    set_: Set = None,
) -> None:
    """Let the model continue the selection prompts, and write them with what it wrote."""
    with exit_status():
        from saelens_steer.config import load_config

        spec = load_config(config, set_ or [])
        quiet()
        from saelens_steer.pipeline.export import generate_topic as write_continuations

        print(write_continuations(spec, out))


@app.command()
def images(run_folder: RunArgument) -> None:
    """Write the figures as plots/*.png and the report as report.pdf, by an installed Chromium."""
    with exit_status():
        quiet()
        from saelens_steer.report import export_images

        print(export_images(run_folder))


@app.command()
def export(
    run_folder: RunArgument,
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
