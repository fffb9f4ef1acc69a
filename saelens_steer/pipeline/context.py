"""A run under way: the spec, the folder, the model, the prompts, and what earlier steps left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sae_lens import SAE

from saelens_steer.activations import Activations
from saelens_steer.config import LabelSpec, RunSpec, dump_config
from saelens_steer.config.base import Spec
from saelens_steer.data import (
    Prompt,
    check_disjoint,
    load_prompts,
    prompts_hash,
    some_prompts,
    steered_prompts,
)
from saelens_steer.errors import InputError
from saelens_steer.features import Scale, measured_scale
from saelens_steer.files import digest, file_digest, read_json, write_json, write_text
from saelens_steer.metrics import metrics_version
from saelens_steer.model import check_stream, default_hook_name, load_model, model_fingerprint
from saelens_steer.pipeline.provenance import library_versions, provenance
from saelens_steer.pipeline.run_folder import RunFolder
from saelens_steer.pipeline.step import Fact, Step
from saelens_steer.pipeline.step_table import dependants, step
from saelens_steer.sae import (
    QUALITY,
    check_loggers,
    check_train_spec,
    load_sae,
    read_quality,
    sae_fingerprint,
    source_version,
)
from saelens_steer.sweeps import BatchSplitter, Measurement

HALVED = ".store/halved.json"


@dataclass
class RunContext:
    """The spec, the folder, the model, the prompts; and what earlier steps left in the folder."""

    spec: RunSpec
    folder: RunFolder
    model: Any
    hook_name: str
    prompts: tuple[Prompt, ...]
    selecting: tuple[Prompt, ...]
    topic: tuple[Prompt, ...] = ()
    """The prompts of `features.topic`, whose domains are its categories."""
    naming: tuple[Prompt, ...] = ()
    """The prompts that are steered for the labels."""
    keys: dict[str, str] = field(default_factory=dict)
    """Step → the digest of what it was made from, for later steps to depend on."""

    @classmethod
    def load(cls, spec: RunSpec, out: str | Path) -> RunContext:
        """Load the model and the prompts; nothing is written yet."""
        folder = RunFolder(out, dependants)
        folder.check_own()
        if spec.sae.train:
            check_train_spec(spec.sae.train)
            check_loggers(spec.sae.log.tensorboard)
        steered = tuple(steered_prompts(spec.prompts))
        selecting = tuple(load_prompts(spec.select.prompts))
        check_disjoint(steered, selecting)
        topic = tuple(load_prompts(spec.features.topic)) if spec.features.topic else ()
        m = spec.model
        model = load_model(m.name, model_class=m.class_, dtype=m.dtype, device=m.device)
        hook_name = check_stream(model, spec.hook_name or default_hook_name(model))
        naming = tuple(_label_prompts(spec.label, steered)) if spec.label else ()
        return cls(spec, folder, model, hook_name, steered, selecting, topic, naming)

    def mark(self) -> None:
        """Make the folder a run folder: config.yaml, provenance.json."""
        self.folder.mark()
        write_text(self.folder.path("config.yaml"), dump_config(self.spec))
        self.write_provenance()

    def drop_stale_grid(self) -> None:
        """Remove the table of another config's grid, which a report would show; its SAEs stay."""
        if "grid" in self.folder.names("grid") and not self.is_current(step("grid")):
            self.folder.drop("grid")

    def made_from(self, step: Step) -> list[object]:
        """The digestible inputs of a step: keys of earlier steps, parts of the config, facts."""
        inputs: list[object] = [self.keys.get(name) for name in step.after]
        for part in step.reads(self.spec):
            value = getattr(self, part) if isinstance(part, Fact) else part
            inputs.append(value.model_dump() if isinstance(value, Spec) else value)
        return inputs

    def is_current(self, step: Step) -> bool:
        """Whether a step was last done from these inputs."""
        return self.folder.is_current(step.name, self.made_from(step))

    @property
    def model_key(self) -> list[str]:
        """What decides the model's arithmetic."""
        m, device = self.spec.model, str(self.model.cfg.device).split(":")[0]
        return [
            model_fingerprint(self.model),
            m.class_,
            m.dtype,
            device,
            digest(library_versions()),
        ]

    @property
    def metrics_version(self) -> object:
        """A digest of the metrics, and of the source of those from elsewhere."""
        return metrics_version(self.spec.metrics)

    @property
    def steered_hash(self) -> str:
        return prompts_hash(self.prompts)

    @property
    def selecting_hash(self) -> str:
        return prompts_hash(self.selecting)

    @property
    def topic_hash(self) -> str:
        return prompts_hash(self.topic)

    @property
    def naming_hash(self) -> str:
        return prompts_hash(self.naming)

    @property
    def tradeoffs_hash(self) -> str:
        return prompts_hash(self.tradeoff_prompts)

    @cached_property
    def corpus_version(self) -> str | None:
        """A digest of a local corpus, which may change under its name."""
        sae = self.spec.sae.train or self.spec.sae.load
        assert sae is not None
        local = sae.corpus is not None and Path(sae.corpus).is_file()
        return file_digest(Path(str(sae.corpus))) if local else None

    @cached_property
    def sae_source(self) -> str | None:
        """A digest of what a path names: the corpus that is trained on, or a local SAE."""
        load = self.spec.sae.load
        return source_version(load.source) if load else self.corpus_version

    @property
    def source_quality(self) -> str | None:
        """A digest of the quality figures beside a loaded SAE that was trained here."""
        folder = self.source_with_figures
        return file_digest(folder / QUALITY) if folder else None

    @property
    def source_with_figures(self) -> Path | None:
        """The folder of a loaded SAE that was trained here, so that its figures lie beside it.

        Files of these names beside a checkpoint from elsewhere mean something else.
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
        """SAEs that the table of a grid lists and that are gone: they are trained again."""
        if not self.folder.path("grid/grid.csv").exists():
            return []
        names = self.spec.sae.grid_specs
        return [name for name in names if not self.folder.path(f"grid/{name}").is_dir()]

    def _digest(self, name: str) -> str | None:
        path = self.folder.path(name)
        return file_digest(path) if path.exists() else None

    @property
    def tradeoff_prompts(self) -> tuple[Prompt, ...]:
        """The first prompts of each domain. Raises InputError without two domains."""
        spec = self.spec.tradeoffs
        assert spec is not None
        by_domain: dict[str, list[Prompt]] = {}
        for prompt in load_prompts(spec.prompts):
            by_domain.setdefault(prompt.domain, []).append(prompt)
        if spec.domain not in by_domain or len(by_domain) < 2:
            raise InputError(
                f"tradeoffs: {spec.prompts} needs prompts of domain {spec.domain!r}, and of "
                f"others; its domains are {', '.join(sorted(by_domain))}"
            )
        return tuple(prompt for own in by_domain.values() for prompt in own[: spec.limit])

    @property
    def activations(self) -> Activations:
        return Activations.load(self.folder.path("activations"))

    @property
    def sae(self) -> SAE[Any]:
        return load_sae(self.folder.path("sae"), device=str(self.model.cfg.device))

    def load_sae(self) -> SAE[Any]:
        """The SAE that the config names."""
        assert self.spec.sae.load is not None
        load, cfg = self.spec.sae.load, self.model.cfg
        fitting = {"d_model": cfg.d_model, "hook_name": self.hook_name}
        return load_sae(load.source, load.sae_id, device=str(cfg.device), **fitting)

    @property
    def features(self) -> dict[str, Any]:
        """The content of features.json."""
        return json.loads(self.folder.path("features.json").read_text(encoding="utf-8"))

    @property
    def candidates(self) -> Mapping[str, list[int]]:
        """Domain → its candidates, best first; the positive side first."""
        found, select = self.features, self.spec.select
        return {side: found[f"{side}_candidates"] for side in (select.positive, select.negative)}

    @property
    def scale(self) -> Scale:
        """What selection measured: mean ‖x‖, and A_max of the features that may be swept."""
        found = self.features
        return Scale({int(f): v for f, v in found["max_act"].items()}, found["resid_norm"])

    def scale_of(self, sae: SAE[Any], features: Sequence[int]) -> Scale:
        """`scale` plus A_max of further features (skipped for a decoder-only SAE)."""
        known = self.scale
        more = sorted({*features} - {*known.max_act})
        if not more or sae.cfg.metadata.decoder_only:
            return known
        measured = measured_scale(self.activations, sae, more)
        return replace(known, max_act={**known.max_act, **measured.max_act})

    @property
    def shown(self) -> dict[int, str]:
        """The features that have a page: the candidates, and those that the config names; each
        with its side, or an empty text."""
        sides = {f: side for side, own in self.candidates.items() for f in own}
        named = [*self.spec.sweep.named, *self.spec.features.also]
        return {**sides, **{f: sides.get(f, "") for f in named}}

    def measurement(self, sae: SAE[Any] | None = None) -> Measurement:
        """The sweep of this run."""
        spec = self.spec
        return Measurement(
            self.model, sae, self.hook_name, self.prompts, spec.sweep, spec.metrics, spec.prompts
        )

    def splitter(self, key: str) -> BatchSplitter:
        """Which batches of a store's answers did not fit; recorded at once when one does not."""

        def note(halved: Mapping[str, int]) -> None:
            write_json(self.folder.path(HALVED), self.halved | {key: dict(halved)})
            self.write_provenance()

        return BatchSplitter(self.halved.get(key, {}), note)

    @property
    def halved(self) -> dict[str, dict[str, int]]:
        """Store → shape → rows of the batches that did not fit, in this run folder so far."""
        return read_json(self.folder.path(HALVED))

    def write_provenance(self) -> None:
        """Write provenance.json, with the digest of the SAE once there is one."""
        sae = self.folder.path("sae")
        trained = sae.is_dir() and self.is_current(step("train"))
        sae_hash = sae_fingerprint(sae) if trained else None
        about = provenance(self.spec, self.model, self.hook_name, self.prompts, self.selecting)
        about["sae"]["hash"] = sae_hash
        if resumed := read_quality(sae).get("resumed_at_tokens"):
            about["sae"]["resumed_at_tokens"] = resumed
        about["halved_batches"] = [n for own in self.halved.values() for n in own.values()]
        write_json(self.folder.path("provenance.json"), about)


def _label_prompts(spec: LabelSpec, steered: Sequence[Prompt]) -> list[Prompt]:
    """Those that the labels name for themselves, or some of the run's own."""
    if spec.prompts is not None:
        return steered_prompts(spec.prompts)
    return some_prompts(steered, spec.n_prompts, spec.seed)
