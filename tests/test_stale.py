"""Laws of a run folder's files: none is lost, none of an earlier config is read."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from saelens_steer.errors import InputError
from saelens_steer.files import write_text, write_with
from saelens_steer.run_folder import RunFolder

CHAIN = {"first": ("second", "third"), "second": ("third",)}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run", lambda name: CHAIN.get(name, ()))
    folder.mark()
    return folder


@pytest.fixture
def do(folder) -> Callable[..., None]:
    """Do a step that writes its value into these files."""

    def act(name: str, value: object, *files: str) -> None:
        def make() -> None:
            for file in files:
                write_text(folder.path(file), f"{name} {value}")

        folder.do(name, [value], sorted({file.partition("/")[0] for file in files}), make)

    return act


def write_folder(folder: RunFolder, name: str, *files: str) -> None:
    """Write a folder as a whole, as SAEs and Parquet folders are."""

    def write(place: Path) -> None:
        for file in files:
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(f"new {file}")

    write_with(folder.path(name), write)


def visible(folder: RunFolder) -> dict[str, str]:
    """The text of each file outside the records."""
    files = [p for p in sorted(folder.root.rglob("*")) if p.is_file()]
    names = {p.relative_to(folder.root).as_posix(): p.read_text() for p in files}
    return {name: text for name, text in names.items() if not name.startswith(".")}


def test_a_rerun_makes_all_that_depends_on_it_stale_and_leaves_its_files(folder, do, capsys):
    for name in ("first", "second", "third"):
        do(name, 1, f"{name}.csv", f"plots/{name}.html")
    do("first", 2, "first.csv", "plots/first.html")
    assert visible(folder)["second.csv"] == "second 1"
    assert folder.stale() == ["plots/second.html", "plots/third.html", "second.csv", "third.csv"]
    for name in ("second", "third"):
        assert not folder.current(f"{name}.csv").exists()
    assert folder.current("first.csv").read_text() == "first 2"
    assert folder.current("plots") == folder.path("plots")
    folder.say_stale()
    line = (
        "kept from an earlier config, not part of this run: plots/ (2 files), second.csv, "
        "third.csv (0.0 MB in all)"
    )
    assert " ".join(capsys.readouterr().err.split()) == line
    do("second", 1, "second.csv", "plots/second.html")
    assert folder.stale() == ["plots/third.html", "third.csv"]


def test_several_renamed_versions_stay_and_their_total_size_is_printed(folder, capsys):
    def edit_and_redo(number: int) -> None:
        folder.path("a/one.csv").write_text("edited" * 100_000 * number)
        write = lambda: write_folder(folder, "a", "one.csv")  # noqa: E731
        folder.do("first", [number], ["a"], write)

    for number in (1, 2, 3):
        if number == 1:
            folder.do("first", [0], ["a"], lambda: write_folder(folder, "a", "one.csv"))
        capsys.readouterr()
        edit_and_redo(number)
        folder.say_stale()
        said = " ".join(capsys.readouterr().err.split())
        size = {2: "2 earlier or edited versions take 1.8 MB", 3: "3 earlier or edited"}
        assert size.get(number, "kept as") in said
        assert ("delete what you no longer need" in said) == (number > 1)
    assert len([*folder.root.glob("a.edited-*/one.csv")]) == 3


def test_several_earlier_folders_outside_a_run_are_said_with_their_size(tmp_path, capsys):
    for number in range(4):
        capsys.readouterr()
        (tmp_path / "new").mkdir()
        (tmp_path / "new/w").write_text("x" * number * 100_000)
        write_with(tmp_path / "sae", lambda place: (tmp_path / "new").rename(place))
        said = " ".join(capsys.readouterr().err.split())
        assert ("earlier or edited versions take" in said) == (number > 1)
    assert "3 earlier or edited versions take 0.3 MB" in said


def test_a_record_that_was_just_written_is_the_one_that_is_read(folder, do):
    path = folder.records.path("first")
    do("first", 1, "a.csv")
    one = path.read_bytes(), path.stat()
    do("first", 2, "a.csv")
    two = path.read_bytes(), folder.records["first"]
    assert len(one[0]) == len(two[0])
    for _ in range(3):  # as if within one tick of the clock, in the same inode
        for text, key_differs in ((one[0], True), (two[0], False)):
            with path.open("r+b") as handle:
                handle.write(text)
            os.utime(path, ns=(one[1].st_atime_ns, one[1].st_mtime_ns))
            assert (folder.records["first"] != two[1]) == key_differs


def test_a_file_that_a_step_no_longer_writes_stays_and_stays_stale(folder, do):
    do("first", 1, "claims.csv", "plots/kl.html")
    do("first", 2, "claims.csv", "plots/margin.html")
    for _ in range(2):
        assert folder.stale() == ["plots/kl.html"]
        do("first", 2, "claims.csv", "plots/margin.html")
    do("first", 3, "claims.csv", "plots/margin.html")
    assert folder.stale() == ["plots/kl.html"]
    folder.path("plots/kl.html").unlink()
    assert folder.stale() == []


def test_a_dropped_step_is_stale_with_its_dependants_and_once_only(folder, do):
    for name in ("second", "third"):
        do(name, 1, f"{name}.csv")
    folder.drop("second")
    assert folder.stale() == ["second.csv", "third.csv"]
    do("third", 1, "third.csv")
    before = {p: p.read_bytes() for p in folder.root.rglob("*") if p.is_file()}
    folder.drop("second")
    folder.drop("unknown")
    assert {p: p.read_bytes() for p in folder.root.rglob("*") if p.is_file()} == before
    do("second", 1, "second.csv")
    assert folder.stale() == ["third.csv"], "done again, and what depends on it must follow"


def test_an_open_step_is_stale_with_what_it_was_built_on(folder, do):
    do("second", 1, "out")
    folder.mark_unfinished("second")
    do("first", 1, "in")
    assert folder.stale() == ["out"] and not folder.is_unfinished("second")


@pytest.mark.parametrize("file", ["claims.csv", "plots", "notes.txt"])
def test_a_file_that_no_step_wrote_is_refused_before_any_work(folder, do, file):
    do("second", 1, "second.csv")
    write_text(folder.path(file), "mine")
    before = {p: p.read_bytes() for p in folder.root.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=f"{file}, which this run did not write.*move it"):
        folder.do("first", [1], [file], lambda: pytest.fail("made"))
    assert {p: p.read_bytes() for p in folder.root.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("file", ["notes.txt", "plots/mine.png", "sweep/notes.txt", "sae/a/b.txt"])
def test_a_user_file_that_is_not_in_the_way_is_left_alone(folder, do, file):
    def make() -> None:
        for name in ("sae", "sweep"):
            write_folder(folder, name, "part", "a/part")
        write_text(folder.path("plots/dose.html"), "")

    for number in range(3):
        folder.do("first", [number], ["sae", "sweep", "plots"], make)
        if not number:
            write_text(folder.path(file), "mine")
    assert visible(folder)[file] == "mine"
    written = ["plots/dose.html", "sae/a/part", "sae/part", "sweep/a/part", "sweep/part"]
    assert sorted(visible(folder)) == sorted([*written, file])
    assert folder.stale() == []


def test_a_folder_of_the_users_alone_is_refused_before_it_is_written(folder):
    write_text(folder.path("sae/cfg.json"), "mine")

    def train() -> None:
        write_with(folder.path("sae"), lambda place: pytest.fail("trained"))

    with pytest.raises(InputError, match=r"sae/cfg\.json, which this run did not write"):
        folder.do("first", [1], ["sae"], train)
    assert visible(folder) == {"sae/cfg.json": "mine"}


@pytest.mark.parametrize("file", ["claims.csv", "plots/dose.png", "archive"])
def test_an_edited_file_is_kept_under_another_name(folder, do, file, capsys):
    path, words = folder.path(file), []
    for number in (1, 2, 3):
        do("first", number, file)
        words.append(f"{path.stem}.edited-{number}{path.suffix}")
        path.write_text(f"mine {number}")
    do("first", 4, file)
    do("first", 5, file)
    assert path.read_text() == "first 5"
    for number, word in enumerate(words, start=1):
        assert path.with_name(word).read_text() == f"mine {number}"
        assert word in capsys.readouterr().err or number > 1
    assert len(visible(folder)) == 4 and folder.stale() == []


def test_an_edited_file_of_a_folder_is_kept_beside_the_folder(folder):
    for number in (1, 2):
        make = lambda: write_folder(folder, "sweep", "rows-0", "rows-1")  # noqa: E731
        folder.do("first", [number], ["sweep"], make)
        if number == 1:
            folder.path("sweep/rows-1").write_text("mine")
    kept = {
        "sweep.edited-1/rows-1": "mine",
        "sweep/rows-0": "new rows-0",
        "sweep/rows-1": "new rows-1",
    }
    assert visible(folder) == kept


def test_a_users_file_that_a_folder_now_has_too_is_kept_beside_it(folder):
    folder.do("first", [1], ["sae"], lambda: write_folder(folder, "sae", "cfg"))
    write_text(folder.path("sae/log"), "mine")
    folder.do("first", [2], ["sae"], lambda: write_folder(folder, "sae", "cfg", "log"))
    assert visible(folder) == {
        "sae.edited-1/log": "mine",
        "sae/cfg": "new cfg",
        "sae/log": "new log",
    }


def test_an_unedited_stale_file_is_replaced_without_a_copy(folder, do):
    do("second", 1, "out")
    do("first", 1, "in")
    do("second", 2, "out")
    assert visible(folder) == {"in": "first 1", "out": "second 2"}


def test_the_target_of_a_link_is_left_alone(folder, tmp_path):
    away = tmp_path / "away"
    folder.do("first", [1], ["acts"], lambda: write_folder(folder, "acts", "shard"))
    folder.path("acts").rename(away)
    folder.path("acts").symlink_to(away)
    folder.do("first", [2], ["acts"], lambda: write_folder(folder, "acts", "shard"))
    assert (away / "shard").exists()
    assert not folder.path("acts").is_symlink() and folder.path("acts/shard").exists()


class StoppedError(Exception):
    """A kill."""


@pytest.mark.parametrize("after", range(12))
def test_a_rerun_stopped_anywhere_loses_nothing_and_the_next_one_is_identical(
    folder, do, monkeypatch, after
):
    """Stopped after so many renames: of records while withdrawing, and of files while writing."""
    for name in ("first", "second", "third"):
        do(name, 1, f"{name}.csv", f"plots/{name}.html")
    folder.path("second.csv").write_text("mine")
    replace, left = Path.replace, [after]

    def stopped(path: Path, target: Path) -> Path:
        if not left[0]:
            raise StoppedError
        left[0] -= 1
        return replace(path, target)

    def rerun() -> None:
        for name in ("first", "second"):
            do(name, 2, f"{name}.csv", f"plots/{name}.html")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stopped)
        with pytest.raises(StoppedError):
            rerun()
    folder.check()
    texts = set(visible(folder).values())
    assert {"mine", "third 1"} <= texts
    assert not folder.is_current("second", [2])
    for name in ("second", "third"):
        if folder.is_current("first", [2]):
            assert not folder.is_current(name, [1]), "built on what is gone"
    rerun()
    assert folder.stale() == ["plots/third.html", "third.csv"]
    assert {"first 2", "second 2", "mine", "third 1"} == set(visible(folder).values())
    assert [p for p in visible(folder) if "edited" in p] == ["second.edited-1.csv"]


@pytest.mark.parametrize("root", ["run", "./run", "other/../run", "link"])
def test_a_file_is_recorded_however_its_path_is_written(folder, tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "other").mkdir()
    for number, name in enumerate(("run/a", "./run/a", str(tmp_path / "run/a"), "link/a")):
        RunFolder(root).do("first", [number], ["a"], partial(write_text, Path(name), "new"))
        assert RunFolder(root).current("a").exists() and RunFolder(root).stale() == []
    RunFolder(root).drop("first")
    assert RunFolder(root).stale() == ["a"]
    assert sorted(visible(folder)) == ["a"]


def test_the_same_inputs_change_no_byte(folder, do):
    for number in (1, 2):
        do("first", number, "a", "plots/b")
        before = {
            p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.root.rglob("*") if p.is_file()
        }
        do("first", number, "a", "plots/b")
        after = {
            p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.root.rglob("*") if p.is_file()
        }
        assert after == before


def test_a_record_holds_names_in_the_folder_and_no_absolute_path(folder, do, tmp_path):
    do("first", 1, "a", "plots/b")
    text = (folder.root / ".steps/first.json").read_text()
    assert set(json.loads(text)["files"]) == {"a", "plots/b"}
    assert str(tmp_path) not in text


def test_a_copied_run_folder_is_the_same_run(folder, do, tmp_path):
    do("first", 1, "a")
    copied = tmp_path / "copy"
    shutil.copytree(folder.root, copied)
    other = RunFolder(copied)
    other.do("first", [2], ["a"], lambda: write_text(other.path("a"), "new"))
    assert visible(other) == {"a": "new"}


def test_after_a_kill_between_record_and_file_the_old_file_is_not_taken_for_edited(
    folder, monkeypatch
):
    """A step may rewrite its own file, as the run does with provenance.json."""
    file = folder.path("about.json")
    with folder.writing("run", "key"):
        write_text(file, "first")

    real = os.replace

    def until_the_file(old: object, new: object, **how: object) -> None:
        if str(new) == str(file):
            raise KeyboardInterrupt
        real(old, new, **how)

    monkeypatch.setattr(os, "replace", until_the_file)
    with pytest.raises(KeyboardInterrupt), folder.writing("run", "key"):
        write_text(file, "second")
    monkeypatch.undo()
    assert file.read_text() == "first"
    with folder.writing("run", "key"):
        write_text(folder.path("other.json"), "other")
    with folder.writing("run", "key"):
        write_text(file, "second")
    assert file.read_text() == "second"
    assert [*folder.root.glob("*edited*")] == []
    assert folder.records["run"].stale == {}
