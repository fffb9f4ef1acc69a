"""What a run reads: its spec, model, prompts and files, with a digest of each that may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from saelens_steer.config import RunSpec, is_file
from saelens_steer.data import Prompt
from saelens_steer.data import source_version as corpus_version
from saelens_steer.file_names import file_name
from saelens_steer.files import digest, file_digest
from saelens_steer.functions import function_version
from saelens_steer.metrics import metrics_version
from saelens_steer.model import model_fingerprint
from saelens_steer.pipeline.provenance import library_versions
from saelens_steer.run_folder import RunFolder
from saelens_steer.sae import QUALITY, read_quality, source_version
from saelens_steer.steering import vectors_version

LOG = "metrics.jsonl"
"""The training curves beside an SAE that this package trained."""


@dataclass
class RunInputs:
    """Spec, folder, model and prompts of a run. Steps name their inputs by these attributes."""

    spec: RunSpec
    folder: RunFolder
    model: Any
    hook_name: str
    prompts: tuple[Prompt, ...]
    """The steered prompts."""
    selection_prompts: tuple[Prompt, ...]
    """The prompts on which features are chosen."""
    topic_prompts: tuple[Prompt, ...] = ()
    """The prompts of `features.topic`; their domains are the topic's categories."""
    label_prompts: tuple[Prompt, ...] = ()
    """The prompts steered for the labels."""
    tradeoff_prompts: tuple[Prompt, ...] = ()
    """The prompts of all domains on which trade-offs are measured."""
    keys: dict[str, str] = field(default_factory=dict)
    """Step → the digest of its inputs, which later steps depend on."""
    fresh: str = field(default_factory=lambda: uuid4().hex)
    """Tells this run from all others."""

    @property
    def model_key(self) -> list[str]:
        """What determines the model's arithmetic: weights, class, dtype, device, versions."""
        spec, device = self.spec.model, str(self.model.cfg.device).split(":")[0]
        weights, versions = model_fingerprint(self.model), digest(library_versions())
        return [weights, spec.class_, spec.dtype, device, versions]

    @property
    def metrics_version(self) -> str:
        """A digest of the metrics' settings, and of what custom ones read."""
        return metrics_version(self.spec.metrics, self.fresh)

    @property
    def custom_version(self) -> list[str]:
        """What decides each function and file that the config names.

        Raises InputError if one is missing.
        """
        return [
            vectors_version(name) if is_file(name) else function_version(name)
            for name in self.spec.from_elsewhere
        ]

    @cached_property
    def corpus_version(self) -> str | None:
        """A digest of the corpus if it is a local file or folder, as its content may change."""
        sae = self.spec.sae.train or self.spec.sae.load
        assert sae is not None
        return None if sae.corpus is None else corpus_version(sae.corpus)

    @cached_property
    def sae_source(self) -> str | list[str] | None:
        """A digest of the local SAE that is loaded, with the log of its training here, or of the
        local corpus it is trained on."""
        load = self.spec.sae.load
        version = source_version(load.source) if load else self.corpus_version
        folder = self.source_with_figures
        if version is None or folder is None or not (folder / LOG).is_file():
            return version
        return [version, file_digest(folder / LOG)]

    @property
    def source_quality(self) -> str | None:
        """A digest of the figures beside a loaded SAE, if this package trained it."""
        load = self.spec.sae.load
        folder = Path(load.source).expanduser() if load else Path()
        if load is None or "verdict" not in read_quality(folder):
            return None
        return file_digest(folder / QUALITY)

    @property
    def source_with_figures(self) -> Path | None:
        """The folder of a loaded SAE if this package trained it, and so wrote its quality figures.

        Beside another library's checkpoint, files of these names have other contents.
        """
        load = self.spec.sae.load
        source = Path(load.source).expanduser() if load else Path()
        trained_here = load and (source / "sae_weights.safetensors").is_file()
        return source if trained_here and "verdict" in read_quality(source) else None

    @property
    def labels_digest(self) -> str | None:
        return self._digest("labels.json")

    @property
    def grid_digest(self) -> str | None:
        return self._digest("grid/grid.csv")

    @property
    def grid_missing(self) -> list[str]:
        """SAEs that grid.csv lists but whose folders are gone, so they must be trained again."""
        if not self.folder.has("grid/grid.csv"):
            return []
        names = self.spec.sae.grid_specs
        return [name for name in names if not self.folder.has(f"grid/{file_name(name)}")]

    def _digest(self, name: str) -> str | None:
        return file_digest(self.folder.path(name)) if self.folder.has(name) else None
