"""What each step of a run does with the run folder: compute, write, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations, with_answers
from saelens_steer.config import RunSpec, dump_config
from saelens_steer.data import Prompt, load_corpus, load_prompts, prompts_hash
from saelens_steer.errors import InputError
from saelens_steer.evidence import headline
from saelens_steer.features import select_features
from saelens_steer.files import digest, file_digest, remove, write_json, write_text
from saelens_steer.metrics import metrics_version
from saelens_steer.model import check_stream, default_hook_name, load_model, model_fingerprint
from saelens_steer.outputs import SWEEP_OUTPUTS, write_result
from saelens_steer.progress import progress, say
from saelens_steer.provenance import library_versions, provenance
from saelens_steer.report import build_report
from saelens_steer.sae import (
    check_feature,
    check_sae,
    check_train_spec,
    load_sae,
    sae_fingerprint,
    save_sae,
    train_sae,
)
from saelens_steer.steps import Steps
from saelens_steer.study import Study, check_disjoint, tested_directions
from saelens_steer.sweeps import Directions, Store

SHARDS = ".shards"
LATER = {
    "cache": ("select", "sweep", "report"),
    "train": ("select", "sweep", "report"),
    "select": ("sweep", "report"),
    "sweep": ("report",),
}
"""Which steps build on which."""


@dataclass
class Run:
    """A RunSpec under way in a folder. Each method is one step of the story."""

    spec: RunSpec
    steps: Steps
    model: Any
    hook_name: str
    prompts: tuple[Prompt, ...]
    selecting: tuple[Prompt, ...]
    keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, spec: RunSpec, out: str | Path) -> Run:
        """Load the model and the prompts and check whatever needs no computing."""
        steps = Steps(out, LATER)
        steps.check_own()
        if spec.sae.train:
            check_train_spec(spec.sae.train)
        steered = tuple(load_prompts(spec.prompts.source, spec.prompts.limit))
        selecting = tuple(load_prompts(spec.select.prompts))
        check_disjoint(steered, selecting)
        m = spec.model
        model = load_model(m.name, model_class=m.class_, dtype=m.dtype, device=m.device)
        hook_name = check_stream(model, spec.hook_name or default_hook_name(model))
        run = cls(spec, steps, model, hook_name, steered, selecting)
        run._check()
        steps.mark()
        write_text(steps.path("config.yaml"), dump_config(spec))
        run._write_provenance()
        return run

    def _check(self) -> None:
        self.study().check()
        for domain in (self.spec.select.positive, self.spec.select.negative):
            if domain not in {p.domain for p in self.selecting}:
                known = ", ".join(sorted({p.domain for p in self.selecting}))
                raise InputError(
                    f"{self.spec.select.prompts} has no prompt of domain {domain!r}; "
                    f"its domains are {known}"
                )
        if train := self.spec.sae.train:
            load_corpus(train.corpus, self.model.tokenizer, 1, train.seed)  # is there a text?
        if self.spec.sae.load:
            self._check_features(self._load_sae())
        elif self.spec.sae.train and not isinstance(self.spec.sweep.features, str):
            wrong = [f for f in self.spec.sweep.features if f >= self.spec.sae.train.d_sae or f < 0]
            if wrong:
                raise InputError(
                    f"feature {wrong[0]} is out of range: the SAE will have "
                    f"0 to {self.spec.sae.train.d_sae - 1}"
                )

    def _check_features(self, sae: SAE[Any]) -> None:
        check_sae(sae, self.model, self.hook_name)
        if not isinstance(self.spec.sweep.features, str):
            for feature in self.spec.sweep.features:
                check_feature(sae, feature)

    @property
    def _model_key(self) -> list[str]:
        """What decides the model's arithmetic."""
        m, device = self.spec.model, str(self.model.cfg.device).split(":")[0]
        return [
            model_fingerprint(self.model),
            m.class_,
            m.dtype,
            device,
            digest(library_versions()),
        ]

    def cache(self) -> Path:
        """Activations of the selection prompts, with their answers."""
        spec = self.spec
        answer = [spec.select.at, spec.select.answer_tokens] if spec.select.at == "answer" else []
        inputs = [self._model_key, self.hook_name, prompts_hash(self.selecting)]
        template = spec.prompts.model_dump(include={"system", "chat"})
        inputs += [spec.activations.model_dump(), template, answer]
        self.keys["cache"] = self.steps.do("cache", inputs, ["activations"], self._cache)
        return self.steps.path("activations")

    def _cache(self) -> None:
        prompts, select, spec = list(self.selecting), self.spec.select, self.spec.activations
        template: dict[str, Any] = self.spec.prompts.model_dump(include={"system", "chat"})
        if select.at == "answer":
            size = spec.batch_size
            prompts = with_answers(
                self.model, prompts, select.answer_tokens, batch_size=size, **template
            )
        options = {**spec.model_dump(), **template, "hook_name": self.hook_name}
        cache_activations(self.model, prompts, **options).save(self.steps.path("activations"))

    @property
    def activations(self) -> Activations:
        return Activations.load(self.steps.path("activations"))

    def train(self) -> Path:
        """The SAE, in SAELens's format: trained, or loaded from where the config says."""
        inputs = [self._model_key, self.hook_name, self.spec.sae.model_dump(), self._sae_version]
        self.keys["train"] = self.steps.do("train", inputs, ["sae"], self._train)
        self._write_provenance(sae_fingerprint(self.steps.path("sae")))
        return self.steps.path("sae")

    @property
    def _sae_version(self) -> str | None:
        """A digest of the local corpus or SAE, which may change under its name."""
        train, load = self.spec.sae.train, self.spec.sae.load
        if train and Path(train.corpus).is_file():
            return file_digest(Path(train.corpus))
        if load and (folder := Path(load.source).expanduser()).is_dir():
            return sae_fingerprint(folder)
        return None

    def _train(self) -> None:
        folder = self.steps.path("sae")
        if self.spec.sae.train:
            train_sae(self.model, self.spec.sae.train, self.hook_name, folder)
        else:
            save_sae(self._load_sae(), folder)
            self._copy_quality(folder)

    def _copy_quality(self, folder: Path) -> None:
        """The figures that an SAE trained here has beside it."""
        assert self.spec.sae.load is not None
        for name in ("quality.json", "metrics.jsonl"):
            known = Path(self.spec.sae.load.source).expanduser() / name
            if known.is_file():
                write_text(folder / name, known.read_text(encoding="utf-8"))

    @property
    def sae(self) -> SAE[Any]:
        return load_sae(self.steps.path("sae"), device=str(self.model.cfg.device))

    def _load_sae(self) -> SAE[Any]:
        assert self.spec.sae.load is not None
        source = self.spec.sae.load
        return load_sae(source.source, source.sae_id, device=str(self.model.cfg.device))

    def select(self) -> Path:
        """Candidates of both sides."""
        inputs = [self.keys["cache"], self.keys["train"], self.spec.select.model_dump()]
        self.keys["select"] = self.steps.do("select", inputs, ["features.json"], self._select)
        return self.steps.path("features.json")

    def _select(self) -> None:
        s, sae = self.spec.select, self.sae
        found = select_features(
            sae, self.activations, s.positive, s.negative, k=s.k, at=s.at, score=s.score
        )
        write_json(
            self.steps.path("features.json"), found.to_json(self.hook_name, self._about(sae))
        )

    def _about(self, sae: SAE[Any]) -> dict[str, Any]:
        load = self.spec.sae.load
        return {
            "source": load.source if load else "sae",
            "sae_id": load.sae_id if load else None,
            "hash": sae_fingerprint(self.steps.path("sae")),
            "d_sae": sae.cfg.d_sae,
            "d_in": sae.cfg.d_in,
            "architecture": sae.cfg.architecture(),
        }

    def sweep(self) -> Path:
        """Rows of every direction × α × prompt, completions, interference and claims."""
        inputs = [self.keys["select"], self._model_key, prompts_hash(self.prompts)]
        inputs += [self.spec.prompts.model_dump(), self.spec.sweep.model_dump()]
        inputs += [metrics_version(self.spec.metrics)]
        self.keys["sweep"] = self.steps.do("sweep", inputs, SWEEP_OUTPUTS, self._sweep)
        return self.steps.path("sweep")

    def _sweep(self) -> None:
        sae = self.sae
        study = self.study(sae)
        everything = study.with_controls(self._tested(sae), self.activations)
        with progress("sweep", study.n_rows(everything)) as note:
            rows = study.logit_rows(everything, self._store("logits", study, everything), note)
        with progress("completions", study.n_texts(everything, self._chosen())) as note:
            store = self._store("texts", study, everything)
            texts = study.completion_rows(everything, self._chosen(), store, note)
        write_result(self.steps.folder, study.result(rows, texts), self.prompts)
        remove(self.steps.path(SHARDS))

    def study(self, sae: SAE[Any] | None = None) -> Study:
        """The sweep of this run."""
        spec = self.spec
        return Study(
            self.model, sae, self.hook_name, self.prompts, spec.sweep, spec.metrics, spec.prompts
        )

    def _features(self) -> dict[str, Any]:
        return json.loads(self.steps.path("features.json").read_text(encoding="utf-8"))

    def _sides(self) -> list[list[int]]:
        found, s = self._features(), self.spec.select
        return [found[f"{side}_candidates"] for side in (s.positive, s.negative)]

    def _tested(self, sae: SAE[Any]) -> Directions:
        features = self.spec.sweep.features
        chosen = (
            [f for side in self._sides() for f in side] if isinstance(features, str) else features
        )
        if not chosen:
            raise InputError(
                "selection found no live feature that tells the domains apart: "
                "train the SAE longer or name sweep.features"
            )
        sweep = self.spec.sweep.model_copy(update={"features": tuple(chosen)})
        return tested_directions(sae, sweep)

    def _chosen(self) -> list[int]:
        """Positions, among the directions under test, of those that get completions."""
        top, features = self.spec.sweep.generate.top, self.spec.sweep.features
        if not isinstance(features, str):
            return list(range(min(len(features), 2 * top)))
        positive, negative = (len(side) for side in self._sides())
        return [*range(min(top, positive)), *range(positive, positive + min(top, negative))]

    def _store(self, name: str, study: Study, directions: Directions) -> Store:
        """Shards under a key of everything that decides them; texts add their own settings."""
        spec = self.spec.sweep.model_dump(exclude={"generate"} if name == "logits" else None)
        parts = [
            self._model_key,
            self.hook_name,
            study.ids,
            spec,
            metrics_version(self.spec.metrics),
        ]
        vectors = directions.vectors.numpy().tobytes().hex()
        key = digest(name, *parts, self.keys["train"], directions.names, vectors)
        return Store(self.steps.path(SHARDS) / name, key)

    def report(self) -> Path:
        """The page, and the plots."""
        inputs = [self.keys["sweep"], self.keys["select"], dump_config(self.spec)]
        self.steps.do("report", inputs, ["plots", "report.html"], self._report)
        return self.steps.path("report.html")

    def _report(self) -> None:
        claims = pd.read_csv(self.steps.path("claims.csv"))
        summary = pd.read_csv(self.steps.path("interference.csv"))
        answer = headline(claims, summary)
        build_report(self.steps.folder, answer)
        say(answer)

    def _write_provenance(self, sae_hash: str | None = None) -> None:
        about = provenance(self.spec, self.model, self.hook_name, self.prompts, self.selecting)
        about["sae"]["hash"] = sae_hash
        write_json(self.steps.path("provenance.json"), about)
