"""Laws of the step table: it says what there is, what builds on what, and what is done again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saelens_steer.config import RunSpec, parse_config
from saelens_steer.pipeline import step_table
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.run import carry_out
from saelens_steer.pipeline.run_folder import RunFolder
from saelens_steer.pipeline.step import RunInput, Step
from saelens_steer.pipeline.step_table import STEPS, dependants, needed, step

INPUTS = {"model", "hook_name", "prompts", "metrics"}
"""Sections that several steps read and none has for its own."""
EVERYTHING = {
    "label": {
        "provider": "openai-compatible",
        "server": {"base_url": "http://localhost:1/v1", "model": "m"},
    },
    "compare_edits": {"variants": {"through the SAE": ["reconstruct"]}},
    "compare_directions": {},
    "tradeoffs": {},
    "sae": {"train": {}, "frozen_decoder_baseline": True, "grid": [{"vary": {"k": [8]}}]},
}


def names(steps: list[Step]) -> list[str]:
    return [one.name for one in steps]


def changed(overrides: list[str], given: dict | None = None) -> set[str]:
    """The steps whose own inputs differ once these settings are changed."""
    old, new = (parse_config(EVERYTHING | (given or {}), sets) for sets in ([], overrides))
    return {one.name for one in STEPS if one.reads(old) != one.reads(new)}


def redone(overrides: list[str]) -> set[str]:
    """The steps that a changed setting does again, those made from others included."""
    own = changed(overrides)
    return own | {later for name in own for later in dependants(name)}


def test_each_section_of_a_config_is_a_steps_own_or_an_input_of_several():
    own = {one.section.partition(".")[0] for one in STEPS if one.section}
    assert own | INPUTS == set(RunSpec.model_fields) and not own & INPUTS


def test_a_step_stands_behind_what_it_is_made_from_and_every_part_has_a_whole():
    seen: set[str] = set()
    for one in STEPS:
        assert {*one.after} <= seen, one.name
        seen.add(one.name)
    assert {one.part_of for one in STEPS if one.part_of} <= seen
    assert len(seen) == len(STEPS)


def test_no_file_has_two_writers():
    spec = parse_config(EVERYTHING, ["sweep.completions.files=true"])
    written = [file for one in STEPS for file in (*one.writes(spec), *one.derived)]
    assert len(set(written)) == len(written)


def test_every_builder_exists_and_every_run_input_is_known():
    spec = parse_config(EVERYTHING, [])
    for one in STEPS:
        assert callable(one.builder())
        for part in one.reads(spec):
            if isinstance(part, RunInput):
                assert hasattr(RunContext, part) or part in RunContext.__annotations__, part


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("sweep.alphas=[-1,0,1]", {"sweep", "frozen_decoder_baseline", "report"}),
        ("sweep.n_controls=7", {"sweep", "frozen_decoder_baseline", "report"}),
        ("label.server.timeout=7", {"report"}),
        ("label.server.max_requests=7", {"report"}),
        ("label.server.model=other", {"label", "report"}),
        ("features.window=3", {"feature_data", "features", "report"}),
        ("sae.train.resume=true", {"report"}),
        ("compare_edits.max_new_tokens=9", {"compare_edits", "report"}),
        ("tradeoffs.limit=2", {"tradeoffs", "report"}),
        ("compare_directions.k=2", {"compare_directions", "report"}),
    ],
)
def test_a_changed_setting_does_again_what_depends_on_it_and_nothing_else(setting, again):
    assert redone([setting]) == again


def test_a_changed_selection_does_everything_made_from_it_again_but_neither_cache_nor_sae():
    kept = {"cache", "train", "quality", "grid", "frozen_decoder_baseline_sae"}
    assert redone(["select.k=3"]) == {*names(list(STEPS))} - kept


def test_a_causal_score_reads_where_directions_are_pushed_and_a_contrast_does_not():
    where = ["sweep.positions=last"]
    assert "select" not in changed(where)
    assert "select" in changed(where, {"select": {"score": "output_score"}})


@pytest.mark.parametrize(
    ("until", "done"),
    [
        ("cache", ["cache"]),
        ("train", ["train", "quality"]),
        ("sweep", ["cache", "train", "quality", "select", "sweep"]),
        ("features", ["cache", "train", "quality", "select", "feature_data", "features"]),
        (
            "label",
            [
                *("cache", "train", "quality", "select", "feature_data", "features"),
                *("label_evidence", "label"),
            ],
        ),
        ("grid", ["grid"]),
    ],
)
def test_a_step_is_done_with_what_it_is_made_from_and_nothing_else(until, done):
    assert names(needed(until)) == done


def test_the_report_needs_every_step_but_the_grid():
    assert names(needed("report")) == [one.name for one in STEPS if one.name != "grid"]


def test_the_table_and_the_help_need_no_torch():
    code = (
        "import sys; import saelens_steer.pipeline.step_table, saelens_steer.cli; "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BUILDER = '''
def count(run):
    """How many features select has chosen."""
    (run.folder.path("count.txt")).write_text(str(run.spec.select.k))
'''


@pytest.fixture
def added(tmp_path, monkeypatch) -> Step:
    """A step that somebody adds: an entry of the table, and a module with its builder."""
    (tmp_path / "counting.py").write_text(BUILDER)
    monkeypatch.syspath_prepend(tmp_path)
    new = Step(
        name="count_features",
        help="Count the features.",
        build="counting:count",
        writes=lambda spec: ("count.txt",),
        reads=lambda spec: [spec.select.k],
    )
    monkeypatch.setattr(step_table, "STEPS", (*STEPS, new))
    return new


def test_adding_a_step_touches_the_table_and_its_module_alone(added, tmp_path):
    def done(k: int) -> str:
        spec = parse_config({"select": {"k": k}}, [])
        folder = RunFolder(tmp_path / "run", dependants)
        carry_out(step("count_features"), RunContext(spec, folder, None, "hook", (), ()))
        return (tmp_path / "run/count.txt").read_text()

    assert done(3) == "3"
    (tmp_path / "run/count.txt").write_text("kept")
    assert done(3) == "kept"
    assert done(4) == "4"
    assert names(needed("count_features")) == ["count_features"]


def test_an_added_step_has_a_command_with_its_help(added):
    import typer

    from saelens_steer.cli.steps import add_commands

    app = typer.Typer()
    add_commands(app)
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert "count-features" in said and "Count the features." in said


def test_a_run_folder_knows_its_steps_by_the_table(tmp_path: Path):
    folder = RunFolder(tmp_path, dependants)
    for name in ("select", "sweep", "report"):
        folder.do(name, [1], [f"{name}.txt"], lambda n=name: (tmp_path / f"{n}.txt").touch())
    folder.do("select", [2], ["select.txt"], lambda: (tmp_path / "select.txt").touch())
    assert sorted(p.name for p in tmp_path.glob("*.txt")) == ["select.txt"]
