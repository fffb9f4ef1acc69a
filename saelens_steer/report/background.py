"""The page's second half: the selection, what was run, and what the words mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelens_steer.evidence import matched_by
from saelens_steer.report.figures import scores_figure
from saelens_steer.report.markup import (
    Cell,
    chips,
    details,
    esc,
    figure,
    note,
    pairs,
    section,
    table,
)
from saelens_steer.report.run_folder import Run, controls, side_names
from saelens_steer.report.theme import decimals, name_label, number, short
from saelens_steer.report.words import CONTROLS, FAMILIES, METHOD


def selection_section(run: Run) -> str:
    """The candidates, and the scores that chose them."""
    sides = side_names(run.features)
    if not sides:
        return section(
            "selection", "Selection", "", note("This run selected no features: they were given.")
        )
    at = str(run.features.get("at", "")).replace("_", " ")
    lead = (
        f"Features that tell {' from '.join(sides)} apart{f' at the {at}' if at else ''}, "
        "on prompts that are not used to measure effects."
    )
    plot = figure("scores", scores_figure(run.features)) if run.features.get("scores") else ""
    return section("selection", "Selection", lead, plot, _scores_table(run))


def _scores_table(run: Run) -> str:
    scores = run.features.get("scores", {})
    columns = list(dict.fromkeys(k for own in scores.values() for k in own))
    places = {c: decimals(own.get(c) or 0 for own in scores.values()) for c in columns}
    rows = []
    for direction, side in run.sides.items():
        own = scores.get(direction.removeprefix("feature_"), {})
        name = direction.replace("_", " ")
        numbers = [Cell(number(own.get(c), places[c]), float(own.get(c) or 0)) for c in columns]
        rows.append([Cell(f"<b>{esc(name)}</b>", name), Cell(esc(side), side), *numbers])
    headers = ["Feature", "Side", *(name_label(c) for c in columns)]
    return details(
        f"All scores of the {len(rows)} candidates", table("Selection scores", headers, rows)
    )


def run_section(run: Run) -> str:
    """Config, versions, seeds, hashes and token sets."""
    about = run.provenance
    parts = [_config(run.config), _token_sets(about.get("token_sets") or {})]
    versions = {k: about[k] for k in ("saelens_steer", "python") if k in about} | (
        about.get("packages") or {}
    )
    rest = {
        k: v
        for k, v in about.items()
        if k not in ("saelens_steer", "python", "packages", "token_sets")
    }
    parts += [_mapping("Versions", versions), _mapping("Model, SAE, prompts, seeds", rest)]
    body = "".join(parts) or note("This run has no config.yaml and no provenance.json.")
    return section("run", "What was run", "Enough to run it again.", body)


def _config(text: str) -> str:
    return details("Config (YAML)", f'<pre tabindex="0">{esc(text)}</pre>') if text else ""


def _mapping(title: str, data: Mapping[str, Any]) -> str:
    rows = [(key, f"<code>{esc(value)}</code>") for key, value in _flat(data)]
    return details(title, pairs(rows, "plain")) if rows else ""


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys joined by dots."""
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        found += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return found


def _token_sets(sets: Mapping[str, Any]) -> str:
    rows = [
        (name_label(name), _token_set(own))
        for name, own in sets.items()
        if isinstance(own, Mapping)
    ]
    return details("Token sets", pairs(rows, "plain")) if rows else ""


def _token_set(own: Mapping[str, Any], limit: int = 60) -> str:
    target = [str(t) for t in own.get("target", [])]
    more = f" and {len(target) - limit} more" if len(target) > limit else ""
    against = f", against {short(own['n_other'])} other tokens" if "n_other" in own else ""
    n = short(own.get("n_target", len(target)))
    return f"{chips(target[:limit])}{esc(more)} <small>({esc(n)} tokens{esc(against)})</small>"


def _families(run: Run) -> str:
    """What the families of controls in this run are."""
    names = sorted(set(controls(run.summary)["family"]))
    known = [f"{name}: {FAMILIES[name]}" for name in names if name in FAMILIES]
    return f" Here, {'; '.join(known)}." if known else ""


def method_section(run: Run) -> str:
    """What T, p, q, the controls and the verdicts mean."""
    rows = [(term, esc(text)) for term, text in METHOD.items()]
    rows[4:4] = [("Controls", esc(CONTROLS[matched_by(run.summary)] + _families(run)))]
    return section("method", "What the words mean", "", pairs(rows, "method"))
