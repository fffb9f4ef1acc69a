"""The config reference, generated from the pydantic specs and the strings below their fields."""

import re
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from saelens_steer.config import RunSpec

PLAIN = {
    object: "anything",
    NoneType: "null",
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
}


def config_page() -> str:
    """Every section of a config with its keys, types, defaults and meanings."""
    lines = [
        "# Config\n",
        "A config states only what differs from these defaults. They are for `tiny-qwen3`. For "
        "any other model the config must state `hook_name`, `sae`, `prompts.source`, "
        "`select.prompts`, `metrics` and, if the run has those steps, `sae.train.corpus` and "
        "`tradeoffs.prompts`. An unknown key is an error.\n",
    ]
    places = spec_places()
    for spec in sorted(places, key=lambda s: _order(places[s])):
        if len(spec.model_fields) == 1:  # `{margin: …}`: its only key has a section
            continue
        about, _, _ = (spec.__doc__ or "").partition("\n\nFields:")
        lines += [f"## {places[spec] or 'Sections'}\n", f"{about}\n"]
        for name, field in spec.model_fields.items():
            head = f"`{field.alias or name}` · {_type(field.annotation, places)}{_default(field)}"
            meaning = (field.description or "").replace("\n", "\n    ")
            lines += [f"{head}\n", *([f":   {meaning}\n"] if meaning else [])]
    return "\n".join(lines)


def spec_places() -> dict[type[BaseModel], str]:
    """Each spec, and the first dotted key under which a config can contain it."""
    places: dict[type[BaseModel], str] = {RunSpec: ""}
    for spec in (waiting := [RunSpec]):  # grows while it is read
        for name, field in spec.model_fields.items():
            key = f"{places[spec]}.{field.alias or name}".lstrip(".")
            new = [inner for inner in _specs_in(field.annotation) if inner not in places]
            places |= dict.fromkeys(new, key)
            waiting += new
    return places


def _order(place: str) -> tuple[int, str]:
    section = place.split(".")[0]
    known = list(RunSpec.model_fields)
    return (known.index(section) if section in known else -1), place


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs_in(part)]


def _type(annotation: Any, places: dict[type[BaseModel], str]) -> str:
    """A type in words, with links to the sections of the specs in it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in places and len(annotation.model_fields) == 1:
        ((name, field),) = annotation.model_fields.items()
        return f"`{name}:` {_type(field.annotation, places)}"
    if annotation in places:
        return f"[{places[annotation]}](#{re.sub(r'[^a-z_]', '', places[annotation])})"
    if annotation in PLAIN:
        return PLAIN[annotation]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin is Annotated:
        return _type(args[0], places)
    if origin is tuple:
        return f"list of {_type(args[0], places)}"
    if origin in (dict, Mapping):
        return f"mapping of names to {_type(args[1], places)}"
    return " or ".join(dict.fromkeys(_type(arg, places) for arg in args)) or "anything"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ", required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    text = yaml.safe_dump(_given(to_jsonable_python(value)), default_flow_style=True, width=9999)
    return f", default `{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def _given(value: Any) -> Any:
    """The value without null entries."""
    if isinstance(value, dict):
        return {k: _given(v) for k, v in value.items() if v is not None}
    return [_given(v) for v in value] if isinstance(value, list) else value
