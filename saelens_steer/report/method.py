"""How the run was made: method, selection, controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelens_steer.evidence import matched_by
from saelens_steer.report.figures import scores_figure
from saelens_steer.report.markup import (
    TableCell,
    chips,
    details,
    esc,
    figure,
    note,
    pairs,
    section,
    table,
)
from saelens_steer.report.run_folder import RunTables, controls, side_names
from saelens_steer.report.theme import decimals, name_label, number, short

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
    "epochs": ("Epochs", "so many times the cached activations were gone over"),
    "stopped_early": ("Stopped early", "whether training ended because it no longer got better"),
    "n_tokens": ("Tokens", "so many tokens were measured"),
    "sinks_dropped": (
        "Sinks left out",
        "tokens with norms many times the median (attention sinks)",
    ),
}
"""Label and meaning of each number that the SAE room may write."""
QUALITY_FIRST = (
    *("loss_recovered", "kl_recovered", "explained_variance", "cosine"),
    *("l0", "dead_share", "dense_share"),
)
"""Those that are shown at once."""

FAMILIES = {
    "covariance": "drawn with the activations' own covariance, which moves the model further than "
    "directions drawn evenly and so is the harder test",
    "isotropic": "drawn evenly over all directions",
    "feature": "decoder rows of other features that fire about as often as those under test",
    "permuted": "the directions under test with their coordinates shuffled",
    "token_difference": "differences of the activations of two tokens, which the model itself "
    "tells apart: some are concepts, and so this is the strictest test",
}
"""What each family of controls is."""

CONTROLS = {
    "size": "Random directions scaled to the norm of the steered vector and applied at the same "
    "hook and positions.",
    "KL": "Random directions applied at the same hook and positions, as far as gives the same mean "
    "KL to the unsteered model as the steered vector does.",
}
"""What controls are, by what they have in common with what they are compared with."""

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
"""Definitions; that of the controls is put in as the fifth."""


def selection_section(run: RunTables) -> str:
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


def _scores_table(run: RunTables) -> str:
    scores = run.features.get("scores", {})
    columns = list(dict.fromkeys(k for own in scores.values() for k in own))
    places = {c: decimals(own.get(c) or 0 for own in scores.values()) for c in columns}
    rows = []
    for direction, side in run.sides.items():
        own = scores.get(direction.removeprefix("feature_"), {})
        name = direction.replace("_", " ")
        numbers = [
            TableCell(number(own.get(c), places[c]), float(own.get(c) or 0)) for c in columns
        ]
        rows.append([TableCell(f"<b>{esc(name)}</b>", name), TableCell(esc(side), side), *numbers])
    headers = ["Feature", "Side", *(name_label(c) for c in columns)]
    return details(
        f"All scores of the {len(rows)} candidates", table("Selection scores", headers, rows)
    )


def run_section(run: RunTables) -> str:
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


def _families(run: RunTables) -> str:
    """What the families of controls in this run are."""
    names = sorted(set(controls(run.summary)["family"]))
    known = [f"{name}: {FAMILIES[name]}" for name in names if name in FAMILIES]
    return f" Here, {'; '.join(known)}." if known else ""


def method_section(run: RunTables) -> str:
    """What T, p, q, the controls and the verdicts mean."""
    rows = [(term, esc(text)) for term, text in METHOD.items()]
    rows[4:4] = [("Controls", esc(CONTROLS[matched_by(run.summary)] + _families(run)))]
    return section("method", "What the words mean", "", pairs(rows, "method"))
