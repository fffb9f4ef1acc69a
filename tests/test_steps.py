"""Laws of steps: done once, done again when something changed, never served stale."""

import json
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
from saelens_steer.pipeline.run_folder import RunFolder


def followed_by(first: str, *later: str) -> Callable[[str], tuple[str, ...]]:
    """The dependants of one step; others have none."""
    return lambda name: later if name == first else ()


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
def test_a_changed_input_does_the_step_again_and_the_old_answer_is_gone(step, tmp_path, change):
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


def test_what_an_open_step_made_goes_with_what_it_was_built_on(tmp_path):
    steps = RunFolder(tmp_path, followed_by("first", "later"))
    steps.do("later", [1], ["out"], lambda: write_text(tmp_path / "out", "x"))
    steps.mark_unfinished("later")
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
        "from saelens_steer.pipeline.run_folder import RunFolder\n"
        "folder = Path(sys.argv[1])\n"
        "def make():\n"
        "    (folder / 'out').write_text('half')\n"
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
    with pytest.raises(InputError, match="--out must be a folder"):
        RunFolder(tmp_path / "run")


def test_a_step_done_again_takes_what_built_on_it_away(tmp_path):
    steps = RunFolder(tmp_path, followed_by("first", "second"))
    for number in (1, 2):
        steps.do("first", [number], ["a"], lambda: write_text(tmp_path / "a", "a"))
        if number == 1:
            steps.do("second", [number], ["b"], lambda: write_text(tmp_path / "b", "b"))
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    RunFolder(tmp_path).check()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        RunFolder(tmp_path).check()
    RunFolder(tmp_path).mark()
    RunFolder(tmp_path).check()


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with a done step, between neighbours that are none of its business."""
    folder = tmp_path / "runs/run"
    for name in ("../notes.txt", "../other/notes.txt", "config.yaml", "sae/cfg.json", "inner/made"):
        write_text(folder / name, name)
    (folder / "away").symlink_to("../other")
    (folder / "memory").symlink_to(".steps")
    RunFolder(folder).mark()
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Everything in the folder that a link does not lead to."""
    return {
        str(p.relative_to(folder)): "" if p.is_dir() else p.read_text()
        for p in sorted(folder.rglob("*"))
    }


def note(run: Path, name: str, outputs: object) -> Path:
    """A step's memory, written by someone else."""
    state = {"key": "0" * 16, "outputs": outputs}
    return write_text(run / ".steps" / f"{name}.json", json.dumps(state))


NOT_ITS_OWN = [
    *("", ".", "./", "..", "../", "../run", "../notes.txt", "../other", "sae/..", "sae/../.."),
    *("away/notes.txt", "sae/../../other", "{absolute}", "{absolute}/other", "{absolute}/run/sae"),
    *(".steps", ".steps/", "./.steps", ".steps/run.json", ".STEPS", "memory/run.json", "a\0b"),
    *("\ud800", "a" * 300),
]
"""What a run folder must never remove. All lie in the test's own folder, never above it: where this
law is broken they are removed in earnest."""
NO_OUTPUTS = [None, "sae", 1, True, {}, {"sae": 1}, [1], ["sae", None], [["sae"]], [{}]]
"""What is no list of names."""


@pytest.mark.parametrize("bad", [*([name] for name in NOT_ITS_OWN), *NO_OUTPUTS])
@pytest.mark.parametrize("how", ["done again", "dropped", "built upon", "begun"])
def test_a_memory_of_what_is_not_the_steps_own_is_refused_and_nothing_is_removed(run, how, bad):
    if isinstance(bad, list):
        bad = [s.format(absolute=run.parent) if isinstance(s, str) else s for s in bad]
        bad = ["sae", *bad]
    state = note(run, "step", bad)
    before = contents(run.parent)
    steps = RunFolder(run, followed_by("first", "step"))
    acts = {
        "done again": lambda: steps.do("step", [1], ["inner"], lambda: pytest.fail("made")),
        "dropped": lambda: steps.drop("step", ["inner"]),
        "built upon": lambda: steps.do("first", [1], ["inner"], lambda: pytest.fail("made")),
        "begun": steps.check,
    }
    with pytest.raises(InputError, match="delete it and run again") as refused:
        acts[how]()
    assert str(state) in str(refused.value) and "\n" not in str(refused.value)
    assert contents(run.parent) == before


