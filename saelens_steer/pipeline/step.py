"""A pipeline step: what it reads, what it writes and what builds it. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any

from saelens_steer.config import RunSpec


class RunInput(str):
    """The name of a RunContext attribute: an input that the config alone does not determine."""


class PromptsInput(RunInput):
    """A RunInput that holds prompts, which enter a step's key by their hash."""


@dataclass(frozen=True)
class Step:
    """One step: what it depends on, what it writes and what builds it."""

    name: str
    build: str
    """`module:function`. The function gets the RunContext and writes the files (but see
    `returns_writer`)."""
    writes: Callable[[RunSpec], tuple[str, ...]]
    """The files and folders it writes in the run folder. Each has one writer; the command prints
    the first."""
    reads: Callable[[RunSpec], list[object]]
    """What determines its output, besides earlier steps: parts of the config, and RunInputs."""
    help: str = ""
    """Help text of its command; a step without one has no command."""
    after: tuple[str, ...] = ()
    """The steps whose output it reads; of a chain of steps, only the last."""
    section: str | None = None
    """The config section that asks for it; None: every run has the step."""
    section_hint: str = ""
    """What to add to a config without that section."""
    part_of: str | None = None
    """The step whose command also runs this one."""
    repeated_after: tuple[str, ...] = ()
    """Later steps whose output it also shows; it runs again after each."""
    returns_writer: bool = False
    """Whether `build` only computes and returns a function that writes. The old files stay until
    that function is called."""
    in_provenance: bool = False
    """Whether provenance.json describes its output, and so is rewritten after the step."""

    @property
    def command(self) -> str:
        return self.name.replace("_", "-")

    def is_wanted(self, spec: RunSpec) -> bool:
        """Whether the config asks for the step."""
        return self.section is None or bool(attrgetter(self.section)(spec))

    def builder(self) -> Callable[[Any], Any]:
        """The function named by `build`."""
        module, _, function = self.build.partition(":")
        return getattr(import_module(module), function)
