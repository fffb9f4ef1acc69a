"""The base of all specs, and how config errors are worded."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from saelens_steer.errors import InputError, or_known


class Spec(BaseModel):
    """Base of all specs: frozen; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_numbers(cls, data: Any) -> Any:
        return plain(data)


def plain(value: Any) -> Any:
    """The value with Python's numbers and lists instead of those of numpy, torch or pandas.

    Also inside lists, tuples and mappings. Everything else is left as it is.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(one) for one in value)
    return value.tolist() if hasattr(value, "tolist") else value


def whole(name: str, value: SupportsIndex) -> int:
    """The argument `name` as an int. Raises InputError unless it is a whole number."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"{name} should be a whole number, not {number!r}")
    return operator.index(number)


PLAINER = {
    "missing": "is missing",
    "tuple_type": "should be a list",
    "too_short": "should not be empty",
    "model_type": "should be a mapping of keys",
    "dict_type": "should be a mapping of keys",
}
"""Replacements for pydantic messages that speak of Python types instead of YAML."""


def sentence(error: ValidationError, spec: type[BaseModel]) -> str:
    """The first error in the data for `spec`, as a sentence; unknown keys take precedence."""
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<"))
    if first["type"] == "extra_forbidden":
        *path, key = first["loc"]
        return f"unknown key {where!r}; {or_known(str(key), list(_keys_at(spec, path)))}"
    message = PLAINER.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_type" and not isinstance(first["input"], dict | list | tuple):
        message = f"should be text, but is read as {first['input']!r}: put it in quotes"
    return f"{where}: {message}" if where else message


def tag(name: str) -> str:
    """A tag for a member of a union: not a key, so error messages leave it out."""
    return f"<{name}>"


def _keys_at(spec: type[BaseModel], path: Sequence[int | str]) -> Iterable[str]:
    """The keys of the spec at `path`."""
    for key in path:
        if field := _fields(spec).get(str(key)):
            spec = next(iter(_specs_in(field.annotation)), spec)
    return _fields(spec)


def _fields(spec: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in spec.model_fields.items()}


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs_in(part)]
