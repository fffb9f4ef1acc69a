"""Parts of a feature's page as HTML: highlighted tokens, bars, a histogram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saelens_steer.report.markup import esc
from saelens_steer.report.theme import NULL, number, short

STRONGEST = 0.6
"""How opaque the background of a token is at A_max; ink stays readable on it."""
CONTROL = {i: chr(0x2400 + i) for i in range(32) if chr(i) not in "\n\t"} | {127: "\u2421"}
"""Control characters are shown as the Unicode pictures of them."""
WIDTH, HEIGHT = 240, 76
"""The size of a histogram, in units that scale with its panel."""


def percent(share: float) -> str:
    """A share with about two digits."""
    if share == 0:
        return "0\u00a0%"
    if share < 0.0005:
        return "< 0.1\u00a0%"
    return f"{number(100 * share, 1 if share < 0.1 else 0)}\u00a0%"


def token_text(text: str) -> str:
    """A token on one line: line ends, tabs and outer spaces are shown as signs."""
    marked = text.translate(CONTROL).replace("\n", "↵").replace("\t", "⇥")
    return marked if marked.strip(" ") == marked and marked else marked.replace(" ", "␣") or "␀"


def running_text(text: str) -> str:
    """Text inside a context: every line end is shown, a run of them breaks the line once."""
    parts = text.translate(CONTROL).split("\n")
    ends = "".join(f"{part}↵" if part else "↵" for part in parts[:-1])
    return f"{ends}\n{parts[-1]}" if ends else parts[-1]


def context_html(context: Mapping[str, Any], a_max: float) -> str:
    """One context: its source and its tokens, those that fire on a coloured background."""
    peak, (before, after) = context["peak"], context["more"]
    shown = "".join(_token(context, i, a_max) for i in range(len(context["tokens"])))
    where = f"{esc(context['prompt_id'])} · {esc(context['domain'] or '(no domain)')}"
    return (
        f'<li><p class="where"><b>{number(context["activations"][peak], 2)}</b> {where} · token '
        f"{context['positions'][peak]}</p>"
        f'<p class="tokens">{"…" if before else ""}{shown}{"…" if after else ""}</p></li>'
    )


def _token(context: Mapping[str, Any], i: int, a_max: float) -> str:
    positions, value = context["positions"], context["activations"][i]
    gap = "⋯" if i and positions[i] != positions[i - 1] + 1 else ""
    text = running_text(context["tokens"][i])
    if value <= 0:
        return gap + esc(text)
    opacity = STRONGEST * min(1.0, value / a_max)
    peak = ' class="peak"' if i == context["peak"] else ""
    inner = esc(text) or "·"  # part of a character that a later token completes
    return f'{gap}<span{peak} style="--a:{opacity:.2f}" title="{value:.4g}">{inner}</span>'


def bars(rows: Iterable[tuple[str, str, float, str]]) -> str:
    """Horizontal bars: a label (HTML), its value, the bar's share of the width, a hover text."""
    shown = "".join(
        f'<div title="{esc(title)}"><span>{label}</span>'
        f'<i><u style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></u></i>'
        f"<b>{esc(value)}</b></div>"
        for label, value, share, title in rows
    )
    return f'<div class="bars">{shown}</div>'


def histogram(edges: Sequence[float], counts: Sequence[int], colour: str) -> str:
    """A histogram as a small drawing; a bin that is not empty is at least one unit high."""
    most, step = max(counts), WIDTH / len(counts)
    columns = "".join(
        f'<rect x="{i * step:.2f}" y="{HEIGHT - h:.2f}" width="{max(0.5, step - 0.6):.2f}" '
        f'height="{h:.2f}">'
        f"<title>{short(edges[i])} to {short(edges[i + 1])}: {n} tokens</title></rect>"
        for i, n in enumerate(counts)
        if n and (h := max(1.0, HEIGHT * n / most))
    )
    total = f"{sum(counts)} tokens, at most {most} in a bin"
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT + 1}" role="img" '
        f'aria-label="{esc(total)}" preserveAspectRatio="none" fill="{colour}">{columns}'
        f'<rect x="0" y="{HEIGHT}" width="{WIDTH}" height="1" fill="{NULL}"/></svg>'
        f'<p class="ends"><span>0</span><span>{short(edges[-1])}</span></p>'
    )
