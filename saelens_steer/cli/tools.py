"""The commands that are not steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saelens_steer.cli.common import Config, Out, RunArgument, Set, app, exit_status
from saelens_steer.errors import InputError

if TYPE_CHECKING:
    from saelens_steer.config import RunSpec


@app.command()
@exit_status()
def metrics(
    run_folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run; logit metrics need its sweep.cache_logits: true."
        ),
    ],
    set_: Set = None,
) -> None:
    """Add metrics to a finished sweep, from the logits and texts it kept (--set "metrics=[…]").

    Logit metrics need no forward pass. The first text metric, and compare_edits, do.
    """
    from saelens_steer.config import load_config
    from saelens_steer.pipeline.case import metric_facts

    config = _config_of(run_folder)
    known = load_config(config, [])
    for given in set_ or []:
        if given.split("=")[0] != "metrics":
            raise InputError(f"--set {given}: this command accepts only metrics=[…]")
    requested = load_config(config, set_ or []).metrics
    new = tuple(metric for metric in requested if metric not in known.metrics)
    if not known.sweep.cache_logits and any(metric_facts(one).of == "logits" for one in new):
        raise InputError(
            f"{run_folder} kept no logits: sweep with --set sweep.cache_logits=true first"
        )
    spec = known.model_copy(update={"metrics": known.metrics + new})
    print(_rerun(spec, run_folder, "sweep"))


@app.command()
@exit_status()
def features(run_folder: RunArgument, set_: Set = None) -> None:
    """Rebuild a run's feature pages, and its report if it has one.

    --set "features.also=[12,40]" shows more features.
    """
    from saelens_steer.config import load_config
    from saelens_steer.run_folder import RunFolder

    for given in set_ or []:
        if not given.startswith("features."):
            raise InputError(f"--set {given}: this command accepts only features.*")
    spec = load_config(_config_of(run_folder), set_ or [])
    if not RunFolder(run_folder).has("features.json"):
        raise InputError(f"{run_folder} has no selected features yet: run its config first")
    _rerun(spec, run_folder, "features")
    print(run_folder / "features.html")


def _rerun(spec: RunSpec, run_folder: Path, step: str) -> Path:
    """Run up to `step`, or up to the report if the run has one; returns the path of the output."""
    from saelens_steer.pipeline.run import run as run_spec
    from saelens_steer.run_folder import RunFolder

    reported = RunFolder(run_folder).has("report.html")
    return run_spec(spec, run_folder, until="report" if reported else step)


def _config_of(run_folder: Path) -> Path:
    """The config of a run folder; InputError if it is not one."""
    from saelens_steer.run_folder import RunFolder

    config = run_folder / "config.yaml"
    RunFolder(run_folder).check_computed("give the folder of a run")
    if not config.is_file():
        raise InputError(f"{run_folder} is not a run folder: it has no config.yaml")
    return config


@app.command()
@exit_status()
def doctor(config: Config, out: Out = None, set_: Set = None) -> None:
    """Test a config on its own model and prompts, and estimate what a run needs."""
    from saelens_steer.config import draft_config
    from saelens_steer.pipeline.rules import check_config

    draft = draft_config(config, set_ or [])
    check_config(draft)
    from saelens_steer.doctor import HEADER, examine, outcome

    print(HEADER)
    findings = []
    for finding in examine(draft.spec):
        print(finding, flush=True)
        findings.append(finding)
    print(outcome(findings))
    print(out or Path("runs") / config.stem)
    if any(finding.failed for finding in findings):
        raise typer.Exit(1)


@app.command()
@exit_status()
def convert(
    old: Annotated[str, typer.Argument(help="A checkpoint, a SAELens release, or owner/name.")],
    new: Annotated[Path, typer.Argument(help="The folder to write.")],
    sae_id: Annotated[
        str | None, typer.Option(help="The SAE within a release or hub repository.")
    ] = None,
    d_model: Annotated[int | None, typer.Option(help="The model's width.")] = None,
    hook_name: Annotated[
        str | None, typer.Option(help="The hook, if OLD does not name it.")
    ] = None,
) -> None:
    """Convert an SAE from another library to SAELens's format."""
    from saelens_steer.config import check_sae_source

    check_sae_source(old, sae_id)
    from saelens_steer.sae import convert_sae

    print(convert_sae(old, new, sae_id, d_model=d_model, hook_name=hook_name))


@app.command("generate-topic")
@exit_status()
def generate_topic(
    config: Config,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    set_: Set = None,
) -> None:
    """Generate answers to the selection prompts, and write both to a .jsonl file."""
    from saelens_steer.config import load_config

    spec = load_config(config, set_ or [])
    from saelens_steer.pipeline.export import generate_topic as write_continuations

    print(write_continuations(spec, out))


@app.command()
@exit_status()
def images(run_folder: RunArgument) -> None:
    """Write plots/*.png and report.pdf, with an installed Chromium."""
    from saelens_steer.report import export_images

    print(export_images(run_folder))


@app.command()
@exit_status()
def verify(run_folder: RunArgument) -> None:
    """Check that no file of a run is missing or has changed."""
    from saelens_steer.numbers import count
    from saelens_steer.pipeline.verify import verify as checked

    n = len(checked(run_folder))
    print(f"{count(n, 'file')} {'is' if n == 1 else 'are'} unchanged")
    print(run_folder)


@app.command()
@exit_status()
def reproduce(run_folder: RunArgument, out: Out = None) -> None:
    """Rerun the config of a run in another folder, and name the first file that differs.

    Skips provenance.json, and pages (.html), which only show what other files hold.
    """
    folder = out or run_folder.parent / "reproduced" / run_folder.name
    from saelens_steer.pipeline.reproduce import reproduce as run_again
    from saelens_steer.pipeline.reproduce import settings_that_differ

    differing = run_again(run_folder, folder)
    if not differing:
        print("all files are identical (pages are not compared)")
    elif len(differing) == 1:
        print(f"{differing[0]} is the only file that differs")
    else:
        print(f"{differing[0]} is the first of {len(differing):,} files that differ")
    settings = settings_that_differ(run_folder, folder)
    print(f"settings that differ (versions, threads, machine): {', '.join(settings) or 'none'}")
    print(folder)
    if differing:
        raise typer.Exit(1)


@app.command()
@exit_status()
def export(
    run_folder: RunArgument,
    file: Annotated[Path, typer.Argument(help="The .safetensors or .gguf file to write.")],
    feature: Annotated[
        list[int] | None, typer.Option(help="A feature; repeatable [default: all candidates].")
    ] = None,
    alpha: Annotated[float, typer.Option(help="The multiple of W_dec[f].")] = 1.0,
) -> None:
    """Export steering vectors as .safetensors, or one as .gguf for llama.cpp."""
    from saelens_steer.pipeline.export import export_vectors

    print(export_vectors(run_folder, file, feature or (), alpha))
