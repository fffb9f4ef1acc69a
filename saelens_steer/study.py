"""A sweep from its inputs to its rows: directions, controls, strengths, logits, completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from sae_lens import SAE

from saelens_steer.activations import Activations
from saelens_steer.config import MetricSpec, PromptSpec, SweepSpec
from saelens_steer.data import Encoded, Prompt, encode_prompts
from saelens_steer.errors import InputError
from saelens_steer.evidence import Known, controls_of
from saelens_steer.features import NO_SCALE, Scale, firing_rates
from saelens_steer.metrics import LogitMetric, TextMetric, resolve_metrics
from saelens_steer.progress import Note, unnoted
from saelens_steer.result import Result
from saelens_steer.steering import (
    Directions,
    feature_directions,
    matched_controls,
    own_controls,
    plain_directions,
)
from saelens_steer.sweeps import (
    KEPT_NOWHERE,
    CompletionSweep,
    Ground,
    Labels,
    LogitSweep,
    Room,
    Store,
    completion_table,
    generating,
    grid,
    logit_shards,
    logit_table,
    matched_steps,
    run_completions,
    unsteered,
    with_text_metrics,
)
from saelens_steer.tensors import Vectors


def tested_directions(
    sae: SAE[Any], spec: SweepSpec, vectors: Vectors | None = None, scale: Scale = NO_SCALE
) -> Directions:
    """The candidates of a sweep: vectors of the caller's own, or the features that spec names."""
    if vectors is not None:
        if vectors.ndim != 2 or vectors.shape[1] != sae.cfg.d_in:
            raise InputError(f"directions must have shape [n, {sae.cfg.d_in}]")
        if spec.features != "candidates":
            raise InputError("give either features or directions, not both")
        return plain_directions(vectors, spec.alpha_unit, scale)
    if isinstance(spec.features, str) or not spec.features:
        raise InputError("say which features to sweep: features=[…]")
    return feature_directions(sae, spec.features, spec.alpha_unit, scale)


BATCH_TOKENS = {"cpu": 2048, "gpu": 16_384}
"""Tokens in a batch where the config does not say: what fits the caches, or fills a GPU."""


