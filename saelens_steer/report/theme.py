"""The look of names and figures: one palette, one figure template."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from saelens_steer.numbers import number

SIDE_COLOURS = ("#0072B2", "#D55E00", "#009E73")
"""Positive side, negative side, neither (Okabe and Ito: safe for colour-blind readers)."""
SHADES = (
    ("#0072B2", "#56B4E9", "#004166"),
    ("#D55E00", "#E69F00", "#7A3600"),
    ("#009E73", "#66C2A5", "#00533C"),
)
"""Colours of the first, second and third line of each side."""
COLOURS = tuple(shade for shades in zip(*SHADES, strict=True) for shade in shades)
"""Nine colours for lines or points without a side; neighbours differ most."""
NULL = "#8B939C"
INK, MUTED, RULE = "#1C2127", "#5B6570", "#E4E7EB"
BAND_OUTER, BAND_INNER, BAND_LINE = "#EEF0F3", "#D5DAE0", "#6B7682"
FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif"
)
SPELLING = {"kl": "KL", "ce": "CE", "mse": "MSE", "sae": "SAE", "l0": "L0", "auroc": "AUROC"}
SPELLING |= {"latex": "LaTeX", "json": "JSON", "html": "HTML", "sql": "SQL", "python": "Python"}

IN_WORDS = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
"""Names that read as words."""

_HIDDEN = dict.fromkeys(
    code
    for ends in ((0, 9), (11, 13), (14, 32), (127, 160), (0x202A, 0x202F), (0x2066, 0x206A))
    for code in range(*ends)
)
"""Control characters, and those that change the writing direction of their neighbours."""

_CONTROL = {i: chr(0x2400 + i) for i in range(32) if chr(i) not in "\n\t"} | {127: "\u2421"}
"""Control characters are shown as their Unicode pictures."""

_AXIS = {
    "gridcolor": RULE,
    "linecolor": "#C6CCD3",
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": "#C6CCD3",
    "ticklen": 4,
    "title": {"font": {"size": 13, "color": MUTED}, "standoff": 10},
    "tickfont": {"color": MUTED},
    "automargin": True,
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "separators": ".,",
        "title": {"font": {"size": 17}, "x": 0, "xref": "paper", "xanchor": "left", "y": 1}
        | {"yanchor": "top", "pad": {"t": 18}},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "margin": {"l": 64, "r": 24, "t": 112, "b": 56},
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "bgcolor": "white", "align": "left"},
        "legend": {"font": {"size": 12.5, "color": INK}, "itemsizing": "constant"}
        | {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
    }
)


def name_label(name: str) -> str:
    """`latex_valid_present` → `LaTeX valid (where present)`; other names as they are.

    No two names have one label: a name that is another's label is in quotes.
    """
    twin = re.sub(r"\s", "_", name.lower().replace(" (where present)", "_present"))
    if IN_WORDS.fullmatch(name):
        return _spelled(name)
    taken = name.startswith("“") or (IN_WORDS.fullmatch(twin) and _spelled(twin) == name)
    return f"“{name}”" if taken else name


def _spelled(name: str) -> str:
    stem = name.removesuffix("_present")
    text = " ".join(SPELLING.get(word, word) for word in stem.split("_"))
    return text[0].upper() + text[1:] + (" (where present)" if stem != name else "")


def clean(text: Any) -> str:
    """Foreign text without invisible characters; empty for None."""
    return str(text or "").translate(_HIDDEN).encode("utf-8", "replace").decode("utf-8")


def one_line(text: Any) -> str:
    """Foreign text on one line."""
    return " ".join(clean(text).split())


def quoted(label: str, most: int = 60) -> str:
    """A feature's label in quotes, cut after `most` characters; empty if the label is."""
    if len(label) > most:
        kept = label[: most - 1]
        words = kept.rpartition(" ")[0]
        label = (words if len(words) > most // 2 else kept) + "…"
    return f"“{label}”" if label else ""


def token_text(text: str) -> str:
    """A token on one line, with symbols for newlines, tabs and outer spaces."""
    marked = text.translate(_CONTROL).replace("\n", "↵").replace("\t", "⇥")
    return marked if marked.strip(" ") == marked and marked else marked.replace(" ", "␣") or "␀"


def running_text(text: str) -> str:
    """Text inside a context: each newline is marked, and a run of newlines breaks the line once."""
    parts = text.translate(_CONTROL).split("\n")
    ends = "".join(f"{part}↵" if part else "↵" for part in parts[:-1])
    return f"{ends}\n{parts[-1]}" if ends else parts[-1]


def units_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Metric → its unit, for those that come with the package; `token_sets` lists margins and
    log-probabilities."""
    sets = provenance.get("token_sets") or {}
    units = {name: "logits" if "n_other" in own else "nats" for name, own in sets.items()}
    return {"kl": "nats"} | units


def with_unit(text: str, unit: str) -> str:
    """Text, followed by the unit of its metric if there is one."""
    return f"{text} ({unit})" if unit else text


def axis_label(text: str, unit: str) -> str:
    """Text with the unit, safe as plotly text."""
    return plain(with_unit(text, unit))


def alpha_label(unit: str) -> str:
    """The axis title for strengths in `unit`."""
    known = {
        "raw": "multiples of the direction",
        "unit": "multiples of the unit vector",
        "max_act": "multiples of A_max(f)·W_dec[f]",
        "resid_norm": "multiples of the mean ‖x‖",
        "kl": "mean KL from the unsteered model, in nats",
    }
    return f"Steering strength α ({known.get(unit, unit)})" if unit else "Steering strength α"


def plain(text: Any) -> str:
    """Text with plotly's own markup escaped."""
    return html.escape(str(text), quote=False)


def estimate(row: Any, name: str, places: int, signed: bool = False) -> list[str]:
    """A row's `name` and the ends of its 95 % interval, as text."""
    return [number(row[f"{name}{end}"], places, signed) for end in ("", "_ci_low", "_ci_high")]


def base(figure: go.Figure, title: str, height: int) -> go.Figure:
    """The figure with the shared template, a title and a height in pixels."""
    return figure.update_layout(template=TEMPLATE, title_text=plain(title), height=height)


def panels(titles: Sequence[str], title: str) -> go.Figure:
    """Small panels, up to three in a row."""
    rows = max(1, -(-len(titles) // 3))
    figure = make_subplots(
        rows=rows,
        cols=max(1, min(3, len(titles))),
        subplot_titles=[plain(t) for t in titles],
        horizontal_spacing=0.09,
        vertical_spacing=0.34 / rows,
    )
    figure.update_annotations(font={"size": 13.5, "color": INK})
    return base(figure, title, 140 + 250 * rows).update_layout(margin_t=84)


def legend_key(name: str, **marker: Any) -> go.Scatter:
    """A marker that appears only in the legend."""
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=plain(name))
