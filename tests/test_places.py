"""A folder where a run writes a file, or a file where it keeps a folder, is refused by its path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saelens_steer.cli import app
from saelens_steer.config import draft_config
from saelens_steer.errors import InputError
from saelens_steer.files import write_text, write_with
from saelens_steer.pipeline.rules import check_config
from saelens_steer.pipeline.step_table import STEPS
from saelens_steer.run_folder import HALVED, TRACEBACK, WRITTEN_ALWAYS, RunFolder

DRAFT = draft_config(
    {
        "sae": {"train": {}, "frozen_decoder_baseline": True, "grid": [{"vary": {"k": [2]}}]},
        "compare_edits": {"variants": {"a": ["reconstruct"]}},
        "sweep": {"completions": {"files": True}},
        **{"compare_directions": {}, "tradeoffs": {}},
    }
)
WANTED = [one for one in STEPS if one.is_wanted(DRAFT.spec)]
OUTPUTS = {name: one.name for one in WANTED for name in one.writes(DRAFT.spec)}
FILES = [name for name in OUTPUTS if Path(name).suffix]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.mark()
    return folder


def everything(folder: RunFolder) -> dict[str, bytes | None]:
    """Every file and folder, with the contents of files."""
    found = sorted(folder.root.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


def refused(folder: RunFolder, until: str = "report") -> str:
    before = everything(folder)
    with pytest.raises(InputError) as refusal:
        check_config(DRAFT, folder.root, until)
    assert everything(folder) == before
    return str(refusal.value)


@pytest.mark.parametrize("held", [(), ("mine.txt",)])
@pytest.mark.parametrize("name", ["config.yaml", "claims.csv", TRACEBACK])
def test_a_command_that_meets_a_folder_in_place_of_a_file_ends_with_two(folder, name, held):
    place = folder.path(name)
    place.mkdir()
    for file in held:
        (place / file).write_text("mine")
    before = everything(folder)
    done = CliRunner().invoke(
        app, ["run", "configs/tiny/code_vs_math.yaml", "--out", str(folder.root)]
    )
    assert done.exit_code == 2
    assert f"{place} is a folder, but a run writes a file there: move it" in done.stderr
    assert everything(folder) == before


@pytest.mark.slow
def test_a_folder_in_place_of_any_file_is_refused_by_its_path(folder):
    assert len(FILES) > 20
    for name in (*FILES, *WRITTEN_ALWAYS, TRACEBACK, HALVED):
        place = folder.path(name)
        place.mkdir(parents=True)
        said = refused(folder, OUTPUTS.get(name, "report"))
        assert f"{place} is a folder, but a run writes a file there" in said
        shutil.rmtree(folder.root)
        folder.mark()


def test_a_file_in_place_of_any_folder_is_refused_by_its_path(folder):
    folders = {name: name for name in OUTPUTS if name not in FILES}
    folders |= {Path(name).parts[0]: name for name in (*OUTPUTS, HALVED) if "/" in name}
    assert {"sweep", "plots", "grid", ".store"} <= folders.keys()
    for name, output in folders.items():
        folder.path(name).parent.mkdir(exist_ok=True)
        folder.path(name).write_text("mine")
        said = refused(folder, OUTPUTS.get(output, "report"))
        assert name in said and "move it elsewhere and rerun" in said, name
        shutil.rmtree(folder.root)
        folder.mark()


def test_a_folder_in_place_of_a_part_of_an_output_is_refused_before_anything_is_removed(folder):
    def write(*parts: str) -> None:
        def fill(place: Path) -> None:
            for part in parts:
                (place / part).parent.mkdir(parents=True, exist_ok=True)
                (place / part).write_text("new")

        folder.do("train", parts, ["sae"], lambda: write_with(folder.path("sae"), fill))

    write("a.json")
    write_text(folder.path("sae/b.json/notes.txt"), "mine")
    before = (folder.path("sae/a.json").read_text(), folder.path("sae/b.json/notes.txt"))
    with pytest.raises(InputError, match=r"sae/b\.json is a folder, but a run writes a file there"):
        write("a.json", "b.json")
    assert folder.path("sae/a.json").read_text() == before[0] and before[1].read_text() == "mine"
    folder.path("sae/b.json").rename(folder.root.parent / "elsewhere")
    write("a.json", "b.json")
    folder.path("sae/a.json").unlink()
    folder.path("sae/a.json").mkdir()
    assert f"{folder.path('sae/a.json')} is a folder" in refused(folder)
