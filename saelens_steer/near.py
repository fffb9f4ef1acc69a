"""Helping out after a slip in a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def or_known(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or all known names where none is near; a list keeps its order."""
    names = known if isinstance(known, list) else sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
