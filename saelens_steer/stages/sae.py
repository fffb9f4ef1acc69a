"""The SAE of a run: trained, or loaded from where the config says."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from saelens_steer.files import file_digest, write_text
from saelens_steer.sae import sae_fingerprint, save_sae, source_version, train_sae
from saelens_steer.stages.run import Run


def train(run: Run) -> Path:
    """The SAE, in SAELens's format: trained, or loaded from where the config says."""
    inputs = [run.model_key, run.hook_name, run.spec.sae.model_dump(), _sae_version(run)]
    run.keys["train"] = run.steps.do("train", inputs, ["sae"], partial(_train, run))
    run.write_provenance(sae_fingerprint(run.steps.path("sae")))
    return run.steps.path("sae")


def _sae_version(run) -> str | None:
    """A digest of the local corpus or SAE, which may change under its name."""
    train, load = run.spec.sae.train, run.spec.sae.load
    if train and Path(train.corpus).is_file():
        return file_digest(Path(train.corpus))
    return source_version(load.source) if load else None


def _train(run: Run) -> None:
    folder = run.steps.path("sae")
    if run.spec.sae.train:
        train_sae(run.model, run.spec.sae.train, run.hook_name, folder)
    else:
        save_sae(run.load_sae(), folder)
        _copy_quality(run, folder)


def _copy_quality(run: Run, folder: Path) -> None:
    """The figures that an SAE trained here has beside it."""
    assert run.spec.sae.load is not None
    source = Path(run.spec.sae.load.source).expanduser()
    if not (source / "sae_weights.safetensors").is_file():
        return  # a checkpoint of others, whose files of these names mean something else
    for name in ("quality.json", "metrics.jsonl"):
        if (source / name).is_file():
            write_text(folder / name, (source / name).read_text(encoding="utf-8"))
