"""What was run and how: selection, provenance, definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelens_steer.evidence import PUSHES, edit_of, matched_by
from saelens_steer.report.figures import scores_figure
from saelens_steer.report.markup import chart, render
from saelens_steer.report.run_folder import RunTables, controls, side_names
from saelens_steer.report.theme import decimals

FAMILIES = {
    "covariance": "drawn with the covariance of the activations; they move the model further than "
    "isotropic directions, which makes for a harder test",
    "isotropic": "drawn uniformly over all directions",
    "feature": "decoder rows of other features that fire about as often as the candidates",
    "permuted": "the candidates' directions with shuffled coordinates",
    "token_difference": "differences between the activations of two tokens, which the model itself "
    "distinguishes; some are concepts, which makes this the strictest test",
}
"""How the controls of each family are drawn."""

CONTROLS = {
    "size": "Random directions scaled to the norm of the steered vector and applied at the same "
    "hook and positions.",
    "‖Δx‖": "Random directions at the same hook and positions. At each token, a control moves the "
    "activation as far as the candidate's own edit does there.",
    "KL": "Random directions applied at the same hook and positions, scaled until their mean KL to "
    "the unsteered model equals that of the steered vector.",
}
"""What controls are, by the quantity in which they match the steered vector."""

STRENGTH = (
    "α is the size of a push, the factor of scale minus 1, or the value that set_to gives the "
    "feature. Edits without a strength have α = 1. α = 0 is the unsteered model."
)
METHOD = {
    "Steering": "At the hook, the residual x of every steered position becomes x + α · direction.",
    "Patching": "Other edits of x. Feature edits encode x, change the activations z and decode. "
    "They either add the resulting change to x (keep) or replace x by the decoded vector (drop).",
    "Effect Δ": "A metric's mean over prompts at α minus its mean over the same prompts at α = 0. "
    "Intervals are 95 % bootstrap intervals over prompts.",
    "T": "A direction's largest |Δ| over the strengths. Taking the maximum favours large values, "
    "so T of each control is the same maximum.",
    "p": "(1 + the number of controls whose T is at least as large) / (K + 1), with K controls. It "
    "cannot be smaller than 1 / (K + 1).",
    "p for the best": "In the headline: how often the best of an equal number of random directions "
    "reaches the T of the best candidate.",
    "q": "p after Benjamini–Hochberg correction over the directions of this report: among claims "
    "with q < 0.05, no more than about one in twenty is expected to be false.",
    "Opposite sign": "The share of prompts on which Δ has the opposite sign to the mean effect.",
    "Verdict": "“More than random” means q < 0.05. “Not testable” means that K is too small for "
    "any p to reach significance: claims about m directions need at least 20 · m controls.",
}
"""Definitions; `method_section` puts that of the controls before p."""


def selection_section(run: RunTables) -> str:
    """The candidates, and the scores that chose them."""
    scores = run.features.get("scores", {})
    columns = list(dict.fromkeys(key for own in scores.values() for key in own))
    return render(
        "selection.html",
        sides=side_names(run.features),
        at=str(run.features.get("at", "")).replace("_", " "),
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
    listed = {"Versions": _flat(versions), "Model, SAE, prompts, seeds": _flat(rest)}
    return render("run.html", config=run.config, token_sets=sets, listed=listed)


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
    }


def method_section(run: RunTables) -> str:
    """Definitions of T, p, q, the controls and the verdicts."""
    names = sorted(set(controls(run.summary)["family"]))
    families = [f"{name}: {FAMILIES[name]}" for name in names if name in FAMILIES]
    here = f" Here, {'; '.join(families)}." if families else ""
    rows = list(METHOD.items())
    if (edit := edit_of(run.summary)) not in PUSHES:
        rows[0] = (
            "Steering",
            f"At the hook, {edit} is applied at every steered position. {STRENGTH}",
        )
    rows[4:4] = [("Controls", CONTROLS[matched_by(run.summary)] + here)]
    return render("method.html", rows=rows)
