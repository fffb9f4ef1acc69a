"""What was run and how: selection, provenance, definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelens_steer.evidence import PUSHES, edit_of, matched_by
from saelens_steer.features import PLACES
from saelens_steer.numbers import decimals
from saelens_steer.report.figures import scores_figure
from saelens_steer.report.markup import chart, render
from saelens_steer.report.run_folder import RunTables, controls, side_names


def selection_section(run: RunTables) -> str:
    """The candidates, and the scores that chose them; empty if none were chosen."""
    if not (sides := side_names(run.features)):
        return ""
    scores = run.features.get("scores", {})
    columns = list(dict.fromkeys(key for own in scores.values() for key in own))
    return render(
        "selection.html",
        sides=sides,
        reference=run.features.get("reference"),
        at=PLACES.get(str(run.features.get("at", "")), ""),
        chart=chart("scores", scores_figure(run.features)) if scores else None,
        places={c: decimals(own.get(c) or 0 for own in scores.values()) for c in columns},
        rows=[
            (d, side, scores.get(d.removeprefix("feature_"), {})) for d, side in run.sides.items()
        ],
    )


def run_section(run: RunTables) -> str:
    """Config, versions, seeds, hashes and token sets."""
    rest = dict(run.provenance)
    token_sets = rest.pop("token_sets", None) or {}
    versions = {key: rest.pop(key) for key in ("saelens_steer", "python") if key in rest}
    versions |= rest.pop("packages", None) or {}
    sets = [(n, _token_set(own)) for n, own in token_sets.items() if isinstance(own, Mapping)]
    inputs = "Model, SAE, prompts, seeds" if run.has_sae else "Model, prompts, seeds"
    rest = rest if run.has_sae else {k: v for k, v in rest.items() if k != "sae"}
    listed = {"Versions": _flat(versions), inputs: _flat(rest)}
    about = {"config": run.config, "saved": run.is_saved, "stale": run.stale}
    return render("run.html", **about, token_sets=sets, listed=listed)


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys joined by dots, and their values."""
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        found += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return found


def _token_set(own: Mapping[str, Any], limit: int = 60) -> dict[str, Any]:
    target = [str(token) for token in own.get("target", [])]
    return {
        "shown": target[:limit],
        "more": max(0, len(target) - limit),
        "n_target": own.get("n_target", len(target)),
        "n_other": own.get("n_other"),
        "n_excluding": own.get("n_excluding"),
    }


def method_section(run: RunTables) -> str:
    """Definitions of T, p, q, the controls and the verdicts."""
    edit = edit_of(run.summary)
    return render(
        "method.html",
        edit="" if edit in PUSHES else edit,
        matched_by=matched_by(run.summary),
        names=sorted(set(controls(run.summary)["family"])),
    )
