"""How the run was made: method, selection, controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelens_steer.evidence import matched_by
from saelens_steer.report.figures import scores_figure
from saelens_steer.report.markup import chart, render
from saelens_steer.report.run_folder import RunTables, controls, side_names
from saelens_steer.report.theme import decimals

QUALITY = {
    "l0": ("L0", "features active on a token, on average"),
    "l1": ("L1", "sum of the activations of a token's features, on average"),
    "explained_variance": (
        "Explained variance",
        "share of the activations' variance that the SAE rebuilds; 1 is perfect",
    ),
    "cosine": ("Cosine", "between an activation and what the SAE makes of it, on average"),
    "mse": ("Squared error", "squared distance of the two, summed over coordinates, on average"),
    "l2_ratio": ("Shrinkage", "norm of what the SAE makes of an activation over the norm it had"),
    "ce_loss": ("Loss, untouched", "next-token loss of the model as it is, in nats"),
    "ce_loss_sae": ("Loss, through the SAE", "the same with the activations replaced by the SAE's"),
    "ce_loss_zero": ("Loss, zeroed", "the same with the activations set to zero"),
    "loss_recovered": (
        "Loss recovered",
        "how far the SAE brings the loss from zeroed (0) back to untouched (1)",
    ),
    "kl_sae": ("KL, through the SAE", "from the untouched model's predictions, in nats"),
    "kl_zero": ("KL, zeroed", "the same with the activations set to zero"),
    "kl_recovered": ("KL recovered", "how much of that divergence the SAE undoes; 1 is all of it"),
    "dead_share": ("Dead features", "share of features that never fired on these tokens"),
    "dense_share": ("Dense features", "share of features that fire on over a tenth of the tokens"),
    "d_in": ("Width", "of the activations"),
    "d_sae": ("Features", "of the SAE"),
    "epochs": ("Epochs", "passes over the cached activations"),
    "stopped_early": ("Stopped early", "whether training ended because it no longer got better"),
    "n_tokens": ("Tokens", "so many tokens were measured"),
    "sinks_dropped": (
        "Sinks left out",
        "tokens with norms many times the median (attention sinks)",
    ),
}
"""Label and meaning of each number in quality.json."""
QUALITY_FIRST = (
    *("loss_recovered", "kl_recovered", "explained_variance", "cosine"),
    *("l0", "dead_share", "dense_share"),
)
"""The numbers that are shown without unfolding."""

FAMILIES = {
    "covariance": "drawn with the activations' own covariance, which moves the model further than "
    "directions drawn evenly and so is the harder test",
    "isotropic": "drawn evenly over all directions",
    "feature": "decoder rows of other features that fire about as often as those under test",
    "permuted": "the directions under test with their coordinates shuffled",
    "token_difference": "differences of the activations of two tokens, which the model itself "
    "tells apart: some are concepts, and so this is the strictest test",
}

CONTROLS = {
    "size": "Random directions scaled to the norm of the steered vector and applied at the same "
    "hook and positions.",
    "KL": "Random directions applied at the same hook and positions, as far as gives the same mean "
    "KL to the unsteered model as the steered vector does.",
}
"""What controls are, by the quantity in which they match the steered vector."""

METHOD = {
    "Steering": "At the hook, the residual x of every steered position becomes x + α · direction.",
    "Patching": "Other edits of x. Those of features encode x, change the activations z, and add "
    "the difference that makes to the decoded x (keep), or put the decoded x there instead (drop).",
    "Effect Δ": "The mean over prompts of a metric at α minus the same prompts' at α = 0. "
    "Intervals are 95 % bootstrap intervals over prompts.",
    "T": "A direction's largest |Δ| over the strengths. Taking the largest makes it easy to find "
    "something, so each control is given the same chance.",
    "p": "(1 + the number of controls whose T is at least as large) / (K + 1), with K controls. It "
    "cannot be smaller than 1 / (K + 1).",
    "p for the best": "In the headline: how often the best of as many random directions would "
    "reach as far as the best candidate did.",
    "q": "p after the Benjamini–Hochberg correction over the directions of this report: among "
    "claims with q < 0.05, no more than about one in twenty is expected to be false.",
    "Opposite sign": "The share of prompts on which Δ points against the mean effect.",
    "Verdict": "“More than random” means q < 0.05. “Not testable” means that K is too small for "
    "any p to count: claims about m directions take at least 20 · m controls.",
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
    """What T, p, q, the controls and the verdicts mean."""
    names = sorted(set(controls(run.summary)["family"]))
    families = [f"{name}: {FAMILIES[name]}" for name in names if name in FAMILIES]
    here = f" Here, {'; '.join(families)}." if families else ""
    rows = list(METHOD.items())
    rows[4:4] = [("Controls", CONTROLS[matched_by(run.summary)] + here)]
    return render("method.html", rows=rows)
