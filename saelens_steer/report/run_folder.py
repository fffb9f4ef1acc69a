"""Read a finished run folder; missing parts come back empty."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.config import FROM_PYTHON, parse_yaml
from saelens_steer.errors import InputError
from saelens_steer.files import read_jsonl
from saelens_steer.labels import SCORED
from saelens_steer.report.theme import one_line, units_of
from saelens_steer.run_folder import RunFolder
from saelens_steer.sae import may_not_fit
from saelens_steer.steering import CANDIDATE
from saelens_steer.tables import read_csv

REPORT = "report.html"
MEASURED = ("accuracy", "ci_low", "ci_high", "correct", "n")
"""The numbers of a score that was measured."""


def read_text(path: Path) -> str:
    """The file's text, or an empty string if there is no such file."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is missing."""
    data = _parse(read_text(path) or "{}", path)
    if not isinstance(data, dict):
        raise InputError(f"{path} should hold a JSON object")
    return data


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects, one per line; empty if the file is missing."""
    return [row for _, row in read_jsonl(path)] if path.is_file() else []


def _read_log(path: Path) -> pd.DataFrame:
    return pd.DataFrame(read_lines(path))


def read_labels(path: Path) -> dict[int, dict[str, Any]]:
    """Feature → its entry, over all layers; empty if the file is missing."""
    found: dict[int, dict[str, Any]] = {}
    for own in read_mapping(path).values():
        if not isinstance(own, dict) or not all(_is_label(f, entry) for f, entry in own.items()):
            raise InputError(f"{path} should map layers to features to labels with their scores")
        if again := sorted(found.keys() & set(map(int, own))):
            raise InputError(f"{path} has feature {again[0]} in two layers; a run has only one")
        found |= {int(feature): entry for feature, entry in own.items()}
    return found


def _is_label(feature: str, entry: Any) -> bool:
    """Whether a feature's number and its entry have the form that the report reads."""
    if not isinstance(entry, dict) or not (feature.isdecimal() and len(feature) < 16):
        return False
    scores = entry.get("scores")
    return (
        isinstance(entry.get("interpretation"), str | None)
        and isinstance(entry.get("neuronpedia"), dict | None)
        and isinstance(scores, dict)
        and all(_is_score(scores.get(kind)) for kind in ("detection", "causal"))
    )


def _is_score(score: Any) -> bool:
    if not isinstance(score, dict):
        return False
    measured = all(isinstance(score.get(key), int | float) for key in MEASURED)
    return measured or score.get("status") != SCORED


def _read_sentences(path: Path) -> list[str]:
    data = _parse(read_text(path) or "[]", path)
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise InputError(f"{path} should hold a JSON list of texts")
    return data


