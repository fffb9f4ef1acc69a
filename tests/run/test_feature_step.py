"""The features step of a run, and the command that repeats it with other features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prompt_files import prompt_file, small_run

from saelens_steer.config import parse_config
from saelens_steer.errors import InputError
from saelens_steer.pipeline.run import run

HOOK = "blocks.2.hook_resid_pre"


@pytest.fixture(scope="module")
def parts(tmp_path_factory, random_folder) -> dict[str, Any]:
    """A config with the random model, an SAE of 32 features, and a topic of three categories."""
    home = tmp_path_factory.mktemp("parts")
    return small_run(home, random_folder, HOOK, 2) | {
        "features": {
            "topic": prompt_file(home / "topic.jsonl", "topic", ["car", "bus", "bus", "ship"]),
            "contexts": 3,
        },
        "sweep": {"alphas": [1], "n_controls": 4, "completions": {"max_new_tokens": 2, "top": 1}},
        "metrics": ["kl", "latex_first"],
    }


def pages_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "feature_pages.json").read_text(encoding="utf-8"))


def shown_in(folder: Path) -> list[int]:
    return [page["feature"] for page in pages_in(folder)["pages"]]


@pytest.fixture(scope="module")
def done(parts, tmp_path_factory) -> Path:
    """A finished run. Tests that change it rely on their order in this file."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(parse_config(parts), folder)
    return folder


def test_the_candidates_of_both_sides_are_shown_with_the_categories_of_the_topic(done):
    chosen = json.loads((done / "features.json").read_text())
    own = [f for side in ("code", "math") for f in chosen[f"{side}_candidates"]]
    data = pages_in(done)
    assert shown_in(done) == own and data["sides"] == ["code", "math"]
    assert data["topic"]["categories"] == ["car", "bus", "ship"]
    assert data["topic"]["n_prompts"] == [1, 2, 1]
    for page in data["pages"]:
        assert page["feature"] in chosen[f"{page['side']}_candidates"]
        assert page["firing"]["a_max"] == chosen["max_act"][str(page["feature"])]
    report = (done / "report.html").read_text(encoding="utf-8")
    alone = (done / "features.html").read_text(encoding="utf-8")
    for text in (report, alone):
        assert text.count('<details class="feature"') == len(own)
    assert (done / "plots" / "topic_bars.html").is_file()


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (
            ["--set", "features.also=[32]"],
            "32 is out of range: the SAE has features 0 to 31",
        ),
        (["--set", "sweep.alphas=[2]"], "only features.*"),
        (["--set", "features.contets=3"], "contexts"),
        (["--set", "features.contexts=0"], "features.contexts"),
        (["--set", "features.topic=nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_an_impossible_request_is_one_sentence_and_changes_nothing(done, said, args, hint):
    before = (done / "features.html").stat().st_mtime_ns
    status, out, errors = said("features", str(done), *args)
    assert (status, out) == (2, "")
    assert hint in errors and len(errors.strip().splitlines()) == 1
    assert (done / "features.html").stat().st_mtime_ns == before
    assert (done / "report.html").exists()


def test_a_run_that_has_chosen_no_features_is_refused(parts, said, tmp_path):
    run(parse_config(parts), tmp_path / "run", until="train")
    status, _, errors = said("features", tmp_path / "run")
    assert status == 2 and "has no selected features yet" in errors
    assert not (tmp_path / "run/features.json").exists()


def test_a_folder_without_a_run_is_refused(said, tmp_path):
    status, _, errors = said("features", str(tmp_path))
    assert status == 2 and "is not a run folder" in errors


def test_a_topic_longer_than_the_model_is_refused_before_any_work(parts, tmp_path):
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"text": "word " * 600, "domain": "d"}))
    spec = parse_config({**parts, "features": {"topic": str(long)}})
    with pytest.raises(InputError, match="n_ctx=512"):
        run(spec, tmp_path / "run", until="features")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_adds_features_and_remeasures_nothing_else(done, said):
    kept = ["features.json", "interference.csv", "completions.jsonl"]
    before = [(done / name).stat().st_mtime_ns for name in kept]
    chosen = shown_in(done)
    status, out, errors = said("features", str(done), "--set", "features.also=[31,30]")
    assert (status, out.splitlines()[-1]) == (0, str(done / "features.html")), errors
    assert shown_in(done) == [*chosen, *(f for f in (31, 30) if f not in chosen)]
    assert [(done / name).stat().st_mtime_ns for name in kept] == before
    assert 'id="f31"' in (done / "report.html").read_text(encoding="utf-8"), "the report too"
    again = (done / "features.html").stat().st_mtime_ns
    assert said("features", str(done))[0] == 0, "the config of the run has the features now"
    assert (done / "features.html").stat().st_mtime_ns == again


def test_pages_cover_all_tokens_whatever_the_run_cached(parts, tmp_path):
    both = [{**parts, "activations": {"tokens": tokens}} for tokens in ("all", "last")]
    named = {**parts["sweep"], "features": [1, 2]}
    for config, name in zip(both, ("all", "last"), strict=True):
        made = run(parse_config({**config, "sweep": named}), tmp_path / name, until="features")
        assert made == tmp_path / name / "features.html"
    own, other = (pages_in(tmp_path / name) for name in ("all", "last"))
    assert own["n_tokens"] == other["n_tokens"] > 8
    pages = {page["feature"]: page for page in own["pages"]}
    for page in other["pages"]:
        if page["feature"] in (1, 2):
            assert page["firing"]["a_max"] == pages[page["feature"]]["firing"]["a_max"]


def test_a_decoder_only_sae_has_pages_of_what_it_writes(parts, tmp_path):
    source = str(Path(parts["sae"]["load"]["source"]).with_name("decoder"))
    sweep = {**parts["sweep"], "features": [5, 7]}
    config = {**parts, "sae": {"load": {"source": source}}, "sweep": sweep}
    run(parse_config(config), tmp_path / "run", until="features")
    data = pages_in(tmp_path / "run")
    assert shown_in(tmp_path / "run") == [5, 7] and data["topic"] is None
    assert all(page["firing"] is None and page["raised"] for page in data["pages"])
