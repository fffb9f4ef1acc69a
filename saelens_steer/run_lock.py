"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from saelens_steer.errors import InputError
from saelens_steer.files import read_json, remove, write_json

HEARTBEAT = 30.0
"""Seconds between two signs of life."""
SILENCE = 300.0
"""Seconds without one after which a run on another machine counts as dead."""


@contextlib.contextmanager
def locked(root: Path, folder: Path) -> Iterator[None]:
    """Keep every other process out of the run folder `root`; `folder` holds the lock's files.

    The operating system drops the lock of a process that died. A lock taken on another machine,
    which not every file system shows, holds while its heartbeat does. Raises InputError with host,
    process and start of the run that is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / "lock"), folder / "lock.holder"
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise _taken(root, holder) from None
    except OSError as error:
        raise InputError(f"cannot write to {root}: {error.strerror}") from None
    try:
        if _is_alive_elsewhere(holder):
            raise _taken(root, holder)
        about = {"host": socket.gethostname(), "pid": os.getpid()}
        write_json(holder, about | {"started": f"{datetime.now():%Y-%m-%d %H:%M:%S}"})
        ended = threading.Event()
        threading.Thread(target=_beat, args=(holder, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            with contextlib.suppress(OSError):  # which would hide the error that ended the run
                remove(holder)
    finally:
        lock.release()


def check_unlocked(root: Path, folder: Path) -> None:
    """Raise InputError if another run is in the folder, before there is anything to write."""
    if (folder / "lock").exists():
        with locked(root, folder):
            pass


def _beat(holder: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(holder)


def _holder(holder: Path) -> dict[str, object]:
    """Who wrote the file; empty if it is gone or damaged."""
    try:
        found = read_json(holder)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive_elsewhere(holder: Path) -> bool:
    """Whether a run on another machine has given a sign of life lately."""
    try:
        silence = time.time() - holder.stat().st_mtime
    except OSError:
        return False
    return silence < SILENCE and _holder(holder).get("host") != socket.gethostname()


def _taken(root: Path, holder: Path) -> InputError:
    about = {"pid": "unknown", "host": "unknown", "started": "unknown"} | _holder(holder)
    return InputError(
        f"{root} is in use by process {about['pid']} on {about['host']}, which started at "
        f"{about['started']}: wait for it, stop it, or give another --out"
    )
