"""Each kind of fault in each step of a run: `python breaking.py FOLDER N` prints one JSON object.

The first N pairs of kind and step are tried, in an order that goes round both; 0: all.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from faults.children import BEGIN, Changes, Study, import_everything, in_child, in_phases
from faults.every_step import every_step

from saelens_steer import cli
from saelens_steer.files import remove
from saelens_steer.run_folder import RunFolder

STORE = "store"
"""In place of a step: the shards in `.store`."""
draw = random.Random(0)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop_instead(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def unreadable(path: Path) -> None:
    path.chmod(0)


HARMS = {
    one.__name__: one
    for one in (truncate, flip, empty, Path.unlink, folder_instead, loop_instead, unreadable)
}
RECORDS = {f"record, {name}": HARMS[name] for name in ("truncate", "flip", "empty", "unlink")}
SYSTEM = {"full": errno.ENOSPC, "input/output": errno.EIO, "read-only": errno.EROFS}
"""From a random change on, the system refuses all that write."""


def files_of(study: Study, step: str) -> list[Path]:
    """What a step wrote in the whole run."""
    if step == STORE:
        return sorted(p for p in (study.folder / ".store").rglob("*") if p.is_file())
    folder = RunFolder(study.folder)
    return [folder.path(name) for name in folder.records["run" if step == BEGIN else step].files]


def refused(study: Study, status: int) -> list[str]:
    """What is wrong with how a command ended: it must be 0, or 2 with one sentence."""
    said = [line for line in study.said.splitlines() if line.strip()]
    if status == 0:
        return []
    last = said[-1] if said else ""
    if status == 2 and last.startswith("saelens-steer: ") and "Traceback" not in study.said:
        return []
    return [f"status {status}: {' / '.join(said[-4:])[-400:]}"]


def differences(study: Study, deleted: str = "") -> list[str]:
    """As `Study.differences`, but a damaged file is kept like an edited one; one was deleted."""
    for path in [*study.folder.rglob("*.edited-*")]:
        remove(path)
    return [one for one in study.differences() if one != f"{deleted} is missing"]


def at_rest(harm: Callable[[Path], object], study: Study, step: str) -> list[str]:
    """Harm a file of a step in the finished run: noticed by all, and mended by a rerun."""
    study.restore("whole")
    path = draw.choice(files_of(study, step))
    before = path.read_bytes()
    harm(path)
    if path.is_file() and os.access(path, os.R_OK) and path.read_bytes() == before:
        return []  # root reads what nobody may, and random cuts may cut nothing
    wrong, name = study.unfinished() + study.misread(), path.relative_to(study.folder).as_posix()
    status = study.command("verify", str(study.folder))
    named = status == 2 and name in study.said.splitlines()[-1]
    if not named and (step != STORE or os.path.lexists(path)):  # a shard may be missing
        wrong += [f"verify ended with {status}: {study.said[-200:]}"]
    if step == STORE:  # as `verify` says, since what is done needs no shard
        remove(path)
    status = study.command()
    wrong += refused(study, status)
    if status == 0:
        wrong += differences(study, name if step == STORE else "")
    else:
        print("   ", study.said.splitlines()[-1][:200], file=sys.stderr)
        wrong += lost(study, {name})
    return [f"{name}: {each}" for each in wrong]


def lost(study: Study, but: set[str]) -> list[str]:
    """Finished files that a refusal has cost."""
    there = {n for n in study.whole if (study.folder / n).is_file()}
    return [f"{name} is lost" for name in study.whole.keys() - there - but]


def record(harm: Callable[[Path], object], study: Study, step: str) -> list[str]:
    """Harm the record of a step in the finished run: refused, and no file is lost."""
    study.restore("whole")
    path = RunFolder(study.folder).records.path("run" if step == BEGIN else step)
    harm(path)
    name = path.relative_to(study.folder).as_posix()
    wrong, status = study.misread(), study.command()
    wrong += refused(study, status) + (lost(study, {name}) if status else differences(study))
    return [f"{name}: {each}" for each in wrong]


def system(number: int, study: Study, step: str) -> list[str]:
    """Refuse every write from a random moment of the step on; afterwards, resume."""
    phase = next(name for name in study.phases if name[3:] == step)
    study.restore(phase)
    changes = Changes(study.folder, at=draw.randint(1, max(study.phases[phase][0], 1)))

    def fail(event: str, path: str | None) -> None:
        if number != errno.ENOSPC or event in ("open", "os.fsync", "os.mkdir"):
            raise OSError(number, os.strerror(number), path)

    changes.act = fail

    @contextlib.contextmanager
    def counted(now: str) -> Iterator[None]:
        changes.on = changes.on or now == phase
        yield

    def work() -> None:
        in_phases(counted)
        changes.watch()
        sys.argv = ["saelens-steer", "run", str(study.file), "--out", str(study.folder)]
        cli.main()

    status = in_child(work, study.home / "said.txt")
    wrong = refused(study, status) + ([] if status else ["it went through"])
    print("   ", study.said.splitlines()[-1][:200], file=sys.stderr)
    return wrong + study.unfinished() + study.misread() + study.resume()


def held(study: Study) -> list[str]:
    """Another process is in the folder."""
    study.restore("whole")
    before = study.whole
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        with RunFolder(study.folder).locked():
            os.write(write, b"1")
            time.sleep(600)
        os._exit(0)
    os.read(read, 1)
    status = study.command()
    wrong = [] if status == 2 and f"process {child}" in study.said else ["not refused"]
    os.kill(child, 9)
    os.waitpid(child, 0)
    return wrong + refused(study, status) + study.differences() + ([] if before else ["?"])


def stale_lock(study: Study) -> list[str]:
    """A run that died on this machine, and one that fell silent on another."""
    wrong = []
    for host in (socket.gethostname(), "elsewhere"):
        study.restore("13-sweep")
        holder = study.folder / ".steps/lock.holder"
        holder.write_text(json.dumps({"host": host, "pid": 1, "started": "2026-01-01 10:00:00"}))
        if host == "elsewhere":
            os.utime(holder, (1.0, 1.0))
        wrong += refused(study, status := study.command()) + ([str(status)] if status else [])
        wrong += study.differences()
    return wrong


def leftovers(study: Study) -> list[str]:
    """Temporaries of a dead process in each folder."""
    study.restore("whole")
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    for folder in [study.folder, *(p for p in study.folder.rglob("*") if p.is_dir())]:
        (folder / f".half.csv.{child}.tmp").write_text("a,b\n1")
        (folder / f".half.{child}.tmp").mkdir()
        (folder / f".half.{child}.tmp/part").write_text("1")
    wrong = refused(study, status := study.command()) + ([str(status)] if status else [])
    return wrong + study.differences()


def copied(study: Study) -> list[str]:
    """A folder under another name: nothing is computed anew."""
    study.restore("whole")
    other = study.home / "other/run"
    shutil.rmtree(other.parent, ignore_errors=True)
    shutil.copytree(study.folder, other)
    status = study.command("run", str(study.file), "--out", str(other))
    wrong = refused(study, status) + ([str(status)] if status else [])
    shutil.rmtree(study.folder)
    shutil.copytree(other, study.folder)
    return wrong + study.differences()


FOLDER = {one.__name__: one for one in (held, stale_lock, leftovers, copied)}
Fault = Callable[[Study, str], list[str]]


def faults() -> dict[str, Fault]:
    """Kind → what it does to a step, and what is then wrong."""
    found: dict[str, Fault] = {}
    found |= {kind: partial(at_rest, harm) for kind, harm in HARMS.items()}
    found |= {kind: partial(record, harm) for kind, harm in RECORDS.items()}
    return found | {kind: partial(system, number) for kind, number in SYSTEM.items()}


def pairs(steps: list[str]) -> list[tuple[str, str]]:
    """Every kind with every step it can hit, beginning with many of both."""
    kinds = list(faults())
    found = [
        (kinds[(i + offset) % len(kinds)], step)
        for offset in range(len(kinds))
        for i, step in enumerate(steps)
    ]
    return [(kind, step) for kind, step in found if step != STORE or kind in HARMS]


def main() -> None:
    import_everything()
    home, most = Path(sys.argv[1]), int(sys.argv[2]) or None
    study = Study(home / "run", every_step(home)).begin()
    steps = [STORE, *dict.fromkeys(name[3:] for name in study.phases)]
    failures, known, start = list[str](), faults(), time.monotonic()
    for kind, act in FOLDER.items():
        failures += [f"{kind}: {each}" for each in act(study)]
        print(kind, failures, file=sys.stderr, flush=True)
    chosen = pairs(steps)[:most]
    for kind, step in chosen:
        wrong = known[kind](study, step)
        failures += [f"{kind}, {step}: {each}" for each in wrong]
        print(kind, step, wrong, file=sys.stderr, flush=True)
    seconds = (time.monotonic() - start) / (len(chosen) + len(FOLDER))
    print(json.dumps({"tried": chosen, "failures": failures, "seconds_each": seconds}))


if __name__ == "__main__":
    main()
