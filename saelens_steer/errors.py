"""The one exception a user is meant to read, and help after a slip in a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence that says what to change.

    The command line prints it without a traceback and exits with status 2.
    """


def or_known(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or all known names where none is near; a list keeps its order."""
    names = known if isinstance(known, list) else sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
