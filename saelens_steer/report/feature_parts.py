"""The small parts of a feature's page: marked tokens, bars, a histogram. All of it HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saelens_steer.report.markup import esc
from saelens_steer.report.theme import NULL, number, short

STRONGEST = 0.6
"""How opaque the background of a token is at A_max; ink stays readable on it."""
CONTROL = {i: chr(0x2400 + i) for i in range(32) if chr(i) not in "\n\t"} | {127: "\u2421"}
"""Control characters are shown by their pictures."""
WIDTH, HEIGHT = 240, 76
"""Of a histogram, in units that scale with its panel."""


@dataclass(frozen=True)
class Bar:
    """A labelled bar; the label is HTML, the share is of the whole width."""

    label: str
    value: str
    share: float
    title: str = ""


def percent(share: float) -> str:
    """A share with about two digits."""
    if share == 0:
        return "0\u00a0%"
    if share < 0.0005:
        return "< 0.1\u00a0%"
    return f"{number(100 * share, 1 if share < 0.1 else 0)}\u00a0%"


def token_text(text: str) -> str:
    """A token as text on one line: spaces and line ends have signs of their own."""
    marked = text.translate(CONTROL).replace("\n", "↵").replace("\t", "⇥")
    return marked if marked.strip(" ") == marked and marked else marked.replace(" ", "␣") or "␀"


def running_text(text: str) -> str:
    """Text inside a context: each run of line ends is shown, and breaks the line once."""
    parts = text.translate(CONTROL).split("\n")
    ends = "".join(f"{part}↵" if part else "↵" for part in parts[:-1])
    return f"{ends}\n{parts[-1]}" if ends else parts[-1]


def context_html(context: dict[str, Any], a_max: float) -> str:
    """One context: where it is from, and its tokens, those that fire with a background."""
    shown = [_token(context, i, a_max) for i in range(len(context["tokens"]))]
    before, after = context["more"]
    text = f"{'…' if before else ''}{''.join(shown)}{'…' if after else ''}"
    peak = context["activations"][context["peak"]]
    where = f"{esc(context['prompt_id'])} · {esc(context['domain'] or '(no domain)')}"
    place = context["positions"][context["peak"]]
    return (
        f'<li><p class="where"><b>{number(peak, 2)}</b> {where} · token {place}</p>'
        f'<p class="tokens">{text}</p></li>'
    )


def _token(context: dict[str, Any], i: int, a_max: float) -> str:
    positions, value = context["positions"], context["activations"][i]
    gap = "⋯" if i and positions[i] != positions[i - 1] + 1 else ""
    text = running_text(context["tokens"][i])
    if value <= 0:
        return gap + esc(text)
    opacity = STRONGEST * min(1.0, value / a_max)
    peak = ' class="peak"' if i == context["peak"] else ""
    inner = esc(text) or "·"  # a piece of a character that stands on a later token
    return f'{gap}<span{peak} style="--a:{opacity:.2f}" title="{value:.4g}">{inner}</span>'


def bars(rows: Sequence[Bar]) -> str:
    """Horizontal bars under each other."""
    return f'<div class="bars">{"".join(map(_bar, rows))}</div>'


def _bar(bar: Bar) -> str:
    title = f' title="{esc(bar.title)}"' if bar.title else ""
    width = f"{100 * min(1.0, max(0.0, bar.share)):.1f}%"
    return (
        f'<div{title}><span>{bar.label}</span><i><u style="width:{width}"></u></i>'
        f"<b>{esc(bar.value)}</b></div>"
    )


def histogram(edges: Sequence[float], counts: Sequence[int], colour: str) -> str:
    """A histogram as a small drawing; a bin with any token is a unit high at least."""
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
