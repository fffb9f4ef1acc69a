"""The sweep as one call: directions, controls, rows, completions, evidence, in a Result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import DEFAULT_METRICS, MetricSpec, PromptSpec, SweepSpec, checked
from saelens_steer.data import Encoded, Prompt, as_prompts, encode_prompts
from saelens_steer.errors import InputError
from saelens_steer.evidence import claims, draw_controls, headline, summarise
from saelens_steer.metrics import LogitMetric, TextMetric, resolve_metrics
from saelens_steer.model import check_stream, default_hook_name
from saelens_steer.progress import progress
from saelens_steer.report import interference_figure
from saelens_steer.sae import check_sae
from saelens_steer.sweeps import (
    CompletionSweep,
    Directions,
    Labels,
    LogitSweep,
    Note,
    Store,
    completion_table,
    feature_directions,
    generating,
    grid,
    logit_table,
    matched_controls,
    plain_directions,
    run_completions,
    run_logits,
    unnoted,
    with_text_metrics,
)
from saelens_steer.tensors import Vectors


@dataclass(frozen=True)
class Result:
    """What a sweep found; the tables are pandas, computed from the rows when first asked for."""

    rows: pd.DataFrame
    """One row per direction × α × prompt, controls included."""
    completions: pd.DataFrame
    """One row per generated text; empty where none was asked for."""
    metrics: tuple[str, ...]
    """The metric columns of the rows; the first is the main one."""
    seed: int = 0

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per direction × α: each metric's mean, Δ and 95 % bootstrap interval."""
        return summarise(self.rows, self.metrics, seed=self.seed)

    @cached_property
    def claims(self) -> pd.DataFrame:
        """One row per candidate and metric: effect, p, q and verdict against the controls."""
        return claims(self.rows, self.metrics, seed=self.seed)

    @property
    def headline(self) -> str:
        """The answer in a sentence, on the main metric."""
        return headline(self.claims, self.summary, self.metrics[0])

    def plot_interference(self, metric: str | None = None) -> go.Figure:
        """Δ of a metric (default: the main one) against α, with the controls' band."""
        return interference_figure(self.summary, metric or self.metrics[0], claims=self.claims)


def sweep(
    model: Any,
    sae: SAE[Any],
    prompts: Sequence[Prompt | str],
    *,
    hook_name: str | None = None,
    directions: Vectors | None = None,
    metrics: Sequence[MetricSpec] = DEFAULT_METRICS,
    activations: Activations | None = None,
    **settings: Any,
) -> Result:
    """Steer along features and along random controls, and measure each prompt at each strength.

    `settings` are the fields of SweepSpec, such as features=[3], alphas=[-4, 0, 4],
    n_controls=512, controls="covariance". `directions` [n, d_model] are put in the features'
    place where given. Covariance controls take Σ from `activations`, or else from the residuals
    of the prompts themselves. The hook is the SAE's own; `hook_name` says which where the SAE names
    none (default: the model's middle layer). Raises InputError before any forward pass for what
    does not fit.
    """
    spec = checked(SweepSpec, settings, "sweep")
    named = hook_name or sae.cfg.metadata.hook_name or default_hook_name(model)
    hook_name = check_stream(model, str(named))
    check_sae(sae, model, hook_name)
    tested = tested_directions(sae, spec, directions)
    study = Study(
        model, sae, hook_name, tuple(as_prompts(prompts)), spec, tuple(metrics), PromptSpec()
    )
    study.check()
    if activations is not None and activations.hook_name != hook_name:
        raise InputError(f"the activations are of {activations.hook_name}, not of {hook_name}")
    if spec.controls == "covariance" and activations is None and spec.n_controls:
        activations = cache_activations(model, prompts, hook_name=hook_name)
    everything = study.with_controls(tested, activations)
    chosen = list(range(min(len(tested), 2 * spec.generate.top)))
    with progress("sweep", study.n_rows(everything)) as note:
        rows = study.logit_rows(everything, Store(None, ""), note)
    with progress("completions", study.n_texts(everything, chosen)) as note:
        completions = study.completion_rows(everything, chosen, Store(None, ""), note)
    return study.result(rows, completions)


