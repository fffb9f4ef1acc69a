"""The base of all specs."""

from __future__ import annotations

import inspect
import math
import operator
import re
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Annotated, Any, NamedTuple, SupportsIndex

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from saelens_steer.errors import InputError, shortened


class Clash(NamedTuple):
    """A mistake in how the parts of a spec fit together."""

    sentence: str
    reads: tuple[str, ...]
    """The dotted keys that it is about."""


class Spec(BaseModel):
    """Base of all specs: frozen; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Let `help` say what each field means, from the string below it."""
        fields = [
            f"{field.alias or name}\n{indent(field.description or '', '    ')}".rstrip()
            for name, field in cls.model_fields.items()
        ]
        cls.__doc__ = "\n\n".join([inspect.cleandoc(cls.__doc__ or ""), "Fields:", *fields])

    @model_validator(mode="before")
    @classmethod
    def _plain_numbers(cls, data: Any) -> Any:
        return plain(data)

    def clashes(self) -> Sequence[Clash]:
        """What is wrong although each part is right by itself."""
        return ()


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
        shown = repr(number)
        shown = shown if len(shown) <= 40 and "\n" not in shown else f"a {type(value).__name__}"
        raise InputError(f"{name} should be a whole number, not {shown}")
    return operator.index(number)


def tag(name: str) -> str:
    """A tag for a member of a union: not a key, so error messages leave it out."""
    return f"<{name}>"


BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def hook_layer(hook_name: str) -> int:
    """The layer of a hook; InputError for a hook outside the layers, or for anything but a name."""
    if not isinstance(hook_name, str):
        raise InputError(
            f"hook_name should be a name such as 'blocks.4.hook_resid_pre', not {hook_name!r}"
        )
    found = BLOCK.fullmatch(hook_name)
    if found is None:
        raise InputError(
            f"{hook_name!r} is not a hook of a layer; use one such as 'blocks.4.hook_resid_pre'."
        )
    return int(found[1])


def check_layer(hook_name: str) -> str:
    """Return the name of a hook. Raises InputError for a hook outside the layers."""
    hook_layer(hook_name)
    return hook_name


Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A seed that the generators of numpy and torch all accept."""


def whole_seed(value: SupportsIndex) -> int:
    """A seed as an int. Raises InputError."""
    seed = whole("seed", value)
    if not 0 <= seed < 1 << 63:
        raise InputError(f"seed should be from 0 to 2**63 - 1, not {shortened(seed)}")
    return seed


def finite(value: Any) -> Any:
    """The value. Raises ValueError if a number in it is NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"should be a finite number, not {value}")
    if isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            finite(one)
    return value


Anything = Annotated[Any, AfterValidator(finite)]
"""A value that only its reader can judge, but whose numbers are finite."""
HookName = Annotated[str, AfterValidator(check_layer)]
"""A hook in a layer, such as blocks.4.hook_resid_pre."""
