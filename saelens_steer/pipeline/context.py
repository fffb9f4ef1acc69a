"""The inputs that all steps of a run share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sae_lens import SAE

from saelens_steer.activations import Activations
from saelens_steer.config import RunSpec, dump_config
from saelens_steer.config.base import Spec
from saelens_steer.data import (
    Encoded,
    TextStart,
    any_plain,
    as_prompts,
    encode_prompts,
    prompts_hash,
    say_start,
    text_start,
    written_date,
)
from saelens_steer.errors import InputError
from saelens_steer.features import Scale, measured_scale
from saelens_steer.files import digest, read_json, write_json, write_text
from saelens_steer.model import (
    check_steerable,
    check_stream,
    default_hook_name,
    hook_width,
)
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.pipeline.inputs import RunInputs
from saelens_steer.pipeline.provenance import provenance
from saelens_steer.pipeline.rules import RunPrompts
from saelens_steer.pipeline.step import PromptsInput, RunInput, Step
from saelens_steer.pipeline.step_table import STEPS, dependants, step
from saelens_steer.run_folder import ABOUT, CONFIG, HALVED, RUN, RunFolder
from saelens_steer.sae import (
    counts_firing,
    for_plain_weights,
    load_sae,
)
from saelens_steer.sealed import read_sealed, write_sealed
from saelens_steer.sweeps import BatchSplitter, Measurement


@dataclass
class RunContext(RunInputs):
    """The inputs of a run, and the output of earlier steps."""

    @classmethod
    def of(cls, spec: RunSpec, out: str | Path, prompts: RunPrompts, model: Any) -> RunContext:
        """A run with its hook checked. Writes nothing."""
        folder = RunFolder(out, dependants)
        check = check_stream if spec.sae.train else check_steerable
        hook_name = check(model, spec.hook_name or default_hook_name(model))
        tokenizer = tokenizer_of(model)
        read = lambda own: tuple(as_prompts(tokenizer, own))  # noqa: E731
        return cls(
            spec,
            folder,
            model,
            hook_name,
            prompts=read(prompts.steered),
            selection_prompts=read(prompts.selection),
            topic_prompts=read(prompts.topic),
            label_prompts=read(prompts.label),
            tradeoff_prompts=read(prompts.tradeoffs),
        )

    def mark(self) -> None:
        """Make the folder a run folder, with config.yaml and provenance.json.

        Output of another config becomes stale first, so that it never stands beside this one.
        """
        self.folder.mark()
        for one in STEPS:
            if one.is_wanted(self.spec):
                self.keys[one.name] = digest(one.name, *self.inputs_of(one))
            if self.folder.records[one.name].key not in (None, self.keys.get(one.name)):
                self.folder.drop(one.name)
        self.keys.clear()
        with self.folder.writing(RUN, RUN):
            write_text(self.folder.path(CONFIG), dump_config(self.spec))
        self.write_provenance()

    def inputs_of(self, step: Step) -> list[object]:
        """All inputs of a step, ready to be hashed: keys of earlier steps, then what it reads."""
        inputs: list[object] = [self.keys.get(name) for name in step.after]
        for part in step.reads(self.spec):
            value: Any = getattr(self, part) if isinstance(part, RunInput) else part
            if isinstance(part, PromptsInput):
                value, date = prompts_hash(value), self.written_date
                value = value if date is None else [value, date]
            inputs.append(value.model_dump() if isinstance(value, Spec) else value)
        return inputs

    def is_current(self, step: Step) -> bool:
        """Whether a step last ran on the inputs it has now."""
        return self.folder.is_current(step.name, self.inputs_of(step))

    @property
    def activations(self) -> Activations:
        return Activations.load(self.folder.path("activations"))

    @property
    def sae(self) -> SAE[Any]:
        return load_sae(self.folder.path("sae"), device=str(self.model.cfg.device))

    @cached_property
    def source_sae(self) -> SAE[Any]:
        """The SAE that the config loads, from its source; loaded once."""
        assert self.spec.sae.load is not None
        load, cfg = self.spec.sae.load, self.model.cfg
        width = hook_width(self.model, self.hook_name)
        known = {"d_model": width, "hook_name": self.hook_name, "model_name": load.model_name}
        found = load_sae(load.source, load.sae_id, device=str(cfg.device), **known)
        return for_plain_weights(found, self.model)

    @cached_property
    def written_date(self) -> str | None:
        """Today's date if the chat template writes it into prompts."""
        steered, selected, label = self.spec.prompts, self.spec.template, self.spec.label
        read = (
            (self.prompts, steered),
            (self.tradeoff_prompts, steered),
            (self.selection_prompts, selected),
            (self.topic_prompts, selected),
            (self.label_prompts, (label and label.prompts) or steered),
        )
        dates = (written_date(self.model.tokenizer, *each) for each in read)
        return next((date for date in dates if date), None)

    @cached_property
    def _reads_plain(self) -> bool:
        """Whether any of the steered and selection prompts is plain text."""
        read = (self.prompts, self.spec.prompts), (self.selection_prompts, self.spec.template)
        return any(any_plain(self.model.tokenizer, *each) for each in read)

    @cached_property
    def special_tokens(self) -> bool | None:
        """Whether plain prompts begin with BOS, as the SAE's training contexts do.

        None: as the tokenizer does.
        """
        if train := self.spec.sae.train:
            return train.prepend_bos
        start = text_start(self.model.tokenizer, self.source_sae)
        if self._reads_plain:
            say_start(self.model.tokenizer, start)
        return bool(start.ids) if start.of_sae else None

    @property
    def start(self) -> TextStart | None:
        """The special tokens before plain prompts; None if there are none."""
        if not self._reads_plain:
            return None
        found = text_start(self.model.tokenizer, self.special_tokens)
        return replace(found, of_sae=found.given and self.spec.sae.load is not None)

    @property
    def encoding(self) -> dict[str, Any]:
        """How the selection prompts become tokens: keywords of `encode_prompts`."""
        return {"template": self.spec.template, "special_tokens": self.special_tokens}

    @cached_property
    def encoded_selection(self) -> list[Encoded]:
        """The tokens of the selection prompts."""
        return encode_prompts(self.model.tokenizer, self.selection_prompts, **self.encoding)

    @property
    def caching(self) -> dict[str, Any]:
        """How activations of the selection prompts are cached: keywords of `cache_activations`."""
        options = {**self.spec.activations.model_dump(), **self.spec.template.options}
        return {**options, "special_tokens": self.special_tokens}

    @property
    def features(self) -> dict[str, Any]:
        """The content of features.json."""
        return read_json(self.folder.path("features.json"))

    @property
    def candidates(self) -> Mapping[str, list[int]]:
        """Side → its candidates, best first; the positive side comes first."""
        found, select = self.features, self.spec.select
        return {side: found[f"{side}_candidates"] for side in (select.positive, select.negative)}

    @property
    def scale(self) -> Scale:
        """Mean ‖x‖, and A_max of each feature that may be swept, as selection measured them."""
        found = self.features
        return Scale({int(f): v for f, v in found["max_act"].items()}, found["resid_norm"])

    def scale_of(self, sae: SAE[Any], features: Sequence[int]) -> Scale:
        """`scale` with A_max of these features too; just `scale` if no firing can be counted."""
        known = self.scale
        more = sorted({*features} - {*known.max_act})
        if not more or not counts_firing(sae):
            return known
        measured = measured_scale(self.activations, sae, more)
        return replace(known, max_act={**known.max_act, **measured.max_act})

    @property
    def shown_features(self) -> dict[int, str]:
        """Feature → its side, or "": the candidates, then features named in the config.

        These are the features that get pages and labels.
        """
        sides = {f: side for side, own in self.candidates.items() for f in own}
        named = (*self.spec.sweep.named, *self.spec.features.also)
        return sides | {f: "" for f in named if f not in sides}

    def measurement(self, sae: SAE[Any] | None = None) -> Measurement:
        """What the sweep of this run measures."""
        place, spec = (self.model, sae, self.hook_name, self.prompts), self.spec
        what = spec.sweep, spec.metrics, spec.prompts
        return Measurement(*place, *what, special_tokens=self.special_tokens)

    def splitter(self, key: str) -> BatchSplitter:
        """A splitter that halves batches too large for memory, and records each at once."""

        def note(halved: Mapping[str, int]) -> None:
            write_sealed(self.folder.path(HALVED), self.halved | {key: dict(halved)})
            self.write_provenance()

        return BatchSplitter(self.halved.get(key, {}), note)

    @property
    def halved(self) -> dict[str, dict[str, int]]:
        """Store → batch shape → rows, for every batch that has not fitted into memory."""
        if not (file := self.folder.path(HALVED)).exists():
            return {}
        try:
            return read_sealed(file)
        except (OSError, ValueError):
            raise InputError(
                f"{file} is damaged: delete it, and set sweep.batch_tokens to a size that fits"
            ) from None

    def write_provenance(self) -> None:
        """Write provenance.json."""
        made = self.folder.has("sae") and self.is_current(step("train"))
        with self.folder.writing(RUN, RUN):
            write_json(self.folder.path(ABOUT), provenance(self, made))
