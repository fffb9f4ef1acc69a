"""Laws of writing: a reader sees all of a file or what was there before."""

import contextlib
import errno
import gzip
import json
import os
import re
from pathlib import Path

import pytest

from saelens_steer.errors import InputError
from saelens_steer.files import (
    digest,
    file_digest,
    inside,
    read_json,
    read_jsonl,
    read_text,
    remove,
    replacing,
    write_json,
    write_jsonl,
    write_text,
    write_with,
)


class SafetensorsLikeError(Exception):
    """Not an OSError, as the one of safetensors."""


@pytest.fixture(params=["file", "folder", "nothing"])
def place(request, tmp_path) -> Path:
    """A path at which something stands already, or nothing."""
    path = tmp_path / "place"
    if request.param == "file":
        path.write_text("old")
    elif request.param == "folder":
        path.mkdir()
        (path / "part").write_text("old")
    return path


def contents(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("half", ["file", "folder", "nothing"])
def test_an_error_inside_leaves_nothing_behind_and_keeps_what_was_there(place, half, error):
    before = contents(place.parent)
    with contextlib.suppress(error), replacing(place) as temporary:
        if half == "folder":
            temporary.mkdir()
            (temporary / "part").write_text("new")
        elif half == "file":
            temporary.write_text("new")
        raise error
    assert contents(place.parent) == before


def test_until_the_end_a_reader_sees_the_old_file(tmp_path):
    path = write_text(tmp_path / "a" / "b.txt", "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole_and_kept_if_it_differs(tmp_path):
    path = tmp_path / "folder"
    for name in ("old", "new"):
        for _ in range(2):
            with replacing(path) as temporary:
                temporary.mkdir()
                (temporary / "part").write_text(name)
    assert contents(tmp_path) == {"folder/part": "new", "folder.earlier-1/part": "old"}


@pytest.mark.parametrize("other", ["notes.txt", "shard-9.safetensors", "inner/notes.txt"])
def test_a_folder_with_files_that_the_new_one_lacks_is_kept_under_another_name(
    tmp_path, other, capsys
):
    path = tmp_path / "folder"
    for text in ("1", "2"):
        write_text(path / other, text)
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "part").write_text(text)
        assert f"held a different {other}: the old folder is now" in " ".join(
            capsys.readouterr().err.split()
        )
    kept = {f"folder.earlier-{n}/{other}": str(n) for n in (1, 2)}
    assert contents(tmp_path) == kept | {"folder/part": "2", "folder.earlier-2/part": "1"}


def test_leftovers_of_a_killed_process_with_the_same_id_do_not_block_a_run(tmp_path):
    left = tmp_path / f".folder.{os.getpid()}.tmp"
    left.mkdir()
    (left / "half").write_text("half")
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        SafetensorsLikeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_stops_with_one_sentence_and_leaves_nothing(place, error):
    before = contents(place.parent)

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(InputError, match=r"the disk is full: free some space for .*place"):
        write_with(place, write)
    assert contents(place.parent) == before


def test_another_error_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(SafetensorsLikeError), replacing(tmp_path / "x"):
        raise SafetensorsLikeError("bad header")
    for error in (
        OSError(errno.EIO, "gone", str(tmp_path / "y")),  # what was read
        ConnectionResetError(errno.ECONNRESET, "gone"),
        TimeoutError(errno.ETIMEDOUT, "gone"),
    ):
        with pytest.raises(OSError, match="gone"), replacing(tmp_path / "x"):
            raise error


@pytest.mark.parametrize("number", ["EIO", "ESTALE", "EMFILE", "ENFILE", "EFBIG", "EROFS", "ENXIO"])
@pytest.mark.parametrize("named", [True, False])
def test_system_errors_name_the_path_and_leave_the_old_file(tmp_path, number, named):
    place, number = write_text(tmp_path / "x", "old"), getattr(errno, number)

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(number, "whatever", *([str(temporary / "part")] if named else []))

    with pytest.raises(InputError, match=rf"cannot write .*/x: {re.escape(os.strerror(number))}$"):
        write_with(place, write)
    with pytest.raises(InputError, match=f"cannot write .*/x: {re.escape(os.strerror(number))}$"):
        write_with(place, lambda _: fail(f"I/O error: whatever (os error {number})"))
    assert contents(tmp_path) == {"x": "old"}


def fail(message: str) -> None:
    raise SafetensorsLikeError(message)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_text, lambda path: list(read_jsonl(path))):
        with pytest.raises(InputError, match="pipe is not a regular file: give a regular file"):
            read(tmp_path / "pipe")


