"""What a run reads: its spec, model, prompts and files, with a digest of each that may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from saelens_steer.config import RunSpec, is_file
from saelens_steer.data import Prompt, as_prompts, load_prompts
from saelens_steer.errors import InputError
from saelens_steer.files import digest, file_digest
from saelens_steer.metrics import imported, metrics_version, source_of
from saelens_steer.model import model_fingerprint
from saelens_steer.pipeline.provenance import library_versions
from saelens_steer.pipeline.run_folder import RunFolder
from saelens_steer.sae import QUALITY, read_quality, source_version
from saelens_steer.steering import vectors_version


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
        """The content of each function and file that the config names.

        Raises InputError if one is missing.
        """
        return [
            vectors_version(name) if is_file(name) else source_of(imported(name, "config"))
            for name in self.spec.from_elsewhere
        ]

    @cached_property
    def corpus_version(self) -> str | None:
        """A digest of the corpus if it is a local file, since its content may change."""
        sae = self.spec.sae.train or self.spec.sae.load
        assert sae is not None
        if sae.corpus is None or not Path(sae.corpus).is_file():
            return None
        return file_digest(Path(sae.corpus))

    @cached_property
    def sae_source(self) -> str | None:
        """A digest of the local SAE that is loaded, or of the local corpus it is trained on."""
        load = self.spec.sae.load
        return source_version(load.source) if load else self.corpus_version

    @property
    def source_quality(self) -> str | None:
        """A digest of the quality figures of a loaded SAE, if this package trained it."""
        folder = self.source_with_figures
        return file_digest(folder / QUALITY) if folder else None

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
        if not self.folder.path("grid/grid.csv").exists():
            return []
        names = self.spec.sae.grid_specs
        return [name for name in names if not self.folder.path(f"grid/{name}").is_dir()]

    def _digest(self, name: str) -> str | None:
        path = self.folder.path(name)
        return file_digest(path) if path.exists() else None

    @property
    def tradeoff_prompts(self) -> tuple[Prompt, ...]:
        """The first `limit` prompts of each domain.

        Raises InputError unless the target domain and at least one other have prompts.
        """
        spec = self.spec.tradeoffs
        assert spec is not None
        by_domain: dict[str, list[Prompt]] = {}
        for prompt in as_prompts(self.model.tokenizer, load_prompts(spec.prompts)):
            by_domain.setdefault(prompt.domain, []).append(prompt)
        if spec.domain not in by_domain or len(by_domain) < 2:
            raise InputError(
                f"tradeoffs: {spec.prompts} needs prompts of domain {spec.domain!r} and of at "
                f"least one other; its domains are {', '.join(sorted(by_domain))}"
            )
        return tuple(prompt for own in by_domain.values() for prompt in own[: spec.limit])
