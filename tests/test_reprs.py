"""What a user holds says in a few lines what it is."""

from __future__ import annotations

import pytest
import torch
from saes import random_sae

import saelens_steer as ss
from saelens_steer.steering import feature_directions

HOOK = "blocks.4.hook_resid_pre"


@pytest.fixture(scope="module")
def held(tiny_model) -> dict[str, object]:
    sae = random_sae(tiny_model.cfg.d_model, HOOK)
    everything = ss.load_prompts("tiny-domains")
    prompts = [p for d in ("code", "math") for p in [q for q in everything if q.domain == d][:8]]
    activations = ss.cache_activations(tiny_model, prompts, hook_name=HOOK)
    selection = ss.select_features(sae, activations, "code", "math", k=3)
    vector = torch.ones(tiny_model.cfg.d_model)
    edits = [ss.add(vector, 2.0), ss.ablate(sae, 3), ss.project_out(vector)]
    return {
        "Prompt": prompts[0],
        "Activations": activations,
        "Selection": selection,
        "Edit": edits[0],
        "SAE edit": edits[1],
        "projection": edits[2],
        "Directions": feature_directions(sae, range(12), "raw"),
        "SteeringVectors": ss.SteeringVectors({"a": vector}, {"a": HOOK}),
        "Probe": ss.linear_probe(activations, "code", "math"),
        "Receipt": ss.Receipt(),
    }


def test_each_is_one_to_five_lines_without_tensors(held):
    for name, one in held.items():
        text = repr(one)
        assert 1 <= len(text.splitlines()) <= 5, name
        assert len(text) < 500, name
        assert "tensor(" not in text, name
        assert "object at 0x" not in text, name


def test_numbers_in_it_are_those_of_the_object(held):
    activations = held["Activations"]
    assert f"{len(activations):,}" in repr(activations)
    assert HOOK in repr(activations)
    for feature in held["Selection"].features:
        assert str(feature) in repr(held["Selection"])
    assert "add(2)" in repr(held["Edit"])
    assert "ablate" in repr(held["SAE edit"])
    assert "at the last prompt token" in repr(held["Selection"])
    assert "<table" in held["Selection"]._repr_html_()
