"""The base of all specs, and the wording of config errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from saelens_steer.errors import or_known


class Spec(BaseModel):
    """Base of all specs: frozen; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


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
    where = ".".join(str(part) for part in first["loc"] if not is_tag(part))
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {_nearest(str(first['loc'][-1]), spec, first['loc'][:-1])}"
    return f"{where}: {_message(first)}" if where else _message(first)


def tag(name: str) -> str:
    """A tag for a member of a union: not a key, so error messages leave it out."""
    return f"<{name}>"


def is_tag(part: object) -> bool:
    """Whether a part of pydantic's error location is such a tag."""
    return str(part).startswith("<")


def _message(error: ErrorDetails) -> str:
    return PLAINER.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def _nearest(key: str, spec: type[BaseModel], path: Sequence[int | str]) -> str:
    """The nearest key of the spec at `path`, or all of its keys."""
    return or_known(key, list(_fields(_spec_at(spec, path))))


def _spec_at(spec: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    for key in path:
        if field := _fields(spec).get(str(key)):
            spec = next(iter(_specs_in(field.annotation)), spec)
    return spec


def _fields(spec: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in spec.model_fields.items()}


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs_in(part)]
