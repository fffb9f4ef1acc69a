"""Laws of steps: done once, done again when something changed, never served stale."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from saelens_steer.errors import InputError
from saelens_steer.files import write_text
from saelens_steer.pipeline.run_folder import Steps


@pytest.fixture
def step(tmp_path) -> Callable[..., int]:
    """Do a step that writes its input to `out`; how often it has been done by now."""
    done = []

    def do(value: object = 1, name: str = "step", outputs: tuple[str, ...] = ("out",)) -> int:
        def make() -> None:
            done.append(value)
            for output in outputs:
                write_text(tmp_path / output, str(value))

        Steps(tmp_path).do(name, [value], outputs, make)
        return len(done)

    return do


def test_a_step_is_done_once(step):
    assert step() == 1
    assert step() == 1


@pytest.mark.parametrize("change", [2, "1", [1], None, {"a": 1}])
def test_a_changed_input_does_the_step_again_and_the_old_answer_is_gone(step, tmp_path, change):
    step(1)
    assert step(change) == 2
    assert (tmp_path / "out").read_text() == str(change)
    assert step(1) == 3


def test_a_step_left_open_keeps_its_files_and_is_done_again(step, tmp_path):
    step()
    Steps(tmp_path).leave_open("step")
    assert (tmp_path / "out").exists()
    assert step() == 2
    assert step() == 2


def test_what_an_open_step_made_goes_with_what_it_was_built_on(tmp_path):
    steps = Steps(tmp_path, {"first": ["later"]})
    steps.do("later", [1], ["out"], lambda: write_text(tmp_path / "out", "x"))
    steps.leave_open("later")
    steps.do("first", [1], [], lambda: None)
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize("state", ["", "{", "[]", '"key"', "{}", "\x00"])
def test_a_memory_that_cannot_be_read_is_no_memory(step, tmp_path, state):
    step()
    (tmp_path / ".steps" / "step.json").write_text(state)
    assert step() == 2


def test_a_step_that_fails_is_not_taken_for_done_and_leaves_no_old_output(step, tmp_path):
    step(1)

    def fail() -> None:
        write_text(tmp_path / "out", "half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Steps(tmp_path).do("step", [2], ["out"], fail)
    assert step(2) == 2
    assert (tmp_path / "out").read_text() == "2"
    with pytest.raises(RuntimeError):
        Steps(tmp_path).do("step", [3], ["out"], fail)
    assert step(2) == 3, "the failed attempt had overwritten the answer"


def test_a_step_killed_midway_is_not_taken_for_done(step, tmp_path):
    step(1)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from saelens_steer.pipeline.run_folder import Steps\n"
        "folder = Path(sys.argv[1])\n"
        "def make():\n"
        "    (folder / 'out').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Steps(folder).do('step', [2], ['out'], make)\n"
    )
    args = [sys.executable, "-c", code, str(tmp_path)]
    killed = subprocess.run(args, cwd=Path(__file__).parents[1], env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "out").read_text() == "half"
    assert step(2) == 2
    assert (tmp_path / "out").read_text() == "2"


def test_the_key_tells_name_and_inputs_and_nothing_else(tmp_path):
    steps, other = Steps(tmp_path / "a"), Steps(tmp_path / "b")
    key = steps.do("step", [1], [], lambda: None)
    assert key == other.do("step", [1], ["x"], lambda: None)
    assert key != other.do("step", [2], [], lambda: None)
    assert key != other.do("steps", [1], [], lambda: None)


def test_a_file_in_place_of_the_run_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="--out must be a folder"):
        Steps(tmp_path / "run")


def test_a_step_done_again_takes_what_built_on_it_away(tmp_path):
    steps = Steps(tmp_path, {"first": ("second",)})
    for number in (1, 2):
        steps.do("first", [number], ["a"], lambda: write_text(tmp_path / "a", "a"))
        if number == 1:
            steps.do("second", [number], ["b"], lambda: write_text(tmp_path / "b", "b"))
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    Steps(tmp_path).check_own()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        Steps(tmp_path).check_own()
    Steps(tmp_path).mark()
    Steps(tmp_path).check_own()
