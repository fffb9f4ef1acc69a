"""All mistakes of a config at once, each in one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from saelens_steer.config.base import Spec, plain
from saelens_steer.errors import MOST_MISTAKES, InputError, all_mistakes, or_known, shortened

PLAINER = {
    "tuple_type": "should be a list",
    "too_short": "should not be empty",
    "model_type": "should be a mapping of keys",
    "dict_type": "should be a mapping of keys",
    "int_parsing": "should be a whole number",
    "int_parsing_size": "should be a whole number",
    "int_from_float": "should be a whole number",
    "int_type": "should be a whole number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "string_type": "should be text",
}
"""Replacements for pydantic messages that speak of Python types instead of YAML."""
LENIENT = {"lenient": True}
"""The validation context in which a spec leaves its clashes to `draft`."""
GONE = object()
MOST_ROUNDS = 50
"""Repairs after which the mistakes found so far are told."""
Place = tuple[int | str, ...]
"""Keys and indices from the top of a config to a value."""
AnySpec = TypeVar("AnySpec", bound=Spec)


@dataclass(frozen=True)
class Draft(Generic[AnySpec]):
    """A spec with defaults in place of what is wrong, and every mistake as a sentence."""

    spec: AnySpec
    mistakes: tuple[str, ...] = ()
    replaced: frozenset[Place] = frozenset()
    """Values that were wrong, or whose key was: rules must not judge what replaced them."""
    source: str = "config"

    def states(self, *keys: str) -> bool:
        """Whether the values at these dotted keys are the config's, including all within them."""
        return not any(_overlap(tuple(key.split(".")), at) for key in keys for at in self.replaced)

    def checked(self) -> AnySpec:
        """The spec. Raises InputError with all mistakes."""
        if self.mistakes:
            raise all_mistakes(self.source, self.mistakes)
        return self.spec


def draft(spec: type[AnySpec], data: dict[Any, Any], source: str) -> Draft[AnySpec]:
    """Validate `data`, and again without each mistake, until what is left is a valid spec.

    An unknown key is read as the key that it resembles; anything else that is wrong is replaced by
    its default. What only a replacement makes wrong is not a mistake. Raises InputError if there is
    no default to replace a mistake by.
    """
    found, replaced = dict[Place, str](), dict[Place, bool]()
    try:
        left = plain(data)
    except RecursionError:
        raise InputError(f"{source} contains itself or is nested too deeply") from None
    for _ in range(MOST_ROUNDS):
        try:
            valid = spec.model_validate(left, context=LENIENT)
        except ValidationError as error:
            left = _repaired(left, _repairs(left, error, spec, found, replaced))
            if left is GONE or len(found) > MOST_MISTAKES:
                break
            continue
        known = Draft(valid, tuple(found.values()), frozenset(replaced), source)
        clashes = [clash.sentence for clash in valid.clashes() if known.states(*clash.reads)]
        return replace(known, mistakes=(*known.mistakes, *clashes))
    raise all_mistakes(source, list(found.values()))


def _overlap(one: Place, other: Place) -> bool:
    """Whether one of two places is the other, or lies within it."""
    return all(a == b for a, b in zip(one, other, strict=False))


def _repairs(
    data: Any,
    error: ValidationError,
    spec: type[BaseModel],
    found: dict[Place, str],
    replaced: dict[Place, bool],
) -> dict[Place, str | None]:
    """Place of each mistake → the key that it was meant for, or None; notes what is new.

    `replaced`: place → whether its value is a default, and not one that another key had.
    A key that is missing beside an unknown one waits until that one is read as what it resembles,
    and a mistake that others within it may cause waits until they are repaired.
    """
    errors, repairs = error.errors()[: MOST_MISTAKES + 1], dict[Place, str | None]()
    unknown = {e["loc"][:-1] for e in errors if e["type"] == "extra_forbidden"}
    errors = [e for e in errors if e["type"] != "missing" or e["loc"][:-1] not in unknown]
    paths = [_named(data, e["loc"]) for e in errors]
    places = [_in_data(data, path, e["type"]) for path, e in zip(paths, errors, strict=True)]
    for one, path, place in zip(errors, paths, places, strict=True):
        if place in repairs or any(len(at) > len(place) and _overlap(at, place) for at in places):
            continue
        if not any(
            _overlap(place, at) and (is_default or len(place) >= len(at))
            for at, is_default in replaced.items()
        ):
            found[place] = _sentence(one, place, spec)
        if one["type"] == "missing":
            replaced[place[:-2] or place[:-1]] = True
        named = one["type"] == "extra_forbidden"
        repairs[place] = _nearest(str(path[-1]), _keys_at(spec, path[:-1])) if named else None
    for place, nearest in repairs.items():
        if nearest is None:
            replaced[place] = True
        elif not isinstance(_at(data, place), dict):
            replaced[(*place[:-1], nearest)] = False
    return repairs


