"""Runs of `every_step` in forks of this process, interrupted at a chosen moment of a chosen step.

Everything is imported once, in one thread; models and autograd stay in the forks.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import pkgutil
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

import saelens_steer
from saelens_steer import cli
from saelens_steer.errors import InputError
from saelens_steer.pipeline import run as run_module
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.result import Result
from saelens_steer.pipeline.step import Step
from saelens_steer.pipeline.verify import verify
from saelens_steer.report.markup import ENVIRONMENT
from saelens_steer.run_folder import RunFolder

BEGIN = "begin"
"""What a run writes before its first step."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {
    *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.utime", "os.truncate"),
    *("shutil.rmtree", "shutil.move"),
}
"""Audit events by which Python tells that it is about to change a folder."""


def import_everything() -> None:
    """Import each module and compile each template, so that no fork does."""
    torch.set_num_threads(1)
    for found in pkgutil.walk_packages(saelens_steer.__path__, "saelens_steer."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for name in ("pandas", "pyarrow.parquet", "plotly.graph_objects", "scipy.stats", "jinja2"):
        importlib.import_module(name)
    for name in ENVIRONMENT.list_templates():
        ENVIRONMENT.get_template(name)


def in_child(
    work: Callable[[], object], said: Path, meanwhile: Callable[[int], object] = id
) -> int:
    """Do the work in a fork, with all that it prints in a file; its exit status, or −signal.

    `meanwhile` is called here with the child's process id.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with said.open("w") as to:
                os.dup2(to.fileno(), 1)
                os.dup2(to.fileno(), 2)
                sys.stdout = sys.stderr = to
                try:
                    work()
                    status = 0
                except SystemExit as stopped:
                    status = int(stopped.code or 0)
                except BaseException:
                    import traceback

                    traceback.print_exc()
        finally:
            os._exit(status)
    meanwhile(child)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass
class Changes:
    """Counts the changes of a folder, and does something before the one with a number."""

    root: Path
    on: bool = False
    number: int = 0
    at: int | None = None
    act: Callable[[str, str | None], None] = lambda *_: None

    def watch(self) -> None:
        """From now on, in this process; an audit hook cannot be removed."""
        sys.addaudithook(self._hear)
        fsync = os.fsync

        def counted(handle: int) -> None:
            self._change("os.fsync", None)
            fsync(handle)

        os.fsync = counted

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on or not (event in CHANGES or (event == "open" and given[2] & WRITING)):
            return
        named = [os.fspath(one) for one in given if isinstance(one, str | Path)]
        if own := [name for name in named if str(self.root) in name]:
            self._change(event, own[0])

    def _change(self, event: str, path: str | None) -> None:
        if self.on and threading.current_thread() is threading.main_thread():
            self.number += 1
            if self.at is not None and self.number >= self.at:
                self.act(event, path)


def kill_me(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_phases(around: Callable[[str], contextlib.AbstractContextManager[None]]) -> None:
    """In this process, carry out each phase of a run in the context that `around` gives for it.

    A phase is a step, or `BEGIN`, with its number: `00-begin`, `01-cache` …
    """
    mark, carry_out, numbers = RunContext.mark, run_module.carry_out, itertools.count()

    def within(name: str, work: Callable[[], None]) -> None:
        with around(f"{next(numbers):02}-{name}"):
            work()

    def staged(step: Step, run: RunContext) -> None:
        if step.is_wanted(run.spec):
            within(step.name, partial(carry_out, step, run))

    RunContext.mark = lambda run: within(BEGIN, partial(mark, run))  # type: ignore[method-assign]
    run_module.carry_out = staged


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run that can be read, but the lock."""
    found = {
        p.relative_to(folder).as_posix(): p
        for p in folder.rglob("*")
        if p.is_file() and os.access(p, os.R_OK)
    }
    return {n: p.read_bytes() for n, p in found.items() if not n.startswith(".steps/lock")}


@dataclass
class Study:
    """A config, its uninterrupted run, and the folder as it was before each phase."""

    home: Path
    config: dict[str, Any]
    until: str = "report"
    result: Result | None = None
    """Of the uninterrupted run, if it sweeps."""
    phases: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Phase → changes of the folder, seconds."""
    whole: dict[str, bytes] = field(default_factory=dict)
    finished: dict[str, set[bytes]] = field(default_factory=dict)
    """File → its content before each phase and at the end: provenance.json grows."""

    @property
    def folder(self) -> Path:
        """Where every run goes, since the report names its folder."""
        return self.home / "run"

    @property
    def file(self) -> Path:
        return self.home / "config.yaml"

    @property
    def said(self) -> str:
        return (self.home / "said.txt").read_text()

    def begin(self) -> Study:
        """Carry out the run once, and keep what it had made before each phase."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.config))
        log = self.home / "phases.jsonl"
        changes = Changes(self.folder)

        @contextlib.contextmanager
        def kept(phase: str) -> Iterator[None]:
            if self.folder.exists():
                shutil.copytree(self.folder, self.home / "before" / phase)
            start, changes.number, changes.on = time.monotonic(), 0, True
            yield
            changes.on = False
            with log.open("a") as to:
                line = [phase, changes.number, time.monotonic() - start]
                to.write(json.dumps(line) + "\n")

        def work() -> None:
            in_phases(kept)
            changes.watch()
            self.run()

        if in_child(work, self.home / "said.txt"):
            raise SystemExit(self.said)
        shutil.copytree(self.folder, self.home / "before/whole")
        lines = map(json.loads, log.read_text().splitlines())
        self.phases = {name: (number, seconds) for name, number, seconds in lines}
        self.whole = content(self.folder)
        for before in (self.home / "before").iterdir():
            for name, data in content(before).items():
                self.finished.setdefault(name, set()).add(data)
        with contextlib.suppress(InputError):
            self.result = Result.load(self.folder)
        return self

    def run(self) -> None:
        run_module.run(self.file, self.folder, until=self.until)

    def restore(self, phase: str) -> None:
        """Put the folder back to what it was before a phase, or `whole`."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if (before := self.home / "before" / phase).exists():
            shutil.copytree(before, self.folder)

    def command(self, *words: str) -> int:
        """Do `saelens-steer run`, or another command, in a fork; its exit status."""
        given = words or ("run", str(self.file), "--out", str(self.folder))

        def work() -> None:
            sys.argv = ["saelens-steer", *given]
            cli.main()

        return in_child(work, self.home / "said.txt")

    def resume(self) -> list[str]:
        """Run to the end in a fork, reading meanwhile; what goes wrong, then or in the folder."""
        wrong = list[str]()

        def read(child: int) -> None:
            while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                wrong.extend(self.misread())
                time.sleep(0.5)

        if status := in_child(self.run, self.home / "said.txt", read):
            return [*wrong, f"resuming ended with {status}: {self.said[-300:]}"]
        return wrong + self.differences()

    def differences(self) -> list[str]:
        """How the folder differs from the whole run's."""
        now = content(self.folder)
        wrong = [f"{name} is missing" for name in self.whole.keys() - now.keys()]
        wrong += [f"{name} should not be there" for name in now.keys() - self.whole.keys()]
        wrong += [f"{n} differs" for n in now.keys() & self.whole.keys() if now[n] != self.whole[n]]
        try:
            verify(self.folder)
        except InputError as error:
            wrong.append(str(error))
        return wrong + self.unfinished() + self.misread()

    def unfinished(self) -> list[str]:
        """Files that count as finished and are not; no run may be there."""
        folder, now = RunFolder(self.folder), content(self.folder)
        shown = [n for n in self.whole if not n.startswith(".") and folder.has(n)]
        return [f"{n} counts as finished" for n in shown if now.get(n) not in self.finished[n]]

    def misread(self) -> list[str]:
        """Whether a reader is given anything but the tables of the whole run, or a refusal."""
        try:
            found = Result.load(self.folder)
        except InputError as refused:
            return [] if "\n" not in str(refused) else [f"two lines: {refused}"]
        except Exception as error:
            return [f"Result.load: {error!r}"]
        alike = self.result is not None and found.rows.equals(self.result.rows)
        return [] if alike else ["Result.load gives other tables"]
