"""Functions that users write, named as `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from saelens_steer.errors import InputError, or_known
from saelens_steer.files import digest
from saelens_steer.own_code import code_version, own_modules

SHAPES = "(logits), (logits, baseline), (text) or (text, truncated)"
Call = Callable[[Any, Any], Any]
"""A user's function, called with logits and baseline, or with a completion and `truncated`."""

_CHANGED: dict[str, int] = {}
"""Imported module of the user's → modification time of its file when it was read."""


def function_version(path: str, what: str = "function") -> str:
    """Digest of the code behind `package.module:function`: its module and all that it imports.

    The user's own modules count by content, installed packages by version. Raises InputError if
    the function is defined in no file.
    """
    function = imported(path, what)
    place = sys.modules.get(getattr(function, "__module__", None) or path.partition(":")[0])
    with _working_directory_importable():
        named = sys.modules.get(path.partition(":")[0])
        versions = [code_version(module) for module in (named, place) if module is not None]
    if not any(versions):
        raise InputError(f"{function!r} has no source file: define it in a .py file")
    return digest(versions)


def imported(path: str, what: str = "metric") -> Callable[..., Any]:
    """The function behind `package.module:function`. Raises InputError."""
    module_name, _, attribute = path.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise InputError(f"{what} {path!r} names a file: write {dotted}:{attribute}")
    with _working_directory_importable():
        try:
            found: Any = _fresh(importlib.import_module(module_name))
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{what} {path!r}: cannot import {module_name!r} "
                f"({type(error).__name__}: {error}); is it installed or in this directory?"
            ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = sorted(n for n, v in vars(found).items() if callable(v) and n[0] != "_")
            raise InputError(f"{what} {path!r}: no {part!r} there; {or_known(part, public)}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{what} {path!r} is a {type(found).__name__}, not a function")
    return found


def _fresh(module: ModuleType) -> ModuleType:
    """The module, reloaded if its file or that of a module it imports has changed since, as may
    happen in a notebook."""
    own = {name: file for name, file in own_modules(module).items() if name in sys.modules}
    changed = {name: file.stat().st_mtime_ns for name, file in own.items()}
    if any(_CHANGED.setdefault(name, at) != at for name, at in changed.items()):
        _CHANGED.update(changed)
        linecache.checkcache()
        for name in own:  # those that a module imports come before it
            importlib.reload(sys.modules[name])
    return sys.modules.get(module.__name__, module)


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Append the working directory to sys.path: last, so that it shadows nothing installed."""
    here = str(Path.cwd())
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


def called(path: str, function: Any) -> tuple[str, Call]:
    """Name of the first parameter, and the function as one of the two values that it accepts."""
    torch = sys.modules.get("torch")  # not imported for this: it takes seconds
    module = torch is not None and isinstance(function, torch.nn.Module)
    try:
        signature = inspect.signature(function.forward if module else function)
    except (TypeError, ValueError):
        raise InputError(f"metric {path!r} has no readable signature; write {SHAPES}") from None
    parameters = list(signature.parameters.values())
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p for p in parameters if p.kind in plain]
    needed = [p for p in parameters if p.default is p.empty and "VAR" not in p.kind.name]
    first = taken[0].name if taken else ""
    second = taken[1].name if len(taken) > 1 else ""
    more = "baseline" if first == "logits" else "truncated"
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name == more]
    n = 2 if second.startswith(more) else 1
    if first not in ("logits", "text", "completion") or not {*needed} <= {*taken[:n], *keywords}:
        raise InputError(
            f"metric {path!r} takes ({', '.join(p.name for p in parameters)}); its parameters "
            f"must be {SHAPES}"
        )
    if keywords:
        return first, lambda one, two: function(one, **{more: two})
    return first, lambda one, two: function(*(one, two)[:n])
