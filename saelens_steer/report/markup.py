"""HTML: escaping, sections, tables and the shell of a page."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class TableCell:
    """A table cell: its HTML, and the value by which its column sorts (numbers align right)."""

    html: str
    value: float | str | None = None

    def __str__(self) -> str:
        if isinstance(self.value, str) or self.value is None:
            order = "" if self.value is None else f' data-value="{esc(self.value)}"'
            return f"<td{order}>{self.html}</td>"
        return f'<td class="num" data-value="{self.value!r}">{self.html}</td>'


def esc(value: Any) -> str:
    """Any value as text that is safe in HTML, attributes included."""
    return html.escape(str(value), quote=True)


def safe_json(text: str) -> str:
    """JSON text that cannot end or open a script block."""
    return "".join(_UNSAFE.get(character, character) for character in text)


def script_json(name: str, data: Any) -> str:
    """Data for the page's script, as an inert block."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, allow_nan=False)
    return f'<script type="application/json" id="{esc(name)}">{safe_json(text)}</script>'


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
    kind = "sortable" if sort else "stack"
    numeric = [i for i, cell in enumerate(rows[0]) if 'class="num"' in str(cell)] if rows else []
    head = "".join(
        f'<th scope="col"{" class=num" if i in numeric else ""}>{esc(h)}</th>'
        for i, h in enumerate(headers)
    )
    body = "".join(f"<tr>{''.join(map(str, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{esc(label)}" tabindex="0">'
        f"<table class={kind}><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def pairs(rows: Sequence[tuple[str, str]], kind: str) -> str:
    """A list of terms and their HTML."""
    inner = "".join(f"<div><dt>{esc(term)}</dt><dd>{value}</dd></div>" for term, value in rows)
    return f'<dl class="{kind}">{inner}</dl>'


def figure(name: str, plot: go.Figure, caption: str = "", alt: str = "") -> str:
    """A plotly figure with its caption; the page's script draws it."""
    drawn = go.Figure(plot)
    layout: Any = drawn.layout
    title = str(layout.title.text or "")
    drawn.update_layout(title_text=None, margin_t=40 if layout.annotations else 24)
    text = f"<figcaption>{esc(caption)}</figcaption>" if caption else ""
    label, height = esc(alt or html.unescape(title)), f"{layout.height:.0f}px"
    return (
        f'<figure class="plot"><div class="chart" id="{esc(name)}" role="img" '
        f'aria-label="{label}" style="height:{height}"></div>'
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

    Without `scripts` it has no figures: a page of some kilobytes, to be shown inside another.
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
