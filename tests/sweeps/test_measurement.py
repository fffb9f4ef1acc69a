"""`ss.sweep`: one call from a model, an SAE and prompts to tables, a sentence and a figure."""

import pandas as pd
import pytest
import torch
from saes import random_sae

import saelens_steer as ss
from saelens_steer.config import MarginMetric, PromptSpec, SweepSpec
from saelens_steer.data import check_disjoint
from saelens_steer.metrics import metric_specs, metrics_version
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import Measurement, Store

PROMPTS = [ss.Prompt(str(i), f"sum of {i} numbers and {i} more" + "!" * i, "d") for i in range(5)]
METRICS = (MarginMetric.model_validate({"margin": {"name": "m", "target": {"ids": [40]}}}), "kl")
SMALL = {"features": [3, 5], "alphas": [-4, 0, 4], "alpha_unit": "unit", "n_controls": 50}


@pytest.fixture(scope="module")
def sae(random_model):
    return random_sae(random_model.cfg.d_model)


@pytest.fixture(scope="module")
def result(random_model, sae):
    return ss.sweep(random_model, sae, PROMPTS, metrics=METRICS, **SMALL)


def test_there_is_a_row_for_every_direction_strength_and_prompt(result):
    assert len(result.rows) == (2 + 50) * 3 * 5
    assert not result.rows.duplicated(["direction", "alpha", "prompt_id"]).any()
    assert set(result.rows["family"]) == {"candidate", "covariance"}
    assert result.completions.empty


def test_alpha_zero_is_the_baseline_of_every_direction(result):
    zero = result.rows[result.rows["alpha"] == 0]
    assert (zero["kl"] == 0).all()
    assert (result.summary.query("alpha == 0")["m_delta"] == 0).all()


