"""Laws of the step table: which steps exist, what they depend on, and what reruns them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from saelens_steer.config import RunSpec, parse_config
from saelens_steer.errors import InputError
from saelens_steer.files import write_text
from saelens_steer.pipeline import step_table
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.run import carry_out
from saelens_steer.pipeline.step import RunInput, Step
from saelens_steer.pipeline.step_table import CUSTOM, STEPS, dependants, needed, step
from saelens_steer.run_folder import RunFolder
from saelens_steer.steering import save_vectors

INPUTS = {"model", "hook_name", "prompts", "metrics"}
"""Config sections that several steps share."""
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
    """The steps whose own inputs change with these settings."""
    old, new = (parse_config(EVERYTHING | (given or {}), sets) for sets in ([], overrides))
    return {one.name for one in STEPS if one.reads(old) != one.reads(new)}


def redone(overrides: list[str]) -> set[str]:
    """The steps that a changed setting reruns, dependants included."""
    own = changed(overrides)
    return own | {later for name in own for later in dependants(name)}


def test_each_config_section_belongs_to_one_step_or_is_shared():
    own = {one.section.partition(".")[0] for one in STEPS if one.section}
    assert own | INPUTS == set(RunSpec.model_fields) and not own & INPUTS


def test_a_step_comes_after_its_dependencies_and_parts_belong_to_a_step():
    seen: set[str] = set()
    for one in STEPS:
        assert {*one.after} <= seen, one.name
        seen.add(one.name)
    assert {one.part_of for one in STEPS if one.part_of} <= seen
    assert len(seen) == len(STEPS)


def test_no_file_has_two_writers():
    spec = parse_config(EVERYTHING, ["sweep.completions.files=true"])
    written = [file for one in STEPS for file in one.writes(spec)]
    assert len(set(written)) == len(written)


def test_every_builder_and_run_input_exists():
    spec = parse_config(EVERYTHING, [])
    for one in STEPS:
        assert callable(one.builder())
        for part in one.reads(spec):
            if isinstance(part, RunInput):
                assert hasattr(RunContext, part) or part in RunContext.__dataclass_fields__, part


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
def test_a_changed_setting_reruns_exactly_what_depends_on_it(setting, again):
    assert redone([setting]) == again


def test_a_changed_selection_reruns_all_that_follows_but_neither_cache_nor_sae():
    kept = {"cache", "train", "quality", "audit", "grid", "frozen_decoder_baseline_sae"}
    assert redone(["select.k=3"]) == {*names(list(STEPS))} - kept


def test_a_causal_score_reads_the_steered_positions_and_a_contrast_does_not():
    where = ["sweep.positions=last"]
    assert "select" not in changed(where)
    assert "select" in changed(where, {"select": {"score": "output_score"}})


@pytest.mark.parametrize(
    ("until", "done"),
    [
        ("cache", ["cache"]),
        ("train", ["train", "quality", "audit"]),
        ("sweep", ["cache", "train", "quality", "audit", "select", "sweep"]),
        ("features", ["cache", "train", "quality", "audit", "select", "feature_data", "features"]),
        (
            "label",
            [
                *("cache", "train", "quality", "audit", "select", "feature_data", "features"),
                *("label_evidence", "label"),
            ],
        ),
        ("grid", ["grid"]),
    ],
)
def test_a_command_runs_a_step_and_its_dependencies_only(until, done):
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
from saelens_steer.files import write_text


def count(run):
    """Write the number of features to select."""
    write_text(run.folder.path("count.txt"), str(run.spec.select.k))
'''


@pytest.fixture
def added(tmp_path, monkeypatch) -> Step:
    """A step added by a user: a table entry, and a module with its builder."""
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


def test_adding_a_step_takes_an_entry_and_a_module(added, tmp_path):
    def done(k: int) -> str:
        spec = parse_config({"select": {"k": k}}, [])
        folder = RunFolder(tmp_path / "run", dependants)
        carry_out(step("count_features"), RunContext(spec, folder, None, "hook", (), ()))
        return (tmp_path / "run/count.txt").read_text()

    assert done(3) == "3"
    written = (tmp_path / "run/count.txt").stat().st_mtime_ns
    assert done(3) == "3" and (tmp_path / "run/count.txt").stat().st_mtime_ns == written
    assert done(4) == "4"
    assert names(needed("count_features")) == ["count_features"]


def test_an_added_step_has_a_command_with_its_help(added):
    import typer

    from saelens_steer.cli.steps import add_commands

    app = typer.Typer()
    add_commands(app)
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert "count-features" in said and "Count the features." in said


def test_a_rerun_step_makes_stale_what_the_table_says_depends_on_it(tmp_path: Path):
    folder = RunFolder(tmp_path, dependants)
    for name in ("select", "sweep", "report"):
        folder.do(name, [1], [f"{name}.txt"], lambda n=name: write_text(tmp_path / f"{n}.txt", n))
    folder.do("select", [2], ["select.txt"], lambda: write_text(tmp_path / "select.txt", "2"))
    assert folder.stale() == ["report.txt", "sweep.txt"]


def test_code_and_files_that_a_config_names_enter_the_keys_of_the_steps_that_use_them(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "my_own_edit.py"
    module.write_text("def turn(target, amount, context):\n    return None\n")
    path = save_vectors(tmp_path / "v.safetensors", {"a": torch.ones(4)}, "blocks.1.hook_resid_pre")
    spec = parse_config(
        {
            "sweep": {"edit": {"custom": {"function": "my_own_edit:turn"}}},
            "tradeoffs": {"directions": [str(path), "linear_probe"]},
        }
    )
    assert spec.from_elsewhere == ("my_own_edit:turn", str(path))
    context = RunContext.__new__(RunContext)
    context.spec = spec
    before = context.custom_version
    save_vectors(path, {"a": 2 * torch.ones(4)}, "blocks.1.hook_resid_pre")
    module.write_text("def turn(target, amount, context):\n    return 3\n")
    after = context.custom_version
    assert all(old != new for old, new in zip(before, after, strict=True))
    reading = {step.name for step in STEPS if step.is_wanted(spec) and CUSTOM in step.reads(spec)}
    assert {"sweep", "tradeoffs"} <= reading
    path.unlink()
    with pytest.raises(InputError, match="there is no file"):
        _ = context.custom_version
