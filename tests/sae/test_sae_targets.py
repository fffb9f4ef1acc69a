"""Targets for an SAE of the shipped model: faithful, sparse, alive, and separating domains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sae_lens import SAE

from saelens_steer.config import TrainSpec

pytestmark = pytest.mark.nightly
HOOK = "blocks.4.hook_resid_pre"
SPEC = TrainSpec(options={"k": 15, "topk_threshold_lr": 0.03})
DOMAINS = ("code", "math", "prose")


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> tuple[SAE, Path]:
    from saelens_steer.sae import train_sae

    out = tmp_path_factory.mktemp("targets") / "sae"
    return train_sae(tiny_model, SPEC, HOOK, out), out


def test_it_recovers_the_loss_at_few_active_features_with_few_dead_ones(trained):
    quality = json.loads((trained[1] / "quality.json").read_text())
    assert quality["l0"] <= 16
    assert quality["loss_recovered"] >= 0.97 and quality["kl_recovered"] >= 0.97
    assert quality["dead_share"] < 0.2
    assert quality["verdict"].startswith("Good") and quality["warnings"] == []


@pytest.fixture(scope="module")
def answers(tiny_model):
    """Activations of the shipped prompts and answers, on which features are selected."""
    from saelens_steer.activations import cache_activations
    from saelens_steer.data import load_prompts

    return cache_activations(tiny_model, load_prompts("tiny-domains"), hook_name=HOOK)


@pytest.fixture(scope="module")
def others(tiny_model):
    """Activations of other prompts, with the model's own answers."""
    from saelens_steer.activations import cache_activations, with_answers
    from saelens_steer.data import load_prompts

    prompts = with_answers(tiny_model, load_prompts("tiny-domains-heldout"), 48)
    return cache_activations(tiny_model, prompts, hook_name=HOOK)


def against_the_rest(activations, domain: str):
    """The same activations with the other two domains merged."""
    from saelens_steer.activations import Activations

    index = activations.index.copy()
    names = index["domain"].astype(str)
    rest = names.where(names == domain, "rest").where(names.isin(DOMAINS), "left out")
    index["domain"] = rest.astype("category")
    return Activations(activations.vectors, index, activations.hook_name)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_feature_that_fires_on_single_tokens_tells_each_domain_from_the_two_others(
    trained, answers, others, domain
):
    from saelens_steer.features import select_features

    def scores(activations):
        acts = against_the_rest(activations, domain)
        how = {"at": "answer", "score": "auroc", "pool": "max", "k": 1}
        return select_features(trained[0], acts, domain, "rest", **how)

    found = scores(answers)
    [best] = found.candidates[domain]
    assert found.scores.loc[best, "auroc"] >= 0.98
    assert found.scores.loc[best, "auroc_error"] == 0
    assert scores(others).scores.loc[best, "auroc"] >= 0.95, "on prompts it was not found on"
