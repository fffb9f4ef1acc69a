"""The result of a sweep: tables, claims and a figure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.evidence import by_family, claims, guards, headline, summarise
from saelens_steer.report import interference_figure
from saelens_steer.sweeps import Measurement


@dataclass(frozen=True)
class Result:
    """The result of a sweep; tables are pandas, computed from the rows on first use."""

    rows: pd.DataFrame
    """One row per direction × α × prompt, controls included."""
    completions: pd.DataFrame
    """One row per generated text; empty without text metrics."""
    metrics: tuple[str, ...]
    """The metric columns of the rows; the first is the main one."""
    seed: int = 0
    controls: str | None = None
    """The family that claims are tested against; None if the rows have at most one family."""
    special_tokens: dict[str, Any] | None = None
    """The special tokens before plain prompts, how many of them are never steered, and whether the
    SAE or the tokenizer determined them; None for prompts in the chat template."""

    misfits: tuple[str, ...] = ()
    """Warnings that the SAE may not fit the model or the hook, if it was audited."""

    @classmethod
    def of(cls, measurement: Measurement, rows: pd.DataFrame, completions: pd.DataFrame) -> Result:
        """The result of a measurement, from joined rows and completions."""
        first = next(iter(measurement.spec.families), None)
        start, columns = measurement.start, measurement.metric_columns(completions)
        begins = None if start is None else start.record(measurement.model.tokenizer)
        return cls(rows, completions, columns, measurement.spec.seed, first, begins)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per direction × α: each metric's mean, Δ and 95 % bootstrap interval."""
        return summarise(self.rows, self.metrics, seed=self.seed)

    @cached_property
    def claims(self) -> pd.DataFrame:
        """One row per candidate and metric: effect, p, q and verdict against the controls."""
        return claims(self.rows, self.metrics, controls=self.controls, seed=self.seed)

    @cached_property
    def by_family(self) -> pd.DataFrame:
        """One row per candidate, metric and family of controls: p, q and verdict."""
        return by_family(self.rows, self.metrics)

    @cached_property
    def warnings(self) -> list[str]:
        """Sentences on why the numbers may mislead; empty if no check fails."""
        return [*self.misfits, *guards(self.rows, self.claims, self.completions, self.metrics)]

    @property
    def headline(self) -> str:
        """The result on the main metric, in a sentence."""
        return headline(self.claims, self.summary, self.metrics[0])

    def plot_interference(self, metric: str | None = None) -> go.Figure:
        """Plot Δ of a metric (default: the main one) against α, with the controls' band."""
        return interference_figure(self.summary, metric or self.metrics[0], claims=self.claims)
