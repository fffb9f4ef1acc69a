"""Which package and version an object comes from."""

from __future__ import annotations

import sys
from typing import Any

from saelens_steer.own_code import installed


def public_name(value: Any) -> list[str] | None:
    """Module, name and version of what an installed package has under its own name."""
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    path = path or getattr(value, "__name__", None)
    if not (isinstance(module, str) and isinstance(path, str)):
        return None
    version, found = installed(module), sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return [module, path, version] if version is not None and found is value else None
