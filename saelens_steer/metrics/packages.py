"""Which package and version an object comes from."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import sysconfig
from pathlib import Path
from typing import Any

from saelens_steer.version import __version__


def installed(name: str) -> str | None:
    """The version of the package that a module is installed with; None for the user's own."""
    top = name.partition(".")[0]
    if top == "saelens_steer":
        return __version__
    if top == "__main__" or name not in sys.modules:
        return None
    package = sys.modules.get(top, sys.modules[name])
    places = [getattr(package, "__file__", None), *getattr(package, "__path__", ())]
    path = next((Path(place) for place in places if place), None)
    if path is None:
        return sys.version if top in sys.stdlib_module_names else None
    if {"site-packages", "dist-packages"} & {*path.parts}:
        known = getattr(package, "__version__", None)
        return known if isinstance(known, str) else _distribution(top)
    return sys.version if path.is_relative_to(sysconfig.get_path("stdlib")) else None


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


@functools.cache
def _distribution(top: str) -> str:
    found = importlib.metadata.packages_distributions().get(top, [])
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(found))