def tested_directions(sae: SAE[Any], spec: SweepSpec, vectors: Vectors | None = None) -> Directions:
    """The candidates of a sweep: vectors of the caller's own, or the features that spec names."""
    if vectors is not None:
        if vectors.ndim != 2 or vectors.shape[1] != sae.cfg.d_in:
            raise InputError(f"directions must have shape [n, {sae.cfg.d_in}]")
        if spec.features != "candidates":
            raise InputError("give either features or directions, not both")
        return plain_directions(vectors, spec.alpha_unit)
    if isinstance(spec.features, str) or not spec.features:
        raise InputError("say which features to sweep: features=[…]")
    return feature_directions(sae, spec.features, spec.alpha_unit)


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
        """The directions under test, then their controls matched by norm."""
        if self.spec.n_controls == 0:
            return tested
        vectors = None if activations is None else activations.vectors
        drawn = draw_controls(
            self.spec.controls,
            self.spec.n_controls,
            d_model=self.model.cfg.d_model,
            seed=self.spec.seed,
            vectors=vectors,
        )
        return tested + matched_controls(self.spec.controls, drawn, tested.sizes)

    def n_rows(self, directions: Directions) -> int:
        """Rows of the logit sweep."""
        return len(self.prompts) * (1 + len(grid(len(directions), self.spec.alphas)))

    def n_texts(self, directions: Directions, chosen: Sequence[int]) -> int:
        """Completions of the sweep when these are chosen for it."""
        few = generating(directions, chosen, self.spec.generate.n_controls)
        cells = 1 + len(grid(len(few), self.spec.alphas))
        return len(self.prompts) * cells * self.spec.generate.samples if self.text_metrics else 0

    def logit_rows(
        self, directions: Directions, store: Store, note: Note = unnoted
    ) -> pd.DataFrame:
        """The logit metrics of every direction × α × prompt."""
        run = LogitSweep(
            self.model,
            self.hook_name,
            self.ids,
            directions,
            grid(len(directions), self.spec.alphas),
            self.logit_metrics,
            self.spec.positions,
            self.sae,
        )
        return logit_table(run, run_logits(run, self.spec.batch_tokens, store, note), self.labels)

    def completion_rows(
        self,
        directions: Directions,
        chosen: Sequence[int],
        store: Store,
        note: Note = unnoted,
    ) -> pd.DataFrame:
        """Completions of the chosen directions and of the first controls; none without metrics."""
        which = generating(directions, chosen, self.spec.generate.n_controls)
        if not self.text_metrics or not which:
            return pd.DataFrame()
        few = directions.take(which)
        run = CompletionSweep(
            self.model,
            self.hook_name,
            self.ids,
            few,
            [(0, 0.0), *grid(len(few), self.spec.alphas)],
            self.text_metrics,
            self.spec.generate,
            self.spec.positions,
            self.spec.seed,
        )
        rows = run_completions(run, self.spec.batch_tokens, store, note)
        return completion_table(run, rows, self.labels)

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

    def result(self, rows: pd.DataFrame, completions: pd.DataFrame) -> Result:
        """Rows and completions put together."""
        names = [m.name for m in self.logit_metrics]
        if len(completions):
            rows = with_text_metrics(rows, completions, self.text_columns)
            names += self.text_columns
        return Result(rows, completions, tuple(names), self.spec.seed)


def check_disjoint(steered: Sequence[Prompt], selecting: Sequence[Prompt]) -> None:
    """Raise InputError if a prompt that is steered was also used to choose the features."""
    shared = {p.text for p in steered} & {p.text for p in selecting}
    if shared:
        example = sorted(shared)[0][:60]
        raise InputError(
            f"{len(shared)} prompts are both steered and used for selection, such as {example!r}: "
            "features must be chosen on other prompts than effects are measured on"
        )
