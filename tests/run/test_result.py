"""A result that is saved, loaded and reported without a run."""

from __future__ import annotations

import pandas as pd
import pytest
from saes import random_sae

import saelens_steer as ss

HOOK = "blocks.4.hook_resid_pre"


@pytest.fixture(scope="module")
def result(tiny_model) -> ss.Result:
    sae = random_sae(tiny_model.cfg.d_model, HOOK)
    return ss.sweep(
        tiny_model,
        sae,
        ss.load_prompts("tiny-code-math-mixed", 4),
        features=[3, 5],
        alphas=(-2.0, 2.0),
        alpha_unit="unit",
        metrics=["kl", ss.margin(target="latex_delimiters", name="NA"), "distinct_words"],
        n_controls=24,
        completions={"max_new_tokens": 6, "top": 1, "n_controls": 1},
    )


@pytest.fixture(scope="module")
def loaded(result, tmp_path_factory) -> ss.Result:
    return ss.Result.load(result.save(tmp_path_factory.mktemp("saved") / "result"))


@pytest.mark.parametrize("table", ["rows", "summary", "claims", "by_family", "completions"])
def test_a_loaded_result_has_the_same_tables(result, loaded, table):
    own, other = getattr(result, table), getattr(loaded, table)
    columns = [*own.columns]
    pd.testing.assert_frame_equal(other[columns], own, check_dtype=False, check_like=True)


def test_a_loaded_result_says_the_same(result, loaded):
    assert loaded.headline == result.headline
    assert loaded.warnings == result.warnings
    assert loaded.metrics == result.metrics
    assert loaded.about["model"]["fingerprint"] == result.about["model"]["fingerprint"]
    assert repr(loaded) == repr(result)
    assert len(repr(result).splitlines()) <= 5
    assert "headline" not in result._repr_html_()


def test_the_page_is_that_of_the_saved_folder(result, loaded, tmp_path):
    first, second = (
        one.report(tmp_path / f"{i}" / "page.html") for i, one in enumerate((result, loaded))
    )
    assert first.read_text() == second.read_text()
    for sentence in (result.headline, "What was run", *result.warnings):
        assert sentence.split(":")[0].split("<")[0] in first.read_text().replace("&#39;", "'")


def test_a_folder_with_other_files_is_left_alone(result, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ss.InputError, match="holds no run"):
        result.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ss.InputError, match="holds no result"):
        ss.Result.load(tmp_path)


def test_saving_again_replaces_the_result(result, tmp_path):
    once = result.save(tmp_path / "result")
    again = ss.Result.load(once).save(once)
    assert ss.Result.load(again).headline == result.headline
