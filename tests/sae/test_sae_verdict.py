"""Laws of the verdict: no warning for a good SAE, and a remedy for each fault."""

import pytest

from saelens_steer.sae import judged, read_quality

GOOD = {
    "loss_recovered": 0.991,
    "explained_variance": 0.9,
    "l0": 15.8,
    "dead_share": 0.031,
    "dense_share": 0.004,
    "n_tokens": 8000,
    "d_in": 192,
    "d_sae": 1024,
}
HERE = [{"l0": 15.8}]
"""The training of an SAE that was trained here."""


def test_a_good_sae_is_called_good_and_gets_no_warning():
    found = judged(GOOD)
    assert found["warnings"] == []
    expected = "Good: 99.1 % of the loss recovered at L0 15.8, 3.1 % of features dead."
    assert found["verdict"] == expected
    assert {k: found[k] for k in GOOD} == GOOD


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"dead_share": 0.43},
            "43 % of features are dead (silent on 8,000 tokens): lower the spar",
        ),
        ({"dense_share": 0.12}, "12 % of features fire on more than a tenth of all tokens"),
        ({"explained_variance": 0.5}, "explains only 50 % of the variance"),
        ({"l0": 60.0}, "L0 is 60 at a width of 192, which is hardly sparse"),
        ({"explained_variance": -2.7}, "no better than their mean does (explained variance -2.7)"),
    ],
)
def test_each_fault_has_a_sentence_that_says_what_to_do(change, says):
    found = judged(GOOD | change, HERE)
    assert len(found["warnings"]) == 1 and says in found["warnings"][0]
    kind = "Poor" if found["explained_variance"] < 0 else "Usable with care"
    assert found["verdict"].startswith(kind)


def test_an_unsettled_threshold_is_the_only_warning():
    lines = [{"held_out_l0": 20.0}, {"l0": 20.0}]
    found = judged(GOOD | {"l0": 59.5, "explained_variance": 0.5, "dead_share": 0.3}, lines)
    [warning] = found["warnings"]
    assert "L0 is 59.5 in use but was 20 in training" in warning
    assert "topk_threshold_lr" in warning
    assert judged(GOOD, [{"held_out_l0": 16.2}])["warnings"] == []


def test_a_dense_or_crowded_sae_is_never_told_to_activate_more_features():
    poor = {"loss_recovered": 0.5, "explained_variance": 0.4, "dead_share": 0.3}
    for crowded in ({"l0": 100.0}, {"dense_share": 0.2}):
        unexplained = " ".join(
            judged(GOOD | {"explained_variance": 0.5} | crowded, HERE)["warnings"]
        )
        assert "train longer" in unexplained and "more active features" not in unexplained
        text = " ".join(judged(GOOD | poor | crowded, HERE)["warnings"])
        assert "raise the sparsity" in text and "train longer" in text
        assert "more active features" not in text and "lower the sparsity" not in text


def test_nearly_everything_active_is_no_sae():
    assert judged(GOOD | {"l0": 187.0})["verdict"].startswith("Poor")


@pytest.mark.parametrize("share", [0.6, -0.2, float("nan")])
def test_an_sae_that_recovers_too_little_is_called_poor(share):
    found = judged(GOOD | {"loss_recovered": share, "explained_variance": 0.3})
    assert found["verdict"].startswith("Poor")
    assert len(found["warnings"]) == 1 and "of the model's loss" in found["warnings"][0]


def test_an_overfitted_sae_gets_a_warning():
    lines = [
        {"explained_variance": 0.5, "held_out_explained_variance": 0.5},
        {"explained_variance": 0.95, "held_out_explained_variance": 0.8},
        {"explained_variance": 0.96},
    ]
    [warning] = judged(GOOD, lines)["warnings"]
    assert "95 % of the variance of training activations but only 80 % of that of" in warning
    assert judged(GOOD, lines[:1])["warnings"] == []


def test_features_silent_on_too_few_tokens_are_not_called_dead():
    found = judged(GOOD | {"dead_share": 0.43, "n_tokens": 442}, HERE)
    assert found["verdict"].endswith("43 % of features silent on 442 tokens.")
    [warning] = found["warnings"]
    assert "too few to call them dead: measure it on more text" in warning
    assert "lower" not in warning


def test_a_loaded_sae_is_not_told_to_train_longer():
    faults = {"loss_recovered": 0.5, "dead_share": 0.43, "dense_share": 0.12, "l0": 60.0}
    for change in (faults, {"explained_variance": -2.7}, {"explained_variance": 0.5}):
        ours, loaded = (judged(GOOD | change, lines)["warnings"] for lines in (HERE, []))
        assert [one.split(": ")[0] for one in ours] == loaded != []


def test_nearly_all_is_not_called_all():
    assert "over 99.9 % of the loss" in judged(GOOD | {"loss_recovered": 0.9996})["verdict"]
    assert "under 0.1 % of features" in judged(GOOD | {"dead_share": 0.0000001})["verdict"]
    assert "nan" not in judged(GOOD | {"loss_recovered": float("nan")})["verdict"]
    assert "99.6 % of the loss" in judged(GOOD | {"loss_recovered": 0.9962})["verdict"]
    assert "0.4 % of features" in judged(GOOD | {"dead_share": 0.004})["verdict"]
    assert "0 % of features" in judged(GOOD | {"dead_share": 0.0})["verdict"]


def test_a_folder_without_figures_reads_as_none(tmp_path):
    assert read_quality(tmp_path) == {}
