"""A digest of everything that decides a function's answer: its code, and the values it reads."""

from __future__ import annotations

import builtins
import functools
import hashlib
import importlib
import re
import sys
import types
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal
from enum import Enum, EnumMeta
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from saelens_steer.files import digest, file_digest
from saelens_steer.metrics.code_names import HIDDEN, OUTSIDE, CodeNames, is_loaded
from saelens_steer.metrics.packages import public_name
from saelens_steer.own_code import installed

PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, type(...), range, slice),
    *(Decimal, Fraction, np.dtype, torch.dtype, torch.device, torch.Size),
)
"""Types whose repr tells their values apart."""
DESCRIPTORS = (
    *(types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType),
    *(types.MemberDescriptorType, types.GetSetDescriptorType),
)
BUILTIN = ("builtins", "io", "_io")
GRAD_MODES = (torch.no_grad, torch.enable_grad, torch.inference_mode)
METHODS = types.FunctionType, property, staticmethod, classmethod, functools.cached_property
FIELD = type(vars(namedtuple("_Named", "name"))["name"])
NOT_READ = frozenset({
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
    *("__dataclass_fields__", "__dataclass_params__", "__abstractmethods__", "_abc_impl"),
    *("__orig_bases__", "__parameters__", "__static_attributes__", "__firstlineno__"),
})  # fmt: skip
"""Entries of a class that do not decide what its methods return."""


class UnknownContentError(Exception):
    """A function reads something whose content cannot be compared; the message says what."""


def fingerprint(function: Callable[..., Any]) -> str:
    """Digest of the function's code and of every value that it reads, through its own helpers.

    Covers constants, defaults, closures, globals and modules: those of installed packages by
    version, the user's own by the content of their files. Arrays and plain data count by value.
    Raises UnknownContentError for anything else, such as a tokenizer in a global.
    """
    name = getattr(function, "__name__", "the metric")
    try:
        return digest(list(sys.version_info[:2]), _Parts().value(function, name))
    except RecursionError:
        raise UnknownContentError("values that are nested too deeply to follow") from None