class Attribute:
    """A metric whose answer depends on an attribute that anyone may change."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, logits):
        return self.factor * logits[:, 0]


def times(factor):
    return lambda logits: factor * logits[:, 0]


def test_functions_share_stored_rows_only_if_nothing_that_they_read_differs(random_model, tmp_path):
    place = (random_model, None, "blocks.2.hook_resid_pre", tuple(PROMPTS))
    sweep, prompts = SweepSpec(alphas=(1.0,), n_controls=0), PromptSpec(chat=False)

    def rows_and_files(function, run):
        asked = metric_specs({"mine": function})
        measurement = Measurement(*place, sweep, asked, prompts)
        store = Store(tmp_path, metrics_version(asked, run))
        tables = measurement.logit_tables(plain_directions(torch.ones(1, 32)), store)
        return pd.concat(tables)["mine"].to_numpy(), len(list(tmp_path.iterdir()))

    once, one_store = rows_and_files(times(1.0), "a")
    again, no_more = rows_and_files(times(1.0), "b")
    twice, two_stores = rows_and_files(times(2.0), "b")
    thrice, three_stores = rows_and_files(Attribute(3.0), "a")
    other, four_stores = rows_and_files(Attribute(4.0), "b")
    assert (no_more, two_stores) == (one_store, 2 * one_store)
    assert (three_stores, four_stores) == (3 * one_store, 4 * one_store)
    for found, factor in ((again, 1), (twice, 2), (thrice, 3), (other, 4)):
        assert found == pytest.approx(factor * once)


def test_the_summary_is_the_mean_over_prompts_of_the_rows(result):
    rows = result.rows.query("direction == 'feature_3' and alpha == 4")["m"]
    zero = result.rows.query("direction == 'feature_3' and alpha == 0")["m"]
    row = result.summary.query("direction == 'feature_3' and alpha == 4").iloc[0]
    assert row["m"] == pytest.approx(rows.mean())
    assert row["m_delta"] == pytest.approx(rows.mean() - zero.mean())
    assert row["m_ci_low"] <= row["m_delta"] <= row["m_ci_high"]


def test_each_candidate_has_a_verdict_on_each_metric(result):
    assert len(result.claims) == 2 * 2
    assert set(result.claims["metric"]) == {"m", "kl"}
    assert result.claims["p_value"].between(1 / 51, 1).all()
    assert isinstance(result.headline, str)


def test_what_may_mislead_is_said_in_sentences(result):
    n = result.rows["prompt_id"].nunique()
    few = f"Only {n} prompts were steered: intervals over fewer than 10 are unreliable."
    assert few in result.warnings
    assert all(sentence.endswith(".") for sentence in result.warnings)


def test_the_figure_holds_the_candidates_and_the_band(result):
    shown = str(result.plot_interference().to_json())
    assert "feature 3" in shown
    assert "feature 5" in shown
    assert "control" in shown


def test_the_same_call_gives_the_same_rows(random_model, sae, result):
    again = ss.sweep(random_model, sae, PROMPTS, metrics=METRICS, **SMALL)
    pd.testing.assert_frame_equal(again.rows, result.rows)


def test_text_metrics_bring_completions_of_a_few(random_model, sae):
    completions = {"max_new_tokens": 4, "top": 1, "n_controls": 1}
    found = ss.sweep(
        random_model,
        sae,
        PROMPTS,
        metrics=(*METRICS, "code_validity"),
        completions=completions,
        chat=True,
        **SMALL,
    )
    assert set(found.completions["direction"]) == {"feature_3", "feature_5", "covariance_0000"}
    measured = found.rows.groupby("direction")["code_valid"].apply(lambda v: v.notna().all())
    assert set(measured.index[measured]) == set(found.completions["direction"])


def test_vectors_of_ones_own_are_swept_in_the_features_place(random_model, sae):
    vectors = torch.eye(random_model.cfg.d_model)[:3]
    settings = {**SMALL, "features": None, "controls": "isotropic"}
    found = ss.sweep(random_model, sae, PROMPTS, directions=vectors, metrics=METRICS, **settings)
    assert set(found.claims["direction"]) == {"direction_0", "direction_1", "direction_2"}


def test_an_sae_without_a_hook_may_be_used_at_any_hook_of_its_width(random_model):
    free = random_sae(random_model.cfg.d_model, hook_name=None)
    hook = "blocks.1.hook_resid_pre"
    found = ss.sweep(random_model, free, PROMPTS, hook_name=hook, metrics=METRICS, **SMALL)
    assert set(found.rows["hook_name"]) == {hook}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"features": [32]}, "0 to 31"),
        ({"features": None}, "features="),
        ({"alphas": [float("inf")]}, "alphas"),
        ({"hook_name": "blocks.1.hook_resid_pre"}, "blocks.2.hook_resid_pre"),
        ({"metrics": ("latex_first",)}, "logit metric"),
        ({"directions": torch.ones(2, 7)}, "directions"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(random_model, sae, change, hint):
    with pytest.raises(ss.InputError, match=hint):
        ss.sweep(random_model, sae, PROMPTS, **{"metrics": METRICS, **SMALL, **change})


def test_plain_strings_are_prompts_too(random_model, sae):
    texts = [p.text for p in PROMPTS]
    found = ss.sweep(random_model, sae, texts, metrics=METRICS, **SMALL)
    assert list(found.rows["prompt_id"].unique()) == ["1", "2", "3", "4", "5"]


def test_activations_of_another_hook_are_refused(random_model, sae):
    other = ss.cache_activations(random_model, PROMPTS, hook_name="blocks.1.hook_resid_pre")
    with pytest.raises(ss.InputError, match=r"activations were cached at blocks\.1"):
        ss.sweep(random_model, sae, PROMPTS, metrics=METRICS, activations=other, **SMALL)


def test_no_prompts_are_refused(random_model, sae):
    with pytest.raises(ss.InputError, match="prompt"):
        ss.sweep(random_model, sae, [], metrics=METRICS, **SMALL)


def test_selection_and_evaluation_prompts_must_differ():
    with pytest.raises(ss.InputError, match="both steered and used"):
        check_disjoint(PROMPTS, PROMPTS[:1])
    check_disjoint(PROMPTS[1:], PROMPTS[:1])


def test_public_names_are_never_shadowed_by_subpackages():
    import pkgutil

    packages = {module.name for module in pkgutil.iter_modules(ss.__path__)}
    assert not packages & set(ss.__all__)
    for name in ss.__all__:
        assert getattr(ss, name) is getattr(ss, name)


def test_a_store_gives_tensors_in_one_order(tmp_path):
    found = {f"t{i}": torch.ones(i + 1) for i in range(8)}
    for folder in (tmp_path / "a", tmp_path / "b"):
        for _ in range(4):
            assert [*Store(folder, "k").tensors("a", lambda: found)] == [*found]