def _nearest(key: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, list(known), n=1)), None)


def _named(data: Any, path: Place) -> Place:
    """pydantic's path without its names for functions, such as `<lambda>`, which are not keys."""
    found: Place = ()
    for part in path:
        if not str(part).startswith("<") or _has(_at(data, found), part):
            found = (*found, part)
    return found


def _in_data(data: Any, path: Sequence[int | str], kind: str) -> Place:
    """The part of pydantic's path that is in the data; it also names members of unions."""
    for depth, key in enumerate(path):
        if not _has(data, key):
            lacks = kind == "missing" and isinstance(data, dict) and depth == len(path) - 1
            return tuple(path) if lacks else tuple(path[:depth])
        data = data[key]
    return tuple(path)


def _has(data: Any, key: int | str) -> bool:
    if isinstance(data, list | tuple):
        return isinstance(key, int) and key < len(data)
    return isinstance(data, dict) and key in data


def _at(data: Any, place: Place) -> Any:
    for key in place:
        data = data[key] if _has(data, key) else None
    return data


def _repaired(data: Any, repairs: dict[Place, str | None]) -> Any:
    """The data with each value moved or left out; a mapping that lacks a key goes; or GONE."""
    order = lambda at: [(key, "") if isinstance(key, int) else (-1, key) for key in at]  # noqa: E731
    for place in sorted(repairs, key=order, reverse=True):
        data = _without(data, place, repairs[place])
    return data


def _without(data: Any, place: Place, nearest: str | None) -> Any:
    """The data without the value at a place, or with it under the key that it resembles."""
    if not place or not _has(data, place[0]):
        return data if len(place) > 1 else GONE
    key, inner = place[0], place[1:]
    value = _without(data[key], inner, nearest)
    if isinstance(data, list | tuple):
        kept = [] if value is GONE else [value]
        return [*data[: int(key)], *kept, *data[int(key) + 1 :]]
    if value is not GONE:
        return data | {key: value}
    rest = {name: one for name, one in data.items() if name != key}
    return rest if inner or nearest is None or nearest in rest else rest | {nearest: data[key]}


def _sentence(error: Any, place: Place, spec: type[BaseModel]) -> str:
    """One of pydantic's errors in a config's words."""
    where, kind, given = ".".join(map(_shown, place)), error["type"], error["input"]
    if kind == "invalid_key":
        return f"the key {given!r} is not text: put it in quotes"
    if kind == "extra_forbidden":
        key, known = ".".join(map(str, place)), list(_keys_at(spec, place[:-1]))
        return f"unknown key {key!r}; {or_known(str(place[-1]), known)}"
    message = PLAINER.get(kind) or error["msg"].removeprefix("Value error, ")
    single = not isinstance(given, dict | list | tuple)
    if kind == "missing":
        message = f"is missing: add {place[-1]}: …"
    elif kind == "string_type" and single:
        message = f"should be text, but is read as {shortened(given)}: put it in quotes"
    elif kind == "tuple_type" and single and given is not None:
        message = f"should be a list: write [{_shown(given) if len(str(given)) < 80 else '…'}]"
    elif kind in ("model_type", "dict_type"):
        message += "".join(f", such as {key}: …" for key in [*_keys_at(spec, place)][:1])
    elif single and (kind in PLAINER or message.startswith("Input ")):
        message = f"{message.removeprefix('Input ')}, not {shortened(given)}"
        near = _nearest(str(given), re.findall(r"'([^']+)'", error["msg"]))
        message += f"; did you mean {near!r}?" if near else ""
    return f"{where}: {message}" if where else message


def _shown(value: object) -> str:
    """A value as text on one line."""
    return str(value) if str(value).isprintable() else repr(value)


def _keys_at(spec: type[BaseModel], path: Sequence[int | str]) -> Iterable[str]:
    """The keys of the specs that may be at `path`."""
    specs = [spec]
    for key in path:
        fields = [_fields(one).get(str(key)) for one in specs]
        specs = [s for field in fields if field for s in _specs_in(field.annotation)] or specs
    return dict.fromkeys(key for one in specs for key in _fields(one))


def _fields(spec: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in spec.model_fields.items()}


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs_in(part)]
