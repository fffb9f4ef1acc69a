"""What a step of a run is. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any

from saelens_steer.config import RunSpec


class Fact(str):
    """The name of a RunContext attribute: an input that the config alone does not tell."""


@dataclass(frozen=True)
class Step:
    """One step: what it depends on, what it writes and who builds it."""

    name: str
    help: str
    """The help of its command; empty: it has none."""
    build: str
    """`module:function`, which takes a RunContext and writes the files; see `returns_writer`."""
    writes: Callable[[RunSpec], tuple[str, ...]]
    """Files and folders of the run folder, which no other step writes. The first is what the
    command prints."""
    reads: Callable[[RunSpec], list[object]]
    """The parts of the config that decide its answer, and facts."""
    after: tuple[str, ...] = ()
    """The steps whose output it reads; of a chain, only the last."""
    section: str | None = None
    """The section of the config that it is for: without it there is no such step."""
    ask: str = ""
    """What to put into a missing section."""
    part_of: str | None = None
    """The step that always brings this one along."""
    renewed_by: tuple[str, ...] = ()
    """Steps after which it is done once more, with what they made."""
    leftovers: tuple[str, ...] = ()
    """What else may lie there and goes once the config no longer asks for the step."""
    unless: Callable[[RunSpec], bool] | None = None
    """A further reason for there being no such step."""
    derived: tuple[str, ...] = ()
    """Files later derived from its outputs, deleted together with them."""
    returns_writer: bool = False
    """Whether `build` computes first and returns the function that writes, so that what was there
    before stays until then."""

    @property
    def command(self) -> str:
        """The name of its command."""
        return self.name.replace("_", "-")

    def is_wanted(self, spec: RunSpec) -> bool:
        """Whether the config asks for it; if not, what it wrote before is removed."""
        asked = self.section is None or bool(attrgetter(self.section)(spec))
        return asked and not (self.unless and self.unless(spec))

    def builder(self) -> Callable[[Any], Any]:
        """The function that `build` names."""
        module, _, function = self.build.partition(":")
        return getattr(import_module(module), function)
