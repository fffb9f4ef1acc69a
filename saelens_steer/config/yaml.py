"""Read, check and write configs as YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from saelens_steer.config.base import Spec, sentence
from saelens_steer.config.inputs import TemplateSpec
from saelens_steer.config.run import RunSpec
from saelens_steer.errors import InputError

EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
"""PyYAML reads 1e-3 as text: it requires a point and a sign, as in 1.0e-3."""


class Loader(yaml.SafeLoader):
    """yaml.SafeLoader that reads 1e-3 as a number and rejects duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"duplicate key {key.value!r}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """yaml.SafeDumper that quotes text that `Loader` would read as a number."""


for _class in (Loader, Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """The data in a YAML text, as all configs are read. Raises yaml.YAMLError."""
    return yaml.load(text, Loader)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunSpec:
    """Read a YAML config, apply `dotted.key=value` overrides, and check the result."""
    try:
        data = parse_yaml(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return parse_config({} if data is None else data, overrides, source=str(path))


def as_config(
    given: RunSpec | Mapping[str, object] | str | Path, overrides: Sequence[str] = ()
) -> RunSpec:
    """The RunSpec given as a spec, a mapping, or the path of a YAML file, after overrides.

    Overriding a RunSpec keeps the fields it states and derives its defaults again. Raises
    InputError.
    """
    if isinstance(overrides, str):
        raise InputError(f"overrides should be a list of strings: write overrides=[{overrides!r}]")
    if isinstance(given, str | Path):
        return load_config(given, overrides)
    if isinstance(given, RunSpec):
        return parse_config(_stated(given), overrides) if overrides else given
    if isinstance(given, Mapping):
        return parse_config(dict(given), overrides)
    raise InputError(
        f"config should be a RunSpec, a mapping or the path of a YAML file, not {type(given)!r}"
    )


def _stated(spec: Spec) -> dict[str, Any]:
    """The fields that a spec states, by the keys of a config."""
    return spec.model_dump(by_alias=True, exclude_unset=True)


def parse_config(data: Any, overrides: Sequence[str] = (), source: str = "config") -> RunSpec:
    """Apply overrides to a config given as a mapping, and check the result."""
    if not isinstance(data, dict):
        raise InputError(f"{source} must be a mapping of sections such as model and sweep")
    for override in overrides:
        data = _override(data, override)
    return checked(RunSpec, data, source)


AnySpec = TypeVar("AnySpec", bound=Spec)


def checked(spec: type[AnySpec], data: dict[str, Any], source: str) -> AnySpec:
    """The spec described by `data`. Raises InputError with the first mistake in one sentence."""
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {sentence(error, spec)}") from None


def template_of(
    source: str,
    chat: bool | None,
    system: str | None,
    add_generation_prompt: bool,
    chat_template_kwargs: Mapping[str, object] | None,
) -> TemplateSpec:
    """The arguments of a public function that say how prompts are read, as one spec."""
    given: dict[str, object] = {"chat": chat, "system": system}
    given |= {"add_generation_prompt": add_generation_prompt}
    given |= {"chat_template_kwargs": chat_template_kwargs}
    return checked(TemplateSpec, given, source)


def dump_config(spec: RunSpec) -> str:
    """The spec as YAML, with all defaults; `load_config` reads it back to an equal spec."""
    data = spec.model_dump(mode="json", by_alias=True)
    data["sae"] = {k: v for k, v in data["sae"].items() if v is not None}
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def _override(data: dict[str, Any], override: str) -> dict[str, Any]:
    """Apply `a.b=value` to a copy of data; the value is parsed as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"an override is written dotted.key=value, not {override!r}")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: the value is not valid YAML") from None
    return _put(data, key.split("."), value)


def _put(data: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    if len(keys) == 1:
        return {**data, keys[0]: value}
    inner = data.get(keys[0])
    inner = _stated(inner) if isinstance(inner, Spec) else inner
    return {**data, keys[0]: _put(inner if isinstance(inner, dict) else {}, keys[1:], value)}
