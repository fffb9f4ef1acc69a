"""Laws of steps: done once, done again when something changed, never served stale."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from saelens_steer.errors import InputError
from saelens_steer.files import write_text
from saelens_steer.run_folder import RunFolder


@pytest.fixture
def step(tmp_path) -> Callable[..., int]:
    """Do a step that writes its input to `out`; how often it has been done by now."""
    done = []

    def do(value: object = 1, name: str = "step", outputs: tuple[str, ...] = ("out",)) -> int:
        def make() -> None:
            done.append(value)
            for output in outputs:
                write_text(tmp_path / output, str(value))

        RunFolder(tmp_path).do(name, [value], outputs, make)
        return len(done)

    return do


def test_a_step_is_done_once(step):
    assert step() == 1
    assert step() == 1


@pytest.mark.parametrize("change", [2, "1", [1], None, {"a": 1}])
def test_a_changed_input_reruns_the_step_and_the_old_answer_is_not_used(step, tmp_path, change):
    step(1)
    assert step(change) == 2
    assert (tmp_path / "out").read_text() == str(change)
    assert step(1) == 3


def test_a_step_left_open_keeps_its_files_and_is_done_again(step, tmp_path):
    step()
    RunFolder(tmp_path).mark_unfinished("step")
    assert (tmp_path / "out").exists()
    assert step() == 2
    assert step() == 2


def test_a_removed_output_does_the_step_again(step, tmp_path):
    outputs = ("a", "b/c")
    step(outputs=outputs)
    (tmp_path / "b/c").unlink()
    assert step(outputs=outputs) == 2
    assert (tmp_path / "b/c").exists()


def test_steps_of_different_names_do_not_know_of_each_other(step):
    assert step(name="one") == 1
    assert step(name="two", outputs=("other",)) == 2
    assert step(name="one") == 2


DAMAGED = [
    *("", "{", "[]", '"key"', "\x00", "[" * 100_000, '{"key": 1}', '{"files": []}', '{"stale": 1}'),
    *('{"files": {"out": 1}}', '{"stale": {"out": null}}', '{"key": null, "outputs": ["out"]}'),
]


@pytest.mark.parametrize("state", DAMAGED)
def test_a_damaged_record_is_refused_and_nothing_is_written(step, tmp_path, state):
    step()
    record = tmp_path / ".steps" / "step.json"
    record.write_text(state)
    before = contents(tmp_path)
    for act in (step, RunFolder(tmp_path).check, RunFolder(tmp_path).stale):
        with pytest.raises(InputError, match=r"step\.json is damaged: use a new folder"):
            act()
    assert contents(tmp_path) == before
    record.unlink()
    (tmp_path / "out").rename(tmp_path / "moved")
    assert step() == 2


def contents(folder: Path) -> dict[str, str]:
    """Everything in the folder that a link does not lead to."""
    return {
        str(p.relative_to(folder)): "" if p.is_dir() else p.read_text()
        for p in sorted(folder.rglob("*"))
    }


def test_a_failed_step_does_not_count_as_done(step, tmp_path):
    step(1)

    def fail() -> None:
        write_text(tmp_path / "out", "half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        RunFolder(tmp_path).do("step", [2], ["out"], fail)
    assert step(2) == 2
    assert (tmp_path / "out").read_text() == "2"
    with pytest.raises(RuntimeError):
        RunFolder(tmp_path).do("step", [3], ["out"], fail)
    assert step(2) == 3, "the failed attempt had overwritten the answer"


def test_a_step_killed_midway_is_not_taken_for_done(step, tmp_path):
    step(1)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from saelens_steer.files import write_text\n"
        "from saelens_steer.run_folder import RunFolder\n"
        "folder = Path(sys.argv[1])\n"
        "def make():\n"
        "    write_text(folder / 'out', 'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "RunFolder(folder).do('step', [2], ['out'], make)\n"
    )
    args = [sys.executable, "-c", code, str(tmp_path)]
    killed = subprocess.run(args, cwd=Path(__file__).parents[1], env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "out").read_text() == "half"
    assert step(2) == 2
    assert (tmp_path / "out").read_text() == "2"


def test_the_key_tells_name_and_inputs_and_nothing_else(tmp_path):
    steps, other = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    key = steps.do("step", [1], [], lambda: None)
    assert key == other.do("step", [1], ["x"], lambda: None)
    assert key != other.do("step", [2], [], lambda: None)
    assert key != other.do("steps", [1], [], lambda: None)


def test_a_file_in_place_of_the_run_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="is a file: give a folder"):
        RunFolder(tmp_path / "run")


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    RunFolder(tmp_path).check()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        RunFolder(tmp_path).check()
    RunFolder(tmp_path).mark()
    RunFolder(tmp_path).check()


@pytest.mark.parametrize("name", ["..", "../x", "../../notes", "a/../../x", "a\0b", "", "."])
def test_no_record_or_output_lies_outside_the_folder(tmp_path, name):
    folder, before = RunFolder(tmp_path / "run"), contents(tmp_path)
    for act in (
        lambda: folder.do(f"{name}/../step", [1], [], lambda: pytest.fail("made")),
        lambda: folder.do("step", [1], ["inner", name], lambda: pytest.fail("made")),
    ):
        with pytest.raises(InputError, match="is not a path inside"):
            act()
    assert contents(tmp_path) == before


def test_records_behind_a_link_are_refused(tmp_path):
    run = tmp_path / "run"
    RunFolder(run).mark()
    shutil.move(run / ".steps", tmp_path / "elsewhere")
    (run / ".steps").symlink_to("../elsewhere")
    before = contents(tmp_path)
    for act in (RunFolder(run).check, RunFolder(run).mark):
        with pytest.raises(InputError, match="is not a path inside"):
            act()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("link", [False, True])
def test_a_run_folder_may_be_reached_by_a_link_and_from_anywhere(tmp_path, monkeypatch, link):
    RunFolder(tmp_path / "run").mark()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("link" if link else "run")
    folder.check()
    for number in (1, 2):
        folder.do("step", [number], ["made"], lambda: write_text(folder.path("made"), ""))
    assert (tmp_path / "run/made").exists() and folder.stale() == []


def test_a_step_that_leaves_itself_open_is_never_taken_for_done(tmp_path):
    folder = RunFolder(tmp_path)
    folder.do(
        "step", [1], ["a"], lambda: (folder.mark_unfinished("step"), write_text(tmp_path / "a", ""))
    )
    assert (tmp_path / "a").exists() and folder.is_unfinished("step")
    assert not folder.is_done("step", [1], ["a"])
