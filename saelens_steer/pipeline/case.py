"""A drafted config, and what the rules read of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from saelens_steer.config import (
    METRICS,
    NO_LOGIT_METRIC,
    Draft,
    LogProbMetric,
    MarginMetric,
    MetricFacts,
    MetricSpec,
    RunSpec,
    is_custom,
)
from saelens_steer.data.prompt import Prompt
from saelens_steer.errors import InputError
from saelens_steer.functions import called, imported


@dataclass(frozen=True)
class RunPrompts:
    """The prompts that a config names."""

    steered: tuple[Prompt, ...] = ()
    selection: tuple[Prompt, ...] = ()
    topic: tuple[Prompt, ...] = ()
    """Those of features.topic; their domains are the topic's categories."""
    label: tuple[Prompt, ...] = ()
    """Those steered for the labels."""
    tradeoffs: tuple[Prompt, ...] = ()
    """The first tradeoffs.limit of each domain."""


Rule = Callable[["Case"], Iterable[str] | None]


@dataclass
class Case:
    """A drafted config, and what its rules read."""

    draft: Draft[RunSpec]
    out: Path | None
    until: str
    prompts: RunPrompts = RunPrompts()

    @property
    def spec(self) -> RunSpec:
        return self.draft.spec

    def lose(self, key: str) -> None:
        """Let no later rule read the value at a dotted key."""
        self.draft = replace(self.draft, replaced=self.draft.replaced | {tuple(key.split("."))})

    @property
    def sides(self) -> list[str]:
        return [self.spec.select.positive, self.spec.select.negative]

    @cached_property
    def metrics(self) -> list[tuple[MetricSpec, MetricFacts]]:
        """Each metric with its facts. Raises InputError for a function that is not a metric."""
        return [(spec, metric_facts(spec)) for spec in self.spec.metrics]

    @property
    def outcome(self) -> tuple[MetricSpec, MetricFacts]:
        """The first logit metric. Raises InputError if there is none."""
        found = next((one for one in self.metrics if one[1].of == "logits"), None)
        if found is None:
            raise InputError(NO_LOGIT_METRIC)
        return found


def metric_facts(spec: MetricSpec) -> MetricFacts:
    """What the metric reads, and its columns. Raises InputError for a function that is none."""
    if isinstance(spec, MarginMetric):
        return MetricFacts("logits", (spec.margin.name,))
    if isinstance(spec, LogProbMetric):
        return MetricFacts("logits", (spec.log_prob.name,))
    if not isinstance(spec, str):
        return MetricFacts("text", (spec.mentions.name,))
    if not is_custom(spec):
        return METRICS[spec]
    function = imported(spec)
    if called(spec, function)[0] == "logits":
        return MetricFacts("logits", (spec.rpartition(":")[2].rpartition(".")[2],))
    return MetricFacts("text", tuple(getattr(function, "columns", ())))


def prompts_rule(name: str, key: str, load: Callable[[Case], Iterable[Prompt]]) -> Rule:
    """The rule that the prompts at `key` can be loaded; otherwise, no later rule reads them."""

    def rule(case: Case) -> None:
        try:
            case.prompts = replace(case.prompts, **{name: tuple(load(case))})
        except InputError as error:
            case.lose(key)
            raise InputError(f"{key}: {error}") from None

    return rule
