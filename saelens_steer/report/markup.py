"""Templates: plain data in, escaped HTML out."""

from __future__ import annotations

import html
import inspect
import json
import math
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from saelens_steer import numbers
from saelens_steer.file_names import file_name
from saelens_steer.report import theme
from saelens_steer.steering import direction_label

_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
"""How JSON writes what could end or open a script block."""


def render(template: str, **data: Any) -> str:
    """The text of a file in templates/, filled with data; every string in the data is escaped."""
    text = ENVIRONMENT.get_template(template).render(data)
    return text.encode("utf-8", "replace").decode("utf-8")


def script_json(data: Any) -> Markup:
    """Data or a plotly figure as JSON that neither ends nor opens a script block."""
    figure = isinstance(data, go.Figure)
    text = data.to_json() if figure else json.dumps(data, ensure_ascii=False, allow_nan=False)
    return Markup(str(text).translate(_UNSAFE))


def chart(name: str, plot: go.Figure) -> dict[str, Any]:
    """A figure for the macro `figure`; its title becomes the text that screen readers read."""
    drawn = go.Figure(plot)
    layout: Any = drawn.layout
    title = html.unescape(str(layout.title.text or ""))
    drawn.update_layout(title_text=None, margin_t=40 if layout.annotations else 24)
    height = f"{layout.height:.0f}"
    return {"id": name, "title": title, "height": height, "plot": drawn}


def small_chart(name: str, plot: go.Figure, title: str, against: str) -> dict[str, Any]:
    """A figure of one panel for the macro `small_figures`, which writes the heading."""
    plot.layout.annotations = ()
    plot.update_layout(title_text=f"{title} against {against}", showlegend=False, height=236)
    plot.update_layout(margin={"l": 48, "r": 14, "b": 48})
    return chart(name, plot)


def order(value: Any, missing: float = -1.0) -> float:
    """The number by which a table cell sorts; anything but a finite number sorts as `missing`."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else missing


ENVIRONMENT = Environment(
    loader=PackageLoader("saelens_steer.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
for module in (theme, numbers):
    ENVIRONMENT.filters |= {n: f for n, f in vars(module).items() if inspect.isfunction(f)}
ENVIRONMENT.filters |= {
    "direction_label": direction_label,
    "file_name": file_name,
    "script_json": script_json,
    "order": order,
    "float": float,
    "exp": math.exp,
}
ENVIRONMENT.tests["finite"] = math.isfinite
ENVIRONMENT.globals["m"] = ENVIRONMENT.get_template("macros.html").module
ENVIRONMENT.globals["plotly"] = lambda: Markup(get_plotlyjs())