@dataclass(frozen=True)
class Study:
    """A sweep's inputs, and the steps from them to a Result."""

    model: Any
    sae: SAE[Any] | None
    hook_name: str
    prompts: tuple[Prompt, ...]
    spec: SweepSpec
    metric_specs: tuple[MetricSpec, ...]
    prompt_spec: PromptSpec
    steps: tuple[float, ...] | None = None
    """How far each cell of the grid goes along its direction, once `calibrated` has found it."""

    @cached_property
    def encoded(self) -> list[Encoded]:
        """The prompts' tokens up to the assistant start; answers are not part of a sweep."""
        bare = [replace(p, answer=None) for p in self.prompts]
        spec = self.prompt_spec
        return encode_prompts(self.model.tokenizer, bare, system=spec.system, chat=spec.chat)

    @cached_property
    def ids(self) -> list[list[int]]:
        """Token ids of each prompt."""
        return [list(e.ids) for e in self.encoded]

    @cached_property
    def metrics(self) -> list[LogitMetric | TextMetric]:
        """The metrics, ready to be called."""
        return resolve_metrics(self.metric_specs, self.model.tokenizer, self.model.cfg.d_vocab)

    @property
    def logit_metrics(self) -> list[LogitMetric]:
        return [m for m in self.metrics if isinstance(m, LogitMetric)]

    @property
    def text_metrics(self) -> list[TextMetric]:
        return [m for m in self.metrics if isinstance(m, TextMetric)]

    @property
    def text_columns(self) -> list[str]:
        return [c for m in self.text_metrics for c in m.columns]

    def check(self) -> None:
        """Everything that can be wrong and needs no forward pass; raises InputError."""
        if not self.logit_metrics:
            raise InputError("metrics needs at least one logit metric, such as kl or a margin")
        if not self.prompts:
            raise InputError("there is no prompt to steer: the prompt set is empty")
        longest = max(len(ids) for ids in self.ids)
        room = self.spec.generate.max_new_tokens if self.text_metrics else 0
        if longest + room > self.model.cfg.n_ctx:
            raise InputError(
                f"the longest prompt has {longest} tokens and {room} are to be generated, but the "
                f"model's n_ctx is {self.model.cfg.n_ctx}: shorten one of them"
            )

    def with_controls(self, tested: Directions, activations: Activations | None) -> Directions:
        """The directions under test, then the controls of each family."""
        spec, known, everything = self.spec, self._known(tested, activations), tested
        for family in spec.families:
            drawn = controls_of(family, spec.n_controls, known, spec.seed)
            everything += (
                own_controls(family, drawn, tested)
                if spec.own_controls
                else matched_controls(family, drawn, tested.sizes)
            )
        return everything

    def _known(self, tested: Directions, activations: Activations | None) -> Known:
        """What families of controls may read."""
        rates = None
        if "feature" in self.spec.families and self.sae is not None and activations is not None:
            rates = firing_rates(activations, self.sae)
        d_model = self.model.cfg.d_model
        return Known(d_model, activations, tested.vectors, tested.features, self.sae, rates)

    def calibrated(
        self,
        directions: Directions,
        scale: Scale,
        store: Store = KEPT_NOWHERE,
        room: Room | None = None,
        note: Note = unnoted,
    ) -> Study:
        """This study with the steps that KL decides found; itself where it decides none."""
        if not self.spec.calibrated:
            return self
        if scale.resid_norm is None:
            raise InputError("strengths by KL need cached activations, for mean ‖x‖")
        sweep, in_nats = self._logit_sweep(directions), self.spec.alpha_unit == "kl"
        steps = matched_steps(sweep, in_nats, scale.resid_norm, store, room, note)
        return replace(self, steps=tuple(steps))

    def n_rows(self, directions: Directions) -> int:
        """Rows of the logit sweep."""
        return len(self.prompts) * (1 + len(grid(len(directions), self.spec.alphas)))

    def n_texts(self, directions: Directions, chosen: Sequence[int]) -> int:
        """Completions of the sweep when these are chosen for it."""
        few = generating(directions, chosen, self.spec.generate.n_controls)
        cells = 1 + len(grid(len(few), self.spec.alphas))
        return len(self.prompts) * cells * self.spec.generate.samples if self.text_metrics else 0

    def logit_tables(
        self,
        directions: Directions,
        store: Store = KEPT_NOWHERE,
        logits: Store = KEPT_NOWHERE,
        room: Room | None = None,
        note: Note = unnoted,
    ) -> Iterator[pd.DataFrame]:
        """The logit metrics of every direction × α × prompt, some directions at a time, in order.

        What `store` has is read and not computed; so is what `logits` has the logits of.
        """
        sweep = self._logit_sweep(directions, every_token=logits.folder is not None)
        zero = unsteered(sweep, store, logits, note)
        for shard, rows in logit_shards(sweep, store, logits, room, note):
            yield logit_table(sweep, shard, rows, zero, self.labels)

    def logit_rows(self, directions: Directions, note: Note = unnoted) -> pd.DataFrame:
        """The same as one table, kept nowhere."""
        return pd.concat(self.logit_tables(directions, note=note), ignore_index=True)

    def _logit_sweep(self, directions: Directions, every_token: bool = False) -> LogitSweep:
        return LogitSweep(
            ground=self.ground,
            directions=directions,
            cells=grid(len(directions), self.spec.alphas),
            steps=self.steps,
            metrics=self.logit_metrics,
            sae=self.sae,
            all_logits=every_token,
        )

    @property
    def _device(self) -> str:
        return "cpu" if torch.device(self.model.cfg.device).type == "cpu" else "gpu"

    @cached_property
    def ground(self) -> Ground:
        """What logits and completions both start from."""
        spec = self.spec
        return Ground(
            model=self.model,
            hook_name=self.hook_name,
            prompts=self.ids,
            positions=spec.positions,
            exclude_special_tokens=spec.exclude_special_tokens,
            max_norm=spec.max_norm,
            batch_tokens=spec.batch_tokens or BATCH_TOKENS[self._device],
            new_tokens=spec.generate.max_new_tokens if self.text_metrics else 0,
        )

    def completion_rows(
        self,
        directions: Directions,
        chosen: Sequence[int],
        store: Store = KEPT_NOWHERE,
        room: Room | None = None,
        note: Note = unnoted,
    ) -> pd.DataFrame:
        """Completions of the chosen directions and of the first controls; none without metrics."""
        which = generating(directions, chosen, self.spec.generate.n_controls)
        if not self.text_metrics or not which:
            return pd.DataFrame()
        few = directions.take(which)
        run = CompletionSweep(
            ground=self.ground,
            directions=few,
            cells=[(0, 0.0), *grid(len(few), self.spec.alphas)],
            steps=self._steps_of(which),
            metrics=self.text_metrics,
            spec=self.spec.generate,
            seed=self.spec.seed,
        )
        rows = run_completions(run, store, room, note)
        return completion_table(run, rows, self.labels)

    def _steps_of(self, which: Sequence[int]) -> list[float] | None:
        """The steps of some directions' cells, after that of the unsteered cell."""
        if self.steps is None:
            return None
        n_alphas = len(grid(1, self.spec.alphas))
        return [0.0, *(self.steps[d * n_alphas + j] for d in which for j in range(n_alphas))]

    @property
    def labels(self) -> Labels:
        """What stands in every row."""
        return Labels(
            [p.id for p in self.prompts],
            [p.domain for p in self.prompts],
            self.spec.edit,
            self.hook_name,
            self.spec.positions,
            self.spec.alpha_unit,
        )

    def joined(self, rows: pd.DataFrame, completions: pd.DataFrame) -> pd.DataFrame:
        """Rows with the text metrics of those that have completions."""
        if completions.empty:
            return rows
        return with_text_metrics(rows, completions, self.text_columns)

    def measured(self, completions: pd.DataFrame) -> tuple[str, ...]:
        """The metric columns of joined rows."""
        texts = self.text_columns if len(completions) else []
        return (*(m.name for m in self.logit_metrics), *texts)

    def result(self, rows: pd.DataFrame, completions: pd.DataFrame) -> Result:
        """Joined rows, and completions."""
        first = next(iter(self.spec.families), None)
        return Result(rows, completions, self.measured(completions), self.spec.seed, first)


def check_disjoint(steered: Sequence[Prompt], selecting: Sequence[Prompt]) -> None:
    """Raise InputError if a prompt that is steered was also used to choose the features."""
    shared = {p.text for p in steered} & {p.text for p in selecting}
    if shared:
        example = sorted(shared)[0][:60]
        raise InputError(
            f"{len(shared)} prompts are both steered and used for selection, such as {example!r}: "
            "features must be chosen on other prompts than effects are measured on"
        )
