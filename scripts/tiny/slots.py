"""Templates with `<slot>` markers, which do not clash with Python's and LaTeX's braces."""

from __future__ import annotations

import re
from collections.abc import Mapping


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with every `<slot>` replaced by its value."""
    return re.sub(r"<(\w+)>", lambda match: values[match[1]], template)


def fenced(source: str) -> str:
    """Python source as a closed Markdown fence."""
    return f"```python\n{source}\n```"


def function(name: str, arguments: str, body: str) -> str:
    """A Python function with its body indented by four."""
    lines = "\n".join("    " + line for line in body.split("\n"))
    return f"def {name}({arguments}):\n{lines}"


def display(latex: str) -> str:
    """A formula between `$$` delimiters."""
    return f"$${latex}$$"