def test_a_folder_that_cannot_be_written_to_stops_with_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot write"):
            write_text(place, "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*folder"):
        write_text(tmp_path / "folder", "text")


def test_json_holds_null_where_python_holds_nan_or_infinity(tmp_path):
    data = {"a": float("nan"), "b": [1.5, float("inf"), {"c": float("-inf")}], "d": (1, "é")}
    expected = {"a": None, "b": [1.5, None, {"c": None}], "d": [1, "é"]}
    text = write_json(tmp_path / "x.json", data).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == expected
    lines = write_jsonl(tmp_path / "x.jsonl", [data, {}]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [expected, {}]


def test_no_rows_are_an_empty_file(tmp_path):
    assert write_jsonl(tmp_path / "x.jsonl", []).read_text() == ""


def test_removing_takes_files_folders_links_and_nothing(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").write_text("")
    for name in ("folder", "link", "file", "nothing"):
        remove(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_equal_parts_have_equal_digests_and_other_parts_others():
    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    others = [digest("a", "b"), digest("ab"), digest(["a", "b"]), digest("a", "b", None)]
    assert len({*others, digest("b", "a")}) == 5
    assert len(digest()) == 16 and int(digest(), 16) >= 0


def test_a_file_digest_depends_on_names_and_bytes(tmp_path):
    a = write_text(tmp_path / "a", "text")
    same = write_text(tmp_path / "other" / "a", "text")
    assert file_digest(a) == file_digest(same)
    assert file_digest(a) != file_digest(write_text(tmp_path / "b", "text"))
    assert file_digest(a) != file_digest(write_text(same, "texts"))


@pytest.fixture
def linked(tmp_path) -> Path:
    """A folder with links to its neighbour, to itself, to a folder in it and to each other."""
    home = tmp_path / "home"
    (home / "real").mkdir(parents=True)
    (tmp_path / "home-too").mkdir()
    for link, to in {
        "away": "../home-too",
        "up": "..",
        "absolute": str(tmp_path / "home-too"),
        "near": "real",
        "real/back": "..",
        "ring": "gnir",
        "gnir": "ring",
    }.items():
        (home / link).symlink_to(to)
    return home


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "./", "./.", "/", "..", "../", "../home-too/a", "a/..", "a/../..", "real/../a"),
        *("/nowhere/a", "//nowhere/a", "away/a", "up/a", "absolute/a", "near/../a"),
        *("real/back/away/a", "ring/a", "a\0b", "\0", "\ud800", "a" * 300, "a/" * 3000 + "a"),
    ],
)
def test_a_name_that_leads_out_of_its_folder_or_nowhere_is_refused(linked, name):
    with pytest.raises(InputError, match=r"is not a path inside .*home") as refused:
        inside(linked, name)
    assert "\n" not in str(refused.value)


def test_an_absolute_name_is_refused_even_of_a_place_in_the_folder(linked, monkeypatch):
    with pytest.raises(InputError, match="is not a path inside"):
        inside(linked, str(linked / "real"))
    monkeypatch.chdir(linked)
    with pytest.raises(InputError, match="is not a path inside"):
        inside(".", str(linked / "real"))


@pytest.mark.parametrize(
    "name", ["a", "real/a", "...", ".a", "..a/b..", "new/b/c", "near/a", "up/home/a", "a b\n"]
)
def test_other_names_are_places_in_the_folder_be_it_there_or_not(linked, name, monkeypatch):
    assert inside(linked, name) == linked / name
    assert inside(linked / "new", name) == linked / "new" / name
    monkeypatch.chdir(linked)
    assert inside(".", name) == Path(name)
    assert inside("../home-too", "a") == Path("../home-too/a")


def test_the_place_itself_may_be_a_link_and_so_may_the_folder(linked):
    assert inside(linked, "away") == linked / "away"
    assert inside(linked / "near", "a") == linked / "near/a"
    remove(inside(linked, "away"))
    assert linked.with_name("home-too").is_dir() and not (linked / "away").is_symlink()


@pytest.mark.parametrize("data", [b"{", b"", b"[" * 100_000, b"{'a': 1}", b'{"a": "\xff"}'])
def test_a_damaged_json_file_is_refused_by_its_name(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.json (line 1 is not UTF-8|is not valid JSON)"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\x1f\x8b\x08\x00", gzip.compress(b"a" * 99, mtime=0)[:-9]]
)
def test_a_damaged_gzip_file_is_refused_by_its_name(tmp_path, data):
    (tmp_path / "x.txt.gz").write_bytes(data or b"\x1f")
    with pytest.raises(InputError, match=r"x\.txt\.gz is damaged or not a gzip file"):
        read_text(tmp_path / "x.txt.gz")