class _Parts:
    """Describes values as JSON-like data; `where` names a value in messages."""

    def __init__(self) -> None:
        self.seen: dict[Any, tuple[int, Any]] = {}  # id → its number, and the value, kept alive

    def value(self, value: Any, where: str) -> Any:
        """The description of a value; a second mention of one that can hold itself is a number."""
        kind = type(value)
        if kind in PLAIN or isinstance(value, np.dtype):
            return [kind.__name__, repr(value)]
        if (known := public_name(value)) is not None:
            if known[1].rpartition(".")[2] in (HIDDEN if known[0] in BUILTIN else OUTSIDE):
                raise UnknownContentError(f"the result of {known[1]}")
            return known
        if kind not in (tuple, frozenset) and (again := self.again(value)):
            return again
        for types_, describe in DESCRIBED:
            if isinstance(value, types_) and (found := describe(self, value, where)) is not None:
                return [kind.__name__, found]
        raise UnknownContentError(f"{where}, {_a(kind.__name__)}")

    def again(self, value: Any, *how: str) -> list[Any] | None:
        """The number of a value that was described before, so that a circle ends."""
        key = (id(value), *how)
        if key in self.seen:
            return ["again", self.seen[key][0]]
        self.seen[key] = len(self.seen), value
        return None

    def values(self, values: Mapping[Any, Any], where: str) -> list[Any]:
        """Pairs of name and described value, in the order given."""
        return [[str(key), self.value(one, f"{where}{key}")] for key, one in values.items()]

    def listed(self, values: Any, where: str) -> Any:
        if type(values) not in (list, tuple) and not hasattr(values, "_fields"):
            return None
        own = [] if type(values) in (list, tuple) else [self.value(type(values), where)]
        return [*own, *(self.value(one, where) for one in values)]

    def mapping(self, values: Mapping[Any, Any], where: str) -> Any:
        if type(values) not in (dict, OrderedDict, Counter, types.MappingProxyType):
            return None
        return [[self.value(one, where) for one in pair] for pair in values.items()]

    def unordered(self, values: Any, where: str) -> Any:
        """Each element by itself, since the order of a set is not the same in every process."""
        return sorted(digest(_Parts().value(one, where)) for one in values)

    def function(self, f: types.FunctionType, where: str) -> Any:
        """Code, defaults, closure, attributes and globals; an installed package's code by version.

        A wrapper that a package puts around a user's function holds the latter in its closure.
        """
        code, module = f.__code__, str(f.__globals__.get("__name__"))
        names = CodeNames(code)
        cells = zip(code.co_freevars, f.__closure__ or (), strict=True)
        held = [self.cell(cell, f"{name} in {where}", names.attributes) for name, cell in cells]
        held += [self.value(one, f"a default of {where}") for one in f.__defaults__ or ()]
        held += self.values(f.__kwdefaults__ or {}, f"the default of {where}'s ")
        if vars(sys.modules.get(module, object)) is f.__globals__ and installed(module):
            return [held, module, code.co_qualname, installed(module)]
        attributes = {key: one for key, one in vars(f).items() if key != "__wrapped__"}
        held += self.values(attributes, f"{where}.")
        return [held, self.code(code, where), self.reads(f, names)]

    def cell(self, cell: types.CellType, where: str, attributes: set[str]) -> Any:
        try:
            held = cell.cell_contents
        except ValueError:
            return "empty"
        return self.read(held, where, attributes)

    def code(self, code: types.CodeType, where: str) -> Any:
        """Instructions, constants (nested code too) and names; no docstrings or line numbers."""
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        numbers = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
        constants = [
            self.code(one, where) if isinstance(one, types.CodeType) else self.value(one, where)
            for place, one in enumerate(code.co_consts)
            if place > 0 or is_loaded(code, place)  # or else it is the docstring, or None
        ]
        instructions = [code.co_code.hex(), code.co_exceptiontable.hex(), code.co_flags]
        return [*names, *numbers, constants, *instructions]

    def reads(self, f: types.FunctionType, names: CodeNames) -> list[Any]:
        """The globals and modules that the code names, with their values."""
        found: list[Any] = []
        for name in sorted(names.attributes & OUTSIDE):
            raise UnknownContentError(f"the result of {name}")
        for name in sorted(names.globals):
            if name in f.__globals__:
                found.append([name, self.read(f.__globals__[name], name, names.attributes)])
            elif not hasattr(builtins, name):
                raise UnknownContentError(f"{name}, which is not defined")
            elif name in HIDDEN:
                raise UnknownContentError(f"the result of {name}")
        for name in sorted(names.imports):
            try:
                module = importlib.import_module(name, f.__globals__.get("__package__"))
            except ImportError:
                raise UnknownContentError(f"the module {name}, which is missing") from None
            found.append([name, self.read(module, f"the module {name}", names.attributes)])
        return found

    def read(self, value: Any, where: str, attributes: set[str]) -> Any:
        """A value that code reads; of an own module also the named attributes."""
        if not isinstance(value, types.ModuleType):
            return self.value(value, where)
        if (version := installed(value.__name__)) is not None:
            return [value.__name__, version]
        path = Path(getattr(value, "__file__", None) or "")
        if not path.is_file():
            raise UnknownContentError(f"{where}, a module without a file")
        if again := self.again(value, *sorted(attributes)):
            return again
        held = {name: vars(value)[name] for name in sorted(attributes & vars(value).keys())}
        inner = [[n, self.read(one, f"{where}.{n}", attributes)] for n, one in held.items()]
        return [file_digest(path), inner]

    def method(self, method: types.MethodType, where: str) -> Any:
        owner = self.value(method.__self__, f"the object that {where} belongs to")
        return [self.value(method.__func__, where), owner]

    def partial(self, f: functools.partial[Any], where: str) -> Any:
        bound = [self.value(list(f.args), f"an argument of {where}")]
        bound += self.values(f.keywords, f"the argument of {where} ")
        return [self.value(f.func, where), bound] if type(f) is functools.partial else None

    def builtin(self, f: types.BuiltinFunctionType, where: str) -> Any:
        """A function in C, by the version of its package; a bound one with its object."""
        owner = f.__self__
        if owner is None or isinstance(owner, types.ModuleType | type):
            module = str(f.__module__ or getattr(owner, "__module__", None) or "builtins")
            version = installed(module)
            hidden = version is None or f.__name__ in HIDDEN
            return None if hidden else [module, f.__qualname__, version]
        return [f.__name__, self.value(owner, f"the object that {where} belongs to")]

    def class_(self, cls: type, where: str) -> Any:
        """Bases and members."""
        above = [self.value(one, where) for one in (type(cls), *cls.__bases__) if one is not type]
        if isinstance(cls, EnumMeta):
            listed: Any = cls.__members__
            members = {name: member.value for name, member in listed.items()}
            code = {n: one for n, one in vars(cls).items() if isinstance(one, METHODS)}
            return [above, self.values(members, f"{where}."), self.values(code, f"{where}.")]
        own = {name: one for name, one in vars(cls).items() if name not in NOT_READ}
        if is_dataclass(cls):
            own = {n: one for n, one in own.items() if not _is_written_by_dataclass(one)}
            options: Any = cls.__dataclass_params__  # type: ignore[attr-defined]
            return [above, repr(options), self._fields(cls, where), self.values(own, f"{where}.")]
        return [above, self.values(own, f"{where}.")]

    def _fields(self, cls: Any, where: str) -> list[Any]:
        defaults = [(f.name, f.default, f.default_factory) for f in fields(cls)]
        return [
            [name, *(self.value(one, f"{where}.{name}") for one in given if one is not MISSING)]
            for name, *given in defaults
        ]

    def instance(self, value: Any, where: str) -> Any:
        """A frozen dataclass by its fields, and a member of an Enum."""
        if isinstance(value, Enum):
            return [self.value(type(value), where), value.name]
        options: Any = getattr(value, "__dataclass_params__", None)
        if options is None or isinstance(value, type) or not options.frozen:
            return None
        held = {f.name: getattr(value, f.name) for f in fields(value)}
        more: dict[str, Any] = getattr(value, "__dict__", {})
        held |= {n: one for n, one in more.items() if not _is_cached(n, type(value))}
        return [self.value(type(value), where), self.values(held, f"{where}.")]

    def wrapped(self, value: Any, where: str) -> Any:
        """Properties, static and class methods and cached functions, by what they call."""
        held = ("fget", "fset", "__func__", "func", "__wrapped__")
        inner = [getattr(value, name) for name in held if getattr(value, name, None) is not None]
        return [self.value(one, where) for one in inner[:2]]


