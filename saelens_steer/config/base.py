"""What all specs have in common, and how a mistake in one is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from saelens_steer.errors import or_known


class Spec(BaseModel):
    """Base of all specs: frozen, strict about keys; numbers are finite."""

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
"""pydantic's wording where it speaks of Python and not of YAML."""


def sentence(error: ValidationError, spec: type[BaseModel]) -> str:
    """The first complaint about data for `spec`; an unknown key, if there is one, comes first."""
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    where = ".".join(str(part) for part in first["loc"] if not is_tag(part))
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {_nearest(str(first['loc'][-1]), spec, first['loc'][:-1])}"
    return f"{where}: {_message(first)}" if where else _message(first)


def tag(name: str) -> str:
    """A name for a member of a union that is no key: it is left out of the sentence."""
    return f"<{name}>"


def is_tag(part: object) -> bool:
    """Whether a part of pydantic's location is such a name."""
    return str(part).startswith("<")


def _message(error: ErrorDetails) -> str:
    return PLAINER.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def _nearest(key: str, spec: type[BaseModel], path: Sequence[int | str]) -> str:
    """The nearest key of the spec that stands at `path`, or all of its keys."""
    return or_known(key, list(_fields(_spec_at(spec, path))))


def _spec_at(spec: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    for key in path:
        if field := _fields(spec).get(str(key)):
            spec = next(iter(_specs_in(field.annotation)), spec)
    return spec


def _fields(spec: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in spec.model_fields.items()}


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs that a field's type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs_in(part)]
