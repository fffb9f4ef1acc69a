"""A run folder notices every file that has changed since a step wrote it."""

import json
from pathlib import Path

import pytest

from saelens_steer.errors import InputError
from saelens_steer.files import write_text, write_with
from saelens_steer.run_folder import RunFolder
from saelens_steer.step_records import StepRecord


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


HARMS = [truncate, flip, empty, Path.unlink]


@pytest.fixture
def made(tmp_path) -> RunFolder:
    """A folder with a table, a page and a folder of two shards, by two steps."""
    folder = RunFolder(tmp_path / "run", lambda name: ("page",) if name == "table" else ())
    folder.mark()
    do(folder)
    return folder


def do(folder: RunFolder) -> list[str]:
    """Do both steps; the names of those that ran."""
    ran = []

    def table() -> None:
        ran.append("table")
        write_text(folder.path("table.csv"), "a,b\n1,2\n")

        def shards(place: Path) -> None:
            place.mkdir()
            for name in ("one", "two"):
                (place / name).write_text(f"vectors of {name}")

        write_with(folder.path("shards"), shards)

    def page() -> None:
        ran.append("page")
        write_text(folder.path("page.html"), "<p>page</p>")

    folder.do("table", [1], ["table.csv", "shards"], table)
    folder.do("page", [1], ["page.html"], page)
    return ran


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(
    ("file", "runs"),
    [
        ("table.csv", ["table", "page"]),
        ("shards/two", ["table", "page"]),
        ("page.html", ["page"]),
    ],
)
def test_a_damaged_file_is_refused_when_read_and_computed_again_by_a_run(
    made, harm, file, runs, capsys
):
    whole = {p: p.read_bytes() for p in made.root.rglob("*") if p.is_file()}
    assert do(made) == []
    harm(made.path(file))
    name = file.partition("/")[0]
    assert not made.has(name)
    with pytest.raises(
        InputError, match=rf"{file} is missing or was changed after the run: .* --out "
    ):
        made.current(name)
    for other in {"table.csv", "shards", "page.html"} - {name}:
        assert made.has(other)
    again = RunFolder(made.root, made.dependants)
    again.mark()
    assert (
        f"{file} is missing or changed: running the step {runs[0]} again" in capsys.readouterr().err
    )
    assert do(again) == runs
    assert {p: p.read_bytes() for p in whole} == whole
    assert all(map(again.has, ("table.csv", "shards", "page.html")))


def test_every_changed_byte_of_a_record_is_noticed(made):
    path = made.root / ".steps/table.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 32):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(InputError, match=r"table\.json is damaged"):
                made.stale()
    for damaged in (whole[:-1], whole + b"\n", b"", b"null", b"[]", whole * 2):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"table\.json is damaged"):
            made.stale()
    path.write_bytes(whole)
    made.stale()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "a\0b"])
def test_a_record_that_names_a_file_elsewhere_is_refused(made, name):
    made.records["page"] = StepRecord("0", files={name: "0"})
    with pytest.raises(InputError, match="is not a path inside"):
        made.mark()


def test_a_file_changed_and_changed_back_is_judged_by_its_content(made):
    path, whole = made.path("table.csv"), made.path("table.csv").read_bytes()
    for _ in range(3):
        flip(path)
        assert not made.has("table.csv")
        path.write_bytes(whole)
        assert made.has("table.csv")


def test_a_record_is_the_json_that_a_reader_expects(made):
    found = json.loads((made.root / ".steps/table.json").read_text())
    assert [*found] == ["digest", "key", "files", "stale"]
    assert sorted(found["files"]) == ["shards/one", "shards/two", "table.csv"]