def _tensor(_: _Parts, value: torch.Tensor, __: str) -> Any:
    plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided
    if not plain or value.is_quantized or value.is_meta:
        return None
    value = value.detach().cpu().resolve_conj().resolve_neg()
    row = value.reshape(-1).clone(memory_format=torch.contiguous_format)
    data: Any = row.view(torch.uint8).numpy()
    return [str(value.dtype), list(value.shape), hashlib.sha256(data).hexdigest()]


def _array(reader: _Parts, value: np.ndarray | np.generic, where: str) -> Any:
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        return None
    if value.dtype.hasobject:
        return [list(value.shape), reader.value(value.tolist(), where)]
    return [repr(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]


DESCRIBED: tuple[tuple[Any, Callable[[_Parts, Any, str], Any]], ...] = (
    ((list, tuple), _Parts.listed),
    ((dict, types.MappingProxyType), _Parts.mapping),
    ((set, frozenset), _Parts.unordered),
    (torch.Tensor, _tensor),
    ((np.ndarray, np.generic), _array),
    (re.Pattern, lambda _, value, __: [repr(value.pattern), value.flags]),
    (PurePath, lambda _, value, __: str(value)),
    (types.FunctionType, _Parts.function),
    (types.MethodType, _Parts.method),
    (functools.partial, _Parts.partial),
    (types.BuiltinFunctionType, _Parts.builtin),
    (DESCRIPTORS, lambda _, value, __: [value.__objclass__.__qualname__, value.__name__]),
    (FIELD, lambda _, value, __: value.__reduce__()[1][0]),
    (GRAD_MODES, lambda _, value, __: getattr(value, "mode", True)),
    (np.ufunc, lambda _, value, __: [value.__name__, np.__version__]),
    (types.ModuleType, lambda reader, value, where: reader.read(value, where, set())),
    (type, _Parts.class_),
    (METHODS[1:], _Parts.wrapped),
    (functools._lru_cache_wrapper, _Parts.wrapped),
    (object, _Parts.instance),
)
"""Types, and how a value of one is described; None: not by this entry."""


def _is_cached(name: str, cls: type) -> bool:
    return isinstance(getattr(cls, name, None), functools.cached_property)


def _is_written_by_dataclass(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and value.__code__.co_filename == "<string>"


def _a(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
