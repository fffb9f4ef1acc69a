"""Does a completion hold Python code that parses?"""

from __future__ import annotations

import ast
import warnings
from typing import Literal

from saelens_steer.metrics.fences import Fence, fences

Validity = Literal["absent", "valid", "invalid", "truncated"]

PYTHON = ("python", "py", "python3", "py3")
"""Fence languages that count as Python, in any case."""


def code_validity(text: str, truncated: bool = False) -> Validity:
    """`absent` (no Python fence), `valid`, `invalid` or `truncated`, of the completion alone.

    `valid`: at least one closed ```` ```python ```` or ```` ```py ```` fence, and all of them
    parse by the running interpreter's grammar. `truncated`: `truncated` says the token limit cut
    the text, and it ends inside a Python fence (or an opening line that may become one). An open
    fence at the end of a finished text is `invalid`. Fences of other languages, or of none, count
    for nothing.
    """
    found = list(fences(text))
    if truncated and found and _cut_inside_python(found[-1]):
        return "truncated"
    python = [fence for fence in found if fence.language in PYTHON]
    if not python:
        return "absent"
    return "valid" if all(f.closed and parses(f.body) for f in python) else "invalid"


def parses(source: str) -> bool:
    """Whether Python can parse the source, however hostile it is. Nothing of it is run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return False
    return True


def _cut_inside_python(fence: Fence) -> bool:
    if fence.closed:
        return False
    if fence.cut_short:
        return any(name.startswith(fence.language) for name in PYTHON)
    return fence.language in PYTHON
