"""Read, check and write configs as YAML."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from saelens_steer.config.base import Spec
from saelens_steer.config.draft import AnySpec, Draft, draft
from saelens_steer.config.inputs import TemplateSpec
from saelens_steer.config.run import RunSpec
from saelens_steer.errors import InputError, existing, shortened

EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+\Z")
"""PyYAML reads 1e-3 as text: it requires a point and a sign, as in 1.0e-3."""


MOST_BYTES = 500_000
"""Bytes of a file, or characters of another text, that are read as YAML."""
MOST_VALUES = 20_000
"""Keys and values of a text; those that an alias stands for count each time."""
DEEPEST = 40
"""Mappings and lists within one another."""
TOO_DEEP = f"mappings and lists are nested more than {DEEPEST} deep"
LONGEST_NUMBER = 100
"""Characters of a number."""
FROM_PYTHON = "saved_from_python"
"""The key of a config.yaml that `Result.save` wrote."""
STANDARD = "tag:yaml.org,2002:"


class Loader(yaml.SafeLoader):
    """yaml.SafeLoader for JSON's kinds of values, bounded in size.

    It reads 1e-3 as a number and dates as text, and rejects duplicate keys. Raises yaml.YAMLError.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._sizes = dict[int, int]()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse, before anything is built, what is too large with its aliases written out."""
        mark, before, self._depth = self.peek_event().start_mark, self._values, self._depth + 1
        if self._depth > DEEPEST:
            _refuse(TOO_DEEP, mark)
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and id(node) not in self._sizes:
            _refuse("an alias refers to a value that contains it", mark)
        self._values += self._sizes[id(node)] if is_alias else 1
        if self._values > MOST_VALUES:
            _refuse(f"there are more than {MOST_VALUES:,} keys and values", mark)
        self._depth, self._sizes[id(node)] = self._depth - 1, self._values - before
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(STANDARD)
        if node.tag not in self.yaml_constructors:
            _refuse(
                f"the tag {shortened(kind)} is not supported: write the value without it",
                node.start_mark,
            )
        try:
            if kind in ("int", "float") and len(node.value) > LONGEST_NUMBER:
                raise ValueError
            return super().construct_object(node, deep)
        except (ValueError, LookupError, OverflowError):
            problem = f"{shortened(node.value)} cannot be read as {kind}: put text in quotes"
            _refuse(problem, node.start_mark)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                _refuse("a list or a mapping cannot be a key: write text", key.start_mark)
            if key.value in seen:
                _refuse(f"duplicate key {shortened(key.value)}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


Loader.yaml_constructors = {
    STANDARD + kind: Loader.yaml_constructors[STANDARD + kind]
    for kind in ("null", "bool", "int", "float", "str", "seq", "map")
}
Loader.yaml_implicit_resolvers = {
    first: [one for one in found if one[0].removeprefix(STANDARD) not in ("timestamp", "value")]
    for first, found in Loader.yaml_implicit_resolvers.items()
}


def _refuse(problem: str, mark: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class Dumper(yaml.SafeDumper):
    """yaml.SafeDumper that quotes text that `Loader` would read as a number."""


for _class in (Loader, Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str, source: str | Path) -> Any:
    """The data in a YAML text, as all configs are read. Raises InputError, which names `source`."""
    try:
        if len(text) <= MOST_BYTES:
            return yaml.load(text, Loader)
        why = f"it is longer than {MOST_BYTES:,} characters"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        why = ", ".join(filter(None, (error.context, error.problem))) + where
    except RecursionError:
        why = TOO_DEEP
    except yaml.YAMLError as error:
        why = f"the character {chr(getattr(error, 'character', 0))!a} is not allowed"
    except (ValueError, OverflowError):
        why = "a quoted string contains an invalid escape"
    raise InputError(f"{source} is not valid YAML: {why}")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunSpec:
    """Read a YAML config, apply `dotted.key=value` overrides, and check the result."""
    return as_config(path, overrides)


def as_config(
    given: RunSpec | Mapping[str, object] | str | Path, overrides: Sequence[str] = ()
) -> RunSpec:
    """The RunSpec given as a spec, a mapping, or the path of a YAML file, after overrides.

    Overriding a RunSpec keeps the fields it states and derives its defaults again. Raises
    InputError with every mistake.
    """
    return draft_config(given, overrides).checked()


def draft_config(
    given: RunSpec | Mapping[str, object] | str | Path, overrides: Sequence[str] = ()
) -> Draft[RunSpec]:
    """`as_config` with its mistakes, to which a run adds those that the spec alone cannot show."""
    if isinstance(overrides, str):
        raise InputError(f"overrides should be a list of strings: write overrides=[{overrides!r}]")
    if isinstance(given, RunSpec):
        return _drafted(_stated(given), overrides, "config") if overrides else Draft(given)
    if isinstance(given, str | Path):
        return _drafted(_read(given), overrides, str(given))
    if isinstance(given, Mapping):
        return _drafted(dict(given), overrides, "config")
    raise InputError(
        f"config should be a RunSpec, a mapping or the path of a YAML file, not {type(given)!r}"
    )


def _read(path: str | Path) -> Any:
    """The data in a YAML file; an empty mapping for an empty file."""
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its writer
            own = (
                " (a run folder's config is its config.yaml)" if stat.S_ISDIR(found.st_mode) else ""
            )
            raise InputError(f"cannot read the config {path}: it is not a file{own}")
        if found.st_size > MOST_BYTES:
            raise InputError(f"cannot read the config {path}: it has over {MOST_BYTES:,} bytes")
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        existing(Path(path))  # raises, with the nearest name
        raise
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the config {path} is not UTF-8: save it as UTF-8") from None
    except InputError:
        raise
    except ValueError:  # a NUL byte
        raise InputError(f"the config {str(path)!r} is not a path") from None
    data = parse_yaml(text, path)
    return {} if data is None else data


def _stated(spec: Spec) -> dict[str, Any]:
    """The fields that a spec states, by the keys of a config."""
    return spec.model_dump(by_alias=True, exclude_unset=True)


def parse_config(data: Any, overrides: Sequence[str] = (), source: str = "config") -> RunSpec:
    """Apply overrides to a config given as a mapping, and check the result."""
    return _drafted(data, overrides, source).checked()


def _drafted(data: Any, overrides: Sequence[str], source: str) -> Draft[RunSpec]:
    if not isinstance(data, dict):
        raise InputError(f"{source} must be a mapping of sections such as model and sweep")
    if FROM_PYTHON in data:
        raise InputError(
            f"{source} only lists the settings of a result saved from a notebook, and cannot be "
            "run: give another config"
        )
    for override in overrides:
        data = _override(data, override)
    return draft(RunSpec, data, source)


def checked(spec: type[AnySpec], data: dict[str, Any], source: str) -> AnySpec:
    """The spec described by `data`. Raises InputError with every mistake, each in one sentence."""
    return draft(spec, data, source).checked()


def spec_of(spec: type[AnySpec], given: AnySpec | Mapping[str, object], source: str) -> AnySpec:
    """A public function's argument as a spec. Raises InputError."""
    if isinstance(given, spec):
        return given
    if not isinstance(given, Mapping):
        raise InputError(
            f"{source}: give ss.{spec.__name__}(…) or a mapping of its fields, not "
            f"{type(given).__name__}"
        )
    return checked(spec, dict(given), source)


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
    shown = shortened(override)
    if not equals or not all(key.split(".")):
        raise InputError(f"an override is written dotted.key=value, not {shown}")
    if len(keys := key.split(".")) > DEEPEST:
        raise InputError(f"an override has at most {DEEPEST} keys, but {shown} has {len(keys)}")
    return _put(data, keys, parse_yaml(text, f"the value of override {shown}"))


def _put(data: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    if len(keys) == 1:
        return {**data, keys[0]: value}
    inner = data.get(keys[0])
    inner = _stated(inner) if isinstance(inner, Spec) else inner
    return {**data, keys[0]: _put(inner if isinstance(inner, dict) else {}, keys[1:], value)}
