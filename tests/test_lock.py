"""One run at a time in a folder."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from saelens_steer.errors import InputError
from saelens_steer.run_folder import RunFolder
from saelens_steer.run_lock import SILENCE

HOLD = """
import sys, time
from saelens_steer.run_folder import RunFolder
folder = RunFolder(sys.argv[1])
with folder.locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.mark()
    return folder


@pytest.fixture
def other(folder):
    """Another process in the folder."""
    command = [sys.executable, "-c", HOLD, str(folder.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_with_host_process_and_start_but_a_dead_run_blocks_nobody(
    folder, other
):
    for act in (folder.check, folder.locked().__enter__):
        with pytest.raises(InputError) as refused:
            act()
        assert f"in use by process {other.pid} on {socket.gethostname()}" in str(refused.value)
        assert f"started at {time.strftime('%Y-%m-')}" in str(refused.value)
    other.kill()
    other.wait()
    folder.check()
    with folder.locked():
        pass


def test_a_second_thread_is_refused_too(folder):
    with folder.locked(), pytest.raises(InputError, match=f"process {os.getpid()} on"):
        RunFolder(folder.root).check()
    folder.check()


def test_a_lock_is_gone_after_an_error(folder):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), folder.locked():
            raise error
        folder.check()


def test_a_note_that_cannot_be_removed_hides_no_error(folder, monkeypatch):
    def refuse(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("saelens_steer.run_lock.remove", refuse)
    with pytest.raises(InputError, match=r"cannot write table\.csv"), folder.locked():
        raise InputError("cannot write table.csv")
    monkeypatch.undo()
    folder.check()


@pytest.mark.parametrize(("age", "held"), [(0, True), (SILENCE - 30, True), (SILENCE + 1, False)])
def test_a_run_on_another_machine_holds_the_folder_while_its_heartbeat_continues(folder, age, held):
    holder = folder.root / ".steps/lock.holder"
    holder.write_text(json.dumps({"host": "elsewhere", "pid": 7, "started": "2026-01-01 10:00:00"}))
    os.utime(holder, (time.time() - age,) * 2)
    if held:
        with pytest.raises(InputError, match="process 7 on elsewhere, which started at 2026-01-01"):
            folder.check()
        assert holder.exists()
    else:
        folder.check()
        assert not holder.exists()


def test_the_heart_beats_while_a_run_is_there(folder, monkeypatch):
    monkeypatch.setattr("saelens_steer.run_lock.HEARTBEAT", 0.02)
    holder = folder.root / ".steps/lock.holder"
    with folder.locked():
        os.utime(holder, (1.0, 1.0))
        deadline = time.time() + 20
        while holder.stat().st_mtime < 2 and time.time() < deadline:
            time.sleep(0.02)
        assert holder.stat().st_mtime > 2


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"host": 3}'])
def test_a_damaged_lock_is_ignored_once_it_is_old(folder, text):
    holder = folder.root / ".steps/lock.holder"
    holder.write_text(text)
    os.utime(holder, (1.0, 1.0))
    folder.check()
