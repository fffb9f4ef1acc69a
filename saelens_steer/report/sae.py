"""The page's section on the SAE: whether it is any good, and how its training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saelens_steer.report.markup import Cell, details, esc, figure, note, section, table
from saelens_steer.report.run_folder import Run
from saelens_steer.report.sae_figures import (
    CURVE_LABELS,
    CURVES,
    density_figure,
    frontier_figure,
    training_figure,
)
from saelens_steer.report.theme import decimals, name_label, number, short
from saelens_steer.report.words import QUALITY, QUALITY_FIRST

HELD_OUT = (
    "Solid: what it was trained on. Dotted: activations held out. The loss in training may hold a "
    "term that revives dead features, which the other has not."
)


def sae_section(run: Run) -> str:
    """How good the SAE is, how often its features fire, how its training and its grid went."""
    parts = [_verdict(run.quality), _quality(run.quality), _density(run.quality)]
    parts += [_training(run), _frontier(run)]
    lead = (
        "Steering with a feature means no more than the SAE it comes from: here is how well that "
        "SAE rebuilds the model's activations."
    )
    return section("sae", "The SAE", lead, *parts)


def _verdict(quality: Mapping[str, Any]) -> str:
    if not quality.get("verdict"):
        return ""
    items = "".join(f"<li>{esc(text)}</li>" for text in quality.get("warnings") or [])
    more = f"<ul>{items}</ul>" if items else ""
    return f'<p class="verdict"><b>{esc(quality["verdict"])}</b></p>{more}'


def _quality(quality: Mapping[str, Any]) -> str:
    numbers = {k: v for k, v in quality.items() if isinstance(v, int | float)}
    if not numbers:
        return note("Its quality was not measured in this run.")
    first = [k for k in QUALITY_FIRST if k in numbers]
    known = sorted(numbers, key=lambda k: list(QUALITY).index(k) if k in QUALITY else 99)
    rest = [k for k in known if k not in first]
    more = details(f"All {len(numbers)} figures", _figures(numbers, rest)) if rest else ""
    return _figures(numbers, first) + more


def _figures(numbers: Mapping[str, int | float], names: Sequence[str]) -> str:
    known = {name: QUALITY.get(name, (name_label(name), "")) for name in names}
    rows = [
        [
            Cell(f"<b>{esc(known[name][0])}</b>"),
            Cell(esc(_measured(numbers[name])), float(numbers[name])),
            Cell(esc(known[name][1])),
        ]
        for name in names
    ]
    return table("Quality of the SAE", ["Measure", "Value", "What it says"], rows, sort=False)


def _measured(value: int | float) -> str:
    """About three digits, and counts in full."""
    return short(value) if float(value).is_integer() else number(value, decimals([value]))


def _density(quality: Mapping[str, Any]) -> str:
    if not sum((quality.get("density") or {}).get("counts", [])):
        return ""
    caption = (
        "On the tokens that the figures above were measured on; dead features are left out. Those "
        "on the left are rare, those far to the right fire too often to stand for one thing."
    )
    return figure("density", density_figure(quality), caption)


def _training(run: Run) -> str:
    if run.training.empty:
        return note("The SAE was loaded, not trained in this run: there is no training curve.")
    columns = [c for c in CURVES if c in run.training.columns]
    held_out = any(f"held_out_{c}" in run.training.columns for c in columns)
    grid = "".join(_curve(run, column) for column in columns)
    legend = note(HELD_OUT) if held_out else ""
    return f'<div class="grid">{grid}</div>{legend}'


def _curve(run: Run, column: str) -> str:
    plot = training_figure(run.training, [column])
    plot.layout.annotations = ()
    plot.update_layout(height=236, margin={"l": 48, "r": 14, "b": 48})
    title = CURVE_LABELS[column]
    drawn = figure(f"training-{column}", plot, alt=f"{title} against training tokens")
    return f"<div><h3>{esc(title)}</h3>{drawn}</div>"


def _frontier(run: Run) -> str:
    if run.grid.empty:
        return ""
    caption = (
        f"{len(run.grid)} SAEs trained on the same activations. Up and to the left is better: more "
        "of the model is left with fewer features active."
    )
    return f"<h3>The grid</h3>{figure('frontier', frontier_figure(run.grid), caption)}"
