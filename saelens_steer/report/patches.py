"""Patched outputs beside the original ones: numbers per variant, then the texts."""

from __future__ import annotations

from typing import Any

import pandas as pd

from saelens_steer.report.completions import segments
from saelens_steer.report.markup import Cell, details, esc, section, table
from saelens_steer.report.run_folder import Run
from saelens_steer.report.theme import decimals, name_label, number, short

ORIGINAL = "original"
SHOWN, OPEN = 40, 2
"""So many prompts are put in the page, and so many of them unfolded."""


def patches_section(run: Run) -> str:
    """What each variant of the model writes and by how much its logits moved; empty without any."""
    if run.patches.empty:
        return ""
    lead = (
        "The same prompts through the model as it is and through each variant of it. These texts "
        "are examples; whether an effect is more than random is what the claims say."
    )
    prompts = list(dict.fromkeys(run.patches["prompt_id"]))
    shown = [_prompt(run.patches, p, i < OPEN) for i, p in enumerate(prompts[:SHOWN])]
    more = len(prompts) - len(shown)
    rest = f'<p class="note">{more} more prompts are in patch.csv.</p>' if more else ""
    return section("patches", "Patched outputs", lead, _summary(run), *shown, rest)


def _summary(run: Run) -> str:
    patches: Any = run.patches
    metrics = [m for m in run.patch_metrics if patches[m].notna().any()]
    places = {m: decimals([*patches.groupby("variant")[m].mean()]) for m in metrics}
    headers = ["Variant", "Texts changed", "‖Δx‖/‖x‖", "Feature activation"]
    groups = [(name, rows) for name, rows in patches.groupby("variant", sort=False)]
    original = groups[0][1]
    rows = [
        [*_about(str(name), own, original), *(_mean(own, m, original, places[m]) for m in metrics)]
        for name, own in groups
    ]
    return table("Variants", [*headers, *map(name_label, metrics)], rows, sort=False)


def _about(name: str, own: Any, original: Any) -> list[Cell]:
    texts = own["completion"].fillna("").to_numpy() != original["completion"].fillna("").to_numpy()
    changed = int(texts.sum())
    before, after = own["receipt_act_before"].mean(), own["receipt_act"].mean()
    acts = "–" if pd.isna(before) else f"{number(before, 2)} → {number(after, 2)}"
    norm = float(own["receipt_rel_norm"].mean())
    edits = "" if name == ORIGINAL else str(own["edits"].iloc[0])
    return [
        Cell(
            f"<b>{esc(name)}</b>" + (f"<small><code>{esc(edits)}</code></small>" if edits else "")
        ),
        Cell(f"{changed} of {len(own)}" if edits else "–", float(changed)),
        Cell(number(norm, 3), norm),
        Cell(acts, float(after)),
    ]


def _mean(own: Any, metric: str, original: Any, places: int) -> Cell:
    value = float(own[metric].mean())
    if own is original:
        return Cell(number(value, places), value)
    delta = value - float(original[metric].mean())
    return Cell(
        f"{number(value, places)} <small>({number(delta, places, signed=True)})</small>", value
    )


def _prompt(patches: Any, prompt_id: str, opened: bool) -> str:
    own = patches[patches["prompt_id"] == prompt_id].to_dict("records")
    text = str(own[0]["prompt"])
    line = " ".join(text.split())
    brief = line if len(line) <= 100 else line[:99] + "…"
    panes = "".join(_pane(row, _said(own[0])) for row in own)
    asked = f"<blockquote>{esc(text)}</blockquote>"
    return details(brief, f'{asked}<div class="panes many">{panes}</div>', opened)


def _said(row: dict[str, Any]) -> str:
    """The completion; an empty one is missing in a CSV."""
    return "" if pd.isna(row["completion"]) else str(row["completion"])


def _pane(row: dict[str, Any], original: str) -> str:
    text = _said(row)
    same = row["variant"] != ORIGINAL and text == original
    cut = ", cut at the token limit" if row["truncated"] else ""
    under = f"{short(int(row['n_tokens']))} tokens{cut}{'; as the original' if same else ''}"
    return (
        f'<div class="pane"><h3>{esc(row["variant"])}</h3>{_body(text)}'
        f'<p class="note">{esc(under)}</p></div>'
    )


def _body(text: str) -> str:
    """Text with its code blocks set apart."""
    kinds = {"code": "<pre><code>{}</code></pre>", "text": '<p class="said">{}</p>'}
    return (
        "".join(kinds[kind].format(esc(part)) for kind, part in segments(text)) or "<p>(empty)</p>"
    )