@pytest.mark.parametrize("bad", NOT_ITS_OWN)
def test_no_step_is_asked_for_what_is_not_the_runs_own(run, bad):
    bad = bad.format(absolute=run.parent)
    note(run, "step", ["sae"])
    before = contents(run.parent)
    for act in (
        lambda: RunFolder(run).do("step", [1], ["inner", bad], lambda: pytest.fail("made")),
        lambda: RunFolder(run).do("step", [1], [], lambda: pytest.fail("made"), derived=[bad]),
        lambda: RunFolder(run).drop("step", ["inner", bad]),
    ):
        with pytest.raises(InputError):
            act()
        assert contents(run.parent) == before


@pytest.mark.parametrize("name", ["..", "../x", "../../notes", "a/../../x"])
def test_no_step_has_a_memory_outside_the_folder(run, name):
    before = contents(run.parent)
    with pytest.raises(InputError, match="is not a path inside"):
        RunFolder(run).do(f"{name}/step", [1], [], lambda: None)
    assert contents(run.parent) == before


def test_a_memory_that_lies_elsewhere_is_refused(run):
    shutil.move(run / ".steps", run.parent / "elsewhere")
    (run / ".steps").symlink_to("../elsewhere")
    before = contents(run.parent)
    for act in (RunFolder(run).check, RunFolder(run).mark):
        with pytest.raises(InputError, match="is not a path inside"):
            act()
    assert contents(run.parent) == before


def test_what_a_step_made_goes_even_where_it_was_moved_and_linked(run):
    note(run, "step", ["away", "sae", "inner/made", "nothing/here"])
    RunFolder(run).check()
    RunFolder(run).do("step", [1], ["sae"], lambda: write_text(run / "sae", "new"))
    assert (run.parent / "other/notes.txt").exists()
    assert not (run / "away").is_symlink() and not (run / "inner/made").exists()
    assert (run / "sae").read_text() == "new"


def test_a_memory_nested_too_deeply_is_no_memory(step, tmp_path):
    step()
    (tmp_path / ".steps" / "step.json").write_text("[" * 100_000)
    assert step() == 2


@pytest.mark.parametrize("link", [False, True])
def test_a_run_folder_may_be_reached_by_a_link_and_from_anywhere(run, monkeypatch, link):
    note(run, "step", ["sae"])
    (run.parent / "link").symlink_to("run")
    monkeypatch.chdir(run.parent)
    steps = RunFolder("link" if link else "run")
    steps.check()
    steps.do("step", [1], ["made"], lambda: write_text(steps.path("made"), ""))
    assert (run / "made").exists() and not (run / "sae").exists()


def test_what_a_stopped_removal_leaves_is_known_and_goes_with_the_step(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.do("step", [1], ["a", "b"], lambda: [write_text(tmp_path / n, n) for n in "ab"])

    def stopped(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("saelens_steer.pipeline.run_folder.remove", stopped)
        with pytest.raises(KeyboardInterrupt):
            folder.drop("step")
    assert not folder.is_done("step", [1], ["a", "b"])
    folder.drop("step")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_what_a_killed_step_made_in_part_goes_once_it_is_no_longer_asked_for(tmp_path):
    def half() -> None:
        write_text(tmp_path / "a", "half")
        raise KeyboardInterrupt

    folder = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        folder.do("step", [1], ["a", "b"], half)
    assert not folder.is_done("step", [1], ["a"])
    RunFolder(tmp_path).drop("step")
    assert not (tmp_path / "a").exists()


def test_a_step_that_leaves_itself_open_is_never_taken_for_done(tmp_path):
    folder = RunFolder(tmp_path)
    folder.do(
        "step", [1], ["a"], lambda: (folder.mark_unfinished("step"), write_text(tmp_path / "a", ""))
    )
    assert (tmp_path / "a").exists() and folder.is_unfinished("step")
    assert not folder.is_done("step", [1], ["a"])