def _parse(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None


def _from(name: str, read: Callable[[Path], Any] = read_csv) -> dict[str, Any]:
    """What `read_run` needs to know about a field: its file, and how to read it."""
    return {"read": lambda folder: read(folder.current(name))}


@dataclass(frozen=True)
class RunTables:
    """The parts of a run folder that the report reads."""

    path: Path
    summary: pd.DataFrame = field(metadata=_from("interference.csv"))
    claims: pd.DataFrame = field(metadata=_from("claims.csv"))
    completions: list[dict[str, Any]] = field(metadata=_from("completions.jsonl", read_lines))
    features: dict[str, Any] = field(metadata=_from("features.json", read_mapping))
    provenance: dict[str, Any] = field(metadata=_from("provenance.json", read_mapping))
    config: str = field(metadata=_from("config.yaml", read_text))
    training: pd.DataFrame = field(metadata=_from("sae/metrics.jsonl", _read_log))
    quality: dict[str, Any] = field(metadata=_from("sae/quality.json", read_mapping))
    audit: dict[str, Any] = field(metadata=_from("sae/audit.json", read_mapping))
    grid: pd.DataFrame = field(metadata=_from("grid/grid.csv"))
    compared_edits: pd.DataFrame = field(metadata=_from("compare_edits.csv"))
    by_family: pd.DataFrame = field(metadata=_from("controls.csv"))
    baseline: pd.DataFrame = field(metadata=_from("frozen_decoder_baseline/claims.csv"))
    comparison: pd.DataFrame = field(metadata=_from("comparison.csv"))
    tradeoffs_by_domain: pd.DataFrame = field(metadata=_from("tradeoffs_by_domain.csv"))
    tradeoffs: pd.DataFrame = field(metadata=_from("tradeoffs.csv"))
    feature_pages: dict[str, Any] = field(metadata=_from("feature_pages.json", read_mapping))
    labels: dict[int, dict[str, Any]] = field(metadata=_from("labels.json", read_labels))
    warnings: list[str] = field(metadata=_from("warnings.json", _read_sentences))

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The resolved config as a mapping."""
        data = parse_yaml(self.config, self.path / "config.yaml")
        return {k: v for k, v in data.items() if k != FROM_PYTHON} if isinstance(data, dict) else {}

    @property
    def is_saved(self) -> bool:
        """Whether a notebook saved the result, so no config can compute it."""
        return RunFolder(self.path).is_saved

    @property
    def has_sae(self) -> bool:
        """Whether an SAE was used, as far as is recorded."""
        return self.provenance.get("sae", {}) is not None

    @property
    def units(self) -> dict[str, str]:
        """Metric → its unit, if the package knows it."""
        return units_of(self.provenance)

    @cached_property
    def tests_features(self) -> bool:
        """Whether every direction under test is a feature's."""
        own = candidates(self.summary)
        return "feature" not in own or bool(own["feature"].notna().to_numpy().all())

    @property
    def stale(self) -> list[str]:
        """Files in the folder that the report does not read, since they are of earlier configs."""
        return [name for name in RunFolder(self.path).stale() if name != REPORT]

    @property
    def misfits(self) -> list[str]:
        """What the SAE's audit found, which may explain everything else, and doubts of the
        selection."""
        found = may_not_fit(self.audit.get("failures") or [], self.audit.get("notes") or [])
        doubts = self.features.get("doubts")
        return [*found, *(map(str, doubts) if isinstance(doubts, list) else ())]

    @cached_property
    def sides(self) -> dict[str, str]:
        """Direction name → its side, for candidates that have one."""
        return direction_sides(self.features)

    @cached_property
    def label_texts(self) -> dict[str, str]:
        """Direction name → its label, for directions that have one."""
        texts = {f: one_line(own.get("interpretation")) for f, own in self.labels.items()}
        return {f"feature_{feature}": text for feature, text in texts.items() if text}

    @cached_property
    def text_metrics(self) -> list[str]:
        """Metrics of completions: stored with the texts, or missing for most directions."""
        beside = {key for record in self.completions[:100] for key in record}
        names, half = metric_names(self.summary), 0.5 * len(set(self.summary["direction"].dropna()))
        return [m for m in names if m in beside or len(largest_effect(self.summary, m)) < half]

    @cached_property
    def logit_metrics(self) -> list[str]:
        """Metrics measured for every direction."""
        return [m for m in metric_names(self.summary) if m not in self.text_metrics]


def read_run(folder: Path) -> RunTables:
    """Read a run folder, without its stale files.

    Raises InputError if it has no summary or a file is broken.
    """
    run = RunFolder(folder)
    if not run.current("interference.csv").is_file():
        raise InputError(f"{folder} has no current interference.csv: run the sweep there first")
    files = {f.name: f.metadata["read"](run) for f in fields(RunTables) if f.metadata}
    return RunTables(path=run.root, **files)


def side_names(features: Mapping[str, Any]) -> list[str]:
    """The names of the two sides that features.json gives, positive first."""
    return [str(features[key]) for key in ("positive", "negative") if features.get(key)]


def direction_sides(features: Mapping[str, Any]) -> dict[str, str]:
    """`feature_12` → the name of its side."""
    return {
        f"feature_{feature}": side
        for side in side_names(features)
        for feature in features.get(f"{side}_candidates", [])
    }


def claims_on(claims: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The claims on one metric that have a T, largest first."""
    if claims.empty:
        return claims
    own = claims.loc[claims["metric"] == metric].dropna(subset=["T"])
    return own.sort_values(by="T", ascending=False)


def with_texts(summary: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Rows with any of these metrics, for directions that have them at some α other than 0."""
    some = summary.dropna(subset=list(metrics), how="all")
    steered = some.loc[some["alpha"] != 0, "direction"]
    return some.loc[some["direction"].isin(list(steered))]


def metric_names(summary: pd.DataFrame) -> list[str]:
    """The columns M that come with an M_delta."""
    return [c for c in summary.columns if f"{c}_delta" in summary.columns]


def candidates(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of directions under test."""
    return summary.loc[summary["family"] == CANDIDATE]


def controls(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of control directions."""
    return summary.loc[summary["family"] != CANDIDATE]


def compared(summary: pd.DataFrame, claims: pd.DataFrame) -> pd.DataFrame:
    """Rows of the controls that the claims use; of all controls if the claims name no family."""
    own = controls(summary)
    named = list(claims["controls"].dropna().unique()) if "controls" in claims else []
    return own.loc[own["family"].isin(named)] if named else own


def control_counts(table: pd.DataFrame) -> tuple[dict[str, int], int, str]:
    """The number of controls per claim in each family, the number of sets of controls, and how the
    sets differ: in norms, or in the directions that they are matched to."""
    own = table.drop_duplicates(subset="direction")
    whose = set(own["matched_to"].dropna()) if "matched_to" in own else set()
    norms = sorted(own["matched_norm"].dropna()) if "matched_norm" in own else []
    n_norms = 1 + sum(after > before * (1 + 1e-5) for before, after in pairwise(norms))
    sets = len(whose) or n_norms
    counts = {name: n // sets for name, n in sorted(Counter(own["family"]).items())}
    return counts, sets, "directions" if whose else "norms"


def largest_effect(summary: pd.DataFrame, metric: str) -> pd.Series:
    """T of each measured direction: its largest |Δ| over the strengths."""
    sizes = summary[f"{metric}_delta"].abs()
    return pd.Series(sizes.groupby(summary["direction"]).max()).dropna()
