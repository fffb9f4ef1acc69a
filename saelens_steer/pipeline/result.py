"""The result of a sweep: tables, claims and a figure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import yaml

from saelens_steer.config import FROM_PYTHON
from saelens_steer.data import Encoded
from saelens_steer.errors import InputError
from saelens_steer.evidence import by_family, claims, guards, headline, summarise
from saelens_steer.files import write_json, write_text
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.numbers import count
from saelens_steer.pipeline.outputs import read_completions, write_result, write_rows
from saelens_steer.pipeline.step_table import RESULT_FILES
from saelens_steer.progress import say
from saelens_steer.report import interference_figure, metric_names, page, read_run, units_of
from saelens_steer.run_folder import ABOUT, CONFIG, RUN, SAVED, WRITTEN_ALWAYS, RunFolder
from saelens_steer.steering import CANDIDATE
from saelens_steer.sweeps import Measurement
from saelens_steer.tables import read_parquet

NAMED = 3
"""Pairs of equal prompts that a warning names."""
SHOWN = 20
"""Claims that a notebook shows."""


def _doubled(encoded: Iterable[Encoded]) -> Iterator[str]:
    """A warning if prompts have the same tokens."""
    first, pairs = dict[tuple[int, ...], str](), list[str]()
    for one in encoded:
        if (other := first.setdefault(one.head, one.prompt.id)) != one.prompt.id:
            pairs.append(f"{other!r} and {one.prompt.id!r}")
    if pairs:
        more = f" (and {len(pairs) - NAMED} more)" if len(pairs) > NAMED else ""
        yield (
            f"Prompts {', '.join(pairs[:NAMED])}{more} have the same tokens, so the intervals are "
            "too narrow: leave one of them out."
        )


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
    """Warnings from before the sweep: the SAE may not fit, its fit was not checked, or prompts are
    equal."""
    stored_warnings: tuple[str, ...] = ()
    """Those of the run folder that the result was loaded from."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Id → text of the steered prompts."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, as the sections of a config."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What identifies model, SAE and libraries, as in provenance.json."""

    @classmethod
    def of(cls, measurement: Measurement, rows: pd.DataFrame, completions: pd.DataFrame) -> Result:
        """The result of a measurement, from joined rows and completions."""
        first = next(iter(measurement.spec.families), None)
        start, columns = measurement.start, measurement.metric_columns(completions)
        begins = None if start is None else start.record(tokenizer_of(measurement.model))
        found = cls(rows, completions, columns, measurement.spec.seed, first, begins)
        return replace(found, misfits=tuple(_doubled(measurement.encoded)))

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
        found = guards(self.rows, self.claims, self.completions, self.metrics)
        return [*dict.fromkeys([*self.misfits, *found, *self.stored_warnings])]

    @property
    def headline(self) -> str:
        """The result on the main metric, in a sentence."""
        return headline(self.claims, self.summary, self.metrics[0])

    def save(self, folder: str | Path) -> Path:
        """Write a folder that `load`, `verify` and the tools for tables read; returns its path.

        No config computes the result, so its config.yaml, which lists the settings, cannot be run.
        In the folder of an earlier run, the files that it does not replace stay, but are stale.
        Raises InputError if the folder holds anything but a run.
        """
        place = RunFolder(folder)
        place.check()
        place.check_free([*WRITTEN_ALWAYS, *RESULT_FILES, "controls.csv"])
        config = {FROM_PYTHON: True, **self.config}
        if place.has(CONFIG):
            say(f"{place.root} held a result, which this one replaces")
        with place.locked():
            place.withdraw(place.records.steps())
            place.mark()
            with place.writing(RUN, SAVED):
                write_text(place.path(CONFIG), yaml.safe_dump(config, sort_keys=False))
                write_json(place.path(ABOUT), {**self.about, "misfits": list(self.misfits)})
            with place.writing("sweep", SAVED):
                write_rows(place.root, [self.rows])
                write_result(place.root, self, self.prompts)
            place.say_stale()
        return place.root

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """The result in a run folder, of `save` or of a run. Raises InputError if it has none."""
        place = Path(folder)
        if not place.exists():
            raise InputError(f"there is no folder {place}")
        if not RunFolder(place).current("sweep").is_dir():
            raise InputError(f"{place} holds no result: it has no up-to-date sweep/ folder")
        run = read_run(place)
        rows = read_parquet(place / "sweep")
        sweep, misfits = run.spec.get("sweep") or {}, run.provenance.get("misfits") or []
        families = [name for name in dict.fromkeys(rows["family"]) if name != CANDIDATE]
        return cls(
            rows=rows,
            completions=read_completions(place, rows),
            metrics=tuple(metric_names(run.summary)),
            seed=int(sweep.get("seed", 0)),
            controls=families[0] if families else None,
            special_tokens=run.provenance.get("special_tokens"),
            misfits=(*misfits, *run.misfits),
            stored_warnings=tuple(run.warnings),
            prompts={row["prompt_id"]: row["prompt"] for row in run.completions},
            config=run.spec,
            about=run.provenance,
        )

    def report(self, path: str | Path) -> Path:
        """Write the report as one self-contained page, a .html file; returns its path."""
        path = Path(path)
        if path.suffix not in (".html", ".htm"):
            page_name = str(path.with_suffix(".html"))
            raise InputError(f"a report is an HTML page: write report({page_name!r})")
        with tempfile.TemporaryDirectory() as work:
            run = read_run(self.save(Path(work) / path.stem))
            return write_text(path, page(run, self.headline))

    def __repr__(self) -> str:
        """The headline, what was measured, and how many warnings there are."""
        tested = len(set(self.rows.loc[self.rows["family"] == CANDIDATE, "direction"]))
        controls = len(set(self.rows["direction"])) - tested
        strengths = ", ".join(f"{alpha:g}" for alpha in sorted(set(self.rows["alpha"])))
        n_prompts = len(set(self.rows["prompt_id"]))
        lines = [
            f"Result: {self.headline}",
            f"{count(tested, 'direction')} and {count(controls, 'control')}, "
            f"{count(n_prompts, 'prompt')}, α = {strengths}; metrics {', '.join(self.metrics)}",
        ]
        if n := len(self.warnings):
            first = "" if n == 1 else "; the first"
            lines.append(f"{count(n, 'warning')}, in .warnings{first}: {self.warnings[0]}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The headline, the warnings, and the claims on the main metric."""
        main: Any = self.claims.loc[self.claims["metric"] == self.metrics[0]]
        notes = "".join(f"<li>{escape(text)}</li>" for text in self.warnings)
        table = main.head(SHOWN).to_html(index=False, border=0, float_format="{:.3g}".format)
        return f"<p><b>{escape(self.headline)}</b></p><ul>{notes}</ul>{table}"

    def plot_interference(self, metric: str | None = None) -> go.Figure:
        """Plot Δ of a metric (default: the main one) against α, with the controls' band."""
        unit = units_of(self.about).get(metric := metric or self.metrics[0], "")
        return interference_figure(self.summary, metric, claims=self.claims, unit=unit)
