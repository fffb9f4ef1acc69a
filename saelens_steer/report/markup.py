"""HTML: escaping, sections, tables, figures and the frame of a page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
"""How JSON writes what could end or open a script block."""


@dataclass(frozen=True)
class TableCell:
    """A table cell: its HTML, and the value by which its column sorts (numbers align right)."""

    html: str
    value: float | str | None = None

    @property
    def is_number(self) -> bool:
        return not isinstance(self.value, str | None)

    def __str__(self) -> str:
        if self.is_number:
            return f'<td class="num" data-value="{self.value!r}">{self.html}</td>'
        order = "" if self.value is None else f' data-value="{esc(self.value)}"'
        return f"<td{order}>{self.html}</td>"


def name_cell(name: str) -> TableCell:
    """The name of what a row is about."""
    return TableCell(f"<b>{esc(name)}</b>", name)


def feature_link(feature: int) -> TableCell:
    """The name of a feature as a link to its page."""
    name = f"feature {feature}"
    return TableCell(f'<a href="#f{feature}"><b>{name}</b></a>', name)


def number_cell(value: Any, text: str, missing: float = -1.0) -> TableCell:
    """A number as `text`, HTML; anything but a finite number sorts as `missing`."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return TableCell(text, float(value) if known else missing)


def with_interval(value: str, low: str, high: str) -> str:
    """A value with its interval in small type."""
    return f"{value} <small>[{low}, {high}]</small>"


def esc(value: Any) -> str:
    """Any value as text that is safe in HTML, attributes included."""
    return html.escape(str(value), quote=True)


def script_json(name: str, data: Any) -> str:
    """Data, or its JSON, as an inert block for the page's script."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, allow_nan=False)
    return f'<script type="application/json" id="{esc(name)}">{text.translate(_UNSAFE)}</script>'


def section(name: str, title: str, lead: str, *body: str) -> str:
    """A section with a heading, a line of plain text, and ready HTML below."""
    text = f'<p class="lead">{esc(lead)}</p>' if lead else ""
    return f'<section id="{esc(name)}"><h2>{esc(title)}</h2>{text}{"".join(body)}</section>'


def note(text: str) -> str:
    """A quiet line of plain text."""
    return f'<p class="note">{esc(text)}</p>'


def details(title: str, body: str, opened: bool = False) -> str:
    """A part of the page that unfolds; body is HTML."""
    return f"<details{' open' if opened else ''}><summary>{esc(title)}</summary>{body}</details>"


def badge(text: str, kind: str, more: str = "") -> str:
    """A small label; kind is one of good, bad, warn, quiet; more is shown on hover."""
    title = f' title="{esc(more)}"' if more else ""
    return f'<span class="badge {kind}"{title}>{esc(text)}</span>'


def chips(texts: Sequence[str]) -> str:
    """Short literal strings, one box each."""
    return " ".join(f"<code>{esc(text)}</code>" for text in texts)


def table(
    label: str, headers: Sequence[str], rows: Sequence[Sequence[TableCell]], sort: bool = True
) -> str:
    """A table whose columns the page's script makes sortable; label is read by screen readers."""
    kinds = (
        [" class=num" if cell.is_number else "" for cell in rows[0]]
        if rows
        else [""] * len(headers)
    )
    head = "".join(
        f'<th scope="col"{kind}>{esc(text)}</th>' for text, kind in zip(headers, kinds, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(str, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{esc(label)}" tabindex="0">'
        f"<table class={'sortable' if sort else 'stack'}><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def pairs(rows: Sequence[tuple[str, str]], kind: str) -> str:
    """A list of terms and their HTML."""
    inner = "".join(f"<div><dt>{esc(term)}</dt><dd>{value}</dd></div>" for term, value in rows)
    return f'<dl class="{kind}">{inner}</dl>'


def figure(name: str, plot: go.Figure, caption: str = "") -> str:
    """A plotly figure with its caption; its title is read by screen readers only."""
    drawn = go.Figure(plot)
    layout: Any = drawn.layout
    title = str(layout.title.text or "")
    drawn.update_layout(title_text=None, margin_t=40 if layout.annotations else 24)
    text = f"<figcaption>{esc(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="plot"><div class="chart" id="{esc(name)}" role="img" '
        f'aria-label="{esc(html.unescape(title))}" style="height:{layout.height:.0f}px"></div>'
        f"{text}{script_json(f'{name}-data', drawn.to_json())}</figure>"
    )


def shell(
    sections: str,
    *,
    title: str,
    eyebrow: str,
    headline: str,
    how: str,
    facts: str = "",
    warnings: str = "",
    links: str = "",
    scripts: bool = True,
) -> str:
    """A whole page. title, eyebrow and headline are plain text, the others ready HTML.

    Without `scripts` it draws no figures, and is small enough to be shown inside another page.
    """
    here = files("saelens_steer.report")
    text = Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=esc(title),
        style=(here / "style.css").read_text(encoding="utf-8"),
        eyebrow=esc(eyebrow),
        headline=esc(headline),
        how=how,
        facts=facts,
        warnings=warnings,
        links=links,
        sections=sections,
        plotly=get_plotlyjs() if scripts else "",
        script=(here / "page.js").read_text(encoding="utf-8") if scripts else "",
    )
    return text.encode("utf-8", "replace").decode("utf-8")
