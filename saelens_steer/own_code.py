"""Which code is the user's own, and which comes with an installed package."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType

from saelens_steer.files import file_digest
from saelens_steer.version import __version__

IMPORTERS = ("import_module", "__import__")
"""Functions that import a module by name."""


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
    if _is_in_packages(path):
        known = getattr(package, "__version__", None)
        return known if isinstance(known, str) else _distribution(top)
    return sys.version if path.is_relative_to(sysconfig.get_path("stdlib")) else None


def _is_in_packages(path: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & {*path.parts})


@functools.cache
def _distribution(top: str) -> str | None:
    """Names and versions of the distributions with this module; None if it came by hand."""
    found = importlib.metadata.packages_distributions().get(top, [])
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(found)) or None


def code_version(module: ModuleType) -> list[list[str]]:
    """What decides a module's code: each of its `own_modules` by content, and each installed
    package that one of them imports by version."""
    own = own_modules(module)
    if not own:
        version = installed(module.__name__)
        return [[module.__name__, version]] if version else []
    tops = {name.partition(".")[0] for file in own.values() for name in _imports_of(file)}
    others = tops - {name.partition(".")[0] for name in own} - sys.stdlib_module_names
    versions = [[top, found] for top in sorted(others) if (found := _version(top))]
    return [[name, file_digest(file)] for name, file in sorted(own.items())] + versions


def _version(top: str) -> str | None:
    return __version__ if top == "saelens_steer" else _distribution(top)


def own_modules(module: ModuleType) -> dict[str, Path]:
    """Name → file of a module and of the user's own modules that it imports, directly or not.

    Those that a module imports come before it.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()

    def visit(name: str, package: str | None = None) -> None:
        parent = name.rpartition(".")[0]
        if name in seen or (file := _own_file(name)) is None:
            return
        seen.add(name)
        if parent:
            visit(parent)
        package = name if file.name == "__init__.py" else parent
        for other in _imports_of(file, package):
            visit(other)
        found[name] = file

    visit(module.__name__)
    return found


def _own_file(name: str) -> Path | None:
    """The file of a module, if it is the user's own; nothing but its parents is imported."""
    top = name.partition(".")[0]
    if top == "saelens_steer" or top in sys.stdlib_module_names:
        return None
    module = sys.modules.get(name)
    try:
        place = getattr(module, "__file__", None) if module else find_spec(name).origin  # type: ignore[union-attr]
    except (ImportError, AttributeError, ValueError):  # no such module, or its parent fails
        return None
    path = Path(place or "")
    if not path.is_file() or path.is_relative_to(sysconfig.get_path("stdlib")):
        return None
    by_hand = _is_in_packages(path) and _distribution(top) is None
    return path if by_hand or not _is_in_packages(path) else None


def _imports_of(file: Path, package: str = "") -> list[str]:
    """The names of the modules that a file may import, anywhere in its code."""
    stat = file.stat()
    return _parsed_imports(file, package, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _parsed_imports(file: Path, package: str, size: int, mtime_ns: int) -> list[str]:  # noqa: ARG001
    if file.suffix != ".py":
        return []
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # reported when it is imported
        return []
    return list(dict.fromkeys(name for node in ast.walk(tree) for name in _named(node, package)))


def _named(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that one statement or call imports; `from a import b` may import `a.b`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        try:
            base = resolve_name(base, package) if node.level else base
        except ImportError:
            return
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", getattr(node.func, "id", None))
        if called in IMPORTERS and isinstance(node.args[0].value, str):
            yield node.args[0].value
