"""Integers of numpy, torch and pandas are integers at every door, and give the same answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from saes import random_sae

import saelens_steer as ss
from saelens_steer.config import CompletionSpec, SweepSpec, TrainSpec
from saelens_steer.config.base import plain, whole

KINDS = {
    "int64": np.int64,
    "uint8": np.uint8,
    "an array": lambda n: np.array(n),
    "a tensor": torch.tensor,
    "an int32 tensor": lambda n: torch.tensor(n, dtype=torch.int32),
}
TEXTS = [ss.Prompt("1", "the sum of two", "a"), ss.Prompt("2", "def add(a, b):", "b")]
pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def sae():
    return random_sae(32)


@pytest.fixture(scope="module")
def acts(random_model):
    return ss.cache_activations(random_model, TEXTS, hook_name="blocks.2.hook_resid_pre")


def test_a_feature_and_its_strength_may_be_of_any_kind(sae, kind):
    x, f = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0)), kind(3)
    for given, wanted in (
        (ss.ablate(sae, f), ss.ablate(sae, 3)),
        (ss.ablate(sae, [f, kind(5)]), ss.ablate(sae, [3, 5])),
        (ss.scale(sae, f, kind(2)), ss.scale(sae, 3, 2.0)),
        (ss.set_to(sae, f, kind(2)), ss.set_to(sae, 3, 2.0)),
        (ss.suppress_and_boost(sae, f, kind(2), kind(1)), ss.suppress_and_boost(sae, 3, 2.0, 1.0)),
        (ss.add(sae.W_dec[3], kind(2)), ss.add(sae.W_dec[3], 2.0)),
        (ss.add(sae.W_dec[3], gate=(sae, f)), ss.add(sae.W_dec[3], gate=(sae, 3))),
    ):
        assert given.name == wanted.name
        assert torch.equal(given(x), wanted(x))


@pytest.mark.parametrize(
    "several", [np.array([3, 5]), torch.tensor([3, 5]), pd.Series([3, 5]), pd.Index([3, 5]), (3, 5)]
)
def test_several_features_may_stand_in_an_array(random_model, sae, several):
    assert ss.ablate(sae, several).name == ss.ablate(sae, [3, 5]).name
    quiet = {"alphas": np.array([1]), "n_controls": 2, "controls": "isotropic"}
    found = ss.sweep(random_model, sae, TEXTS, features=several, **quiet)
    assert found.claims["feature"].tolist() == [3, 5]


def test_a_sweep_takes_numbers_of_any_kind(random_model, sae, acts, kind):
    def rows(number):
        return ss.sweep(
            random_model, sae, TEXTS, features=number(3), alphas=[number(0), number(2)],
            n_controls=number(2), seed=number(1), batch_tokens=number(64), activations=acts,
            completions={"max_new_tokens": number(4)},
        ).rows  # fmt: skip

    assert rows(kind).equals(rows(int))


def test_specs_and_functions_take_numbers_of_any_kind(acts, sae, kind):
    assert TrainSpec(d_sae=kind(64)) == TrainSpec(d_sae=64)
    assert SweepSpec.model_validate({"features": [kind(3)]}) == SweepSpec(features=(3,))
    assert CompletionSpec(top=kind(1)) == CompletionSpec(top=1)
    assert len(ss.load_prompts("tiny-domains", kind(3))) == 3
    drawn = [ss.draw_controls("isotropic", n(4), d_model=n(8), seed=n(2)) for n in (kind, int)]
    assert torch.equal(*drawn)
    chosen = [ss.select_features(sae, acts, "a", "b", k=n(2)).candidates for n in (kind, int)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("given", [True, 1.5, "3", None, np.float32(2), np.ones(2), torch.ones(1)])
def test_what_is_no_whole_number_is_refused_by_name(given):
    with pytest.raises(ss.InputError, match="k should be a whole number, not"):
        whole("k", given)


def test_everything_else_is_left_as_it_is():
    spec, half = CompletionSpec(), object()
    given = {"a": [1, "x", half], "b": spec, "c": (1.5, None)}
    assert plain(given) == given
    assert plain([np.int64(1), {"a": torch.ones(2)}]) == [1, {"a": [1.0, 1.0]}]
