"""controls.py: what each family of controls is made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from saes import random_sae
from torch.nn.functional import normalize

from saelens_steer.activations import Activations, store
from saelens_steer.directions.controls import ControlInputs, controls_of
from saelens_steer.errors import InputError

D = 6


def feature_known(rates: list[float], features: tuple[int, ...]) -> ControlInputs:
    """An SAE whose first features fire as often as is given, and the others never."""
    sae = random_sae(D)
    each = torch.zeros(32, dtype=torch.float64)
    each[: len(rates)] = torch.tensor(rates)
    return ControlInputs(D, None, sae.W_dec[list(features)].detach(), features, sae, each)


def drawn_features(known: ControlInputs, n: int, seed: int = 0) -> list[int]:
    """Which features the controls are rows of."""
    assert known.sae is not None
    rows = normalize(known.sae.W_dec.detach(), dim=-1)
    drawn = controls_of("feature", n, known, seed)
    torch.testing.assert_close(drawn, rows[(drawn @ rows.T).argmax(1)])
    return (drawn @ rows.T).argmax(1).tolist()


def test_feature_controls_are_the_nearest_in_firing_rate_that_are_live_and_not_under_test():
    known = feature_known([0.1, 0.11, 0.09, 0.5, 0.2, 0.01, 0.0], (0,))
    assert drawn_features(known, 5) == [1, 2, 4, 3, 5]  # by the ratio of rates


def test_candidates_take_turns_and_share_what_there_is():
    known = feature_known([0.1, 0.4, 0.11, 0.12, 0.39, 0.35], (0, 1))
    assert drawn_features(known, 4) == [2, 4, 3, 5]
    turned = replace(known, features=(1, 0))
    assert drawn_features(turned, 4) == [4, 2, 5, 3]


def test_where_fewer_features_are_live_all_are_taken_and_it_is_said(capsys):
    known = feature_known([0.1, 0.2, 0.3, 0.0], (0,))
    assert sorted(drawn_features(known, 9)) == [1, 2]
    assert "only 2 of 9 feature controls exist" in capsys.readouterr().err


def test_a_seed_decides_between_features_that_fire_equally_often_and_nothing_else():
    known = feature_known([0.1, 0.3, 0.11, *[0.2] * 20], (0,))
    first, second = (drawn_features(known, 22, seed) for seed in (0, 1))
    assert first[0] == second[0] == 2 and first[-1] == second[-1] == 1
    assert first != second and sorted(first) == sorted(second)


def test_a_candidate_that_never_fires_is_compared_with_the_rarest():
    known = feature_known([0.0, 0.4, 0.02, 0.01], (0,))
    assert drawn_features(known, 3) == [3, 2, 1]


def test_without_another_live_feature_there_is_no_feature_control():
    with pytest.raises(InputError, match="no other feature fires"):
        controls_of("feature", 3, feature_known([0.1], (0,)), seed=0)


def test_a_permuted_control_has_the_coordinates_of_its_candidate_in_another_order():
    tested = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    drawn = controls_of("permuted", 8, ControlInputs(40, tested=tested), seed=0)
    for i, control in enumerate(drawn):
        own = normalize(tested[i % 3], dim=0)
        torch.testing.assert_close(control.sort().values, own.sort().values)
        assert not torch.allclose(control, own)
    assert not torch.allclose(drawn[0], drawn[3])


def cached(n_prompts: int, n_tokens: int, tokens: int = 7) -> Activations:
    """Random vectors of some prompts; token ids go round."""
    n = n_prompts * n_tokens
    index = pd.DataFrame(
        {
            "prompt_id": np.repeat([f"p{i}" for i in range(n_prompts)], n_tokens),
            "token": np.arange(n) % tokens,
        }
    )
    return Activations(torch.randn(n, D, generator=torch.Generator().manual_seed(3)), index, "h")


def pairs_of(acts: Activations, n: int, seed: int = 0) -> list[tuple[int, int]]:
    """The two tokens that each control is the difference of."""
    vectors = acts.vectors.double()
    every = normalize((vectors[:, None] - vectors[None]).flatten(0, 1), dim=-1)
    drawn = controls_of("token_difference", n, ControlInputs(acts.d_model, acts), seed)
    cosine = drawn.double() @ every.T
    assert cosine.amax(1).min() > 1 - 1e-6
    return [divmod(int(place), len(acts)) for place in cosine.argmax(1)]


@pytest.mark.parametrize("tokens", [7, 1])
def test_a_token_difference_is_that_of_two_tokens_of_different_prompts(tokens):
    acts = cached(4, 6, tokens)
    prompt, token = acts.index["prompt_id"], acts.index["token"]
    pairs = pairs_of(acts, 100)
    assert all(prompt[a] != prompt[b] for a, b in pairs)
    assert all(token[a] != token[b] for a, b in pairs) or tokens == 1
    assert len(set(pairs)) > 50


def test_with_one_prompt_the_two_tokens_are_of_that_one():
    assert all(a != b for a, b in pairs_of(cached(1, 9), 30))


def test_tokens_that_are_equal_up_to_rounding_are_no_pair():
    row = torch.randn(1, D)
    noise = 1e-6 * torch.randn(40, D)
    acts = torch.cat([row + noise, -row])
    drawn = controls_of("token_difference", 30, ControlInputs(D, acts), seed=0)
    torch.testing.assert_close((drawn @ normalize(row[0], dim=0)).abs(), torch.ones(30))


def test_token_differences_lie_in_the_span_of_the_vectors():
    vectors = torch.randn(9, 3) @ torch.randn(3, D)
    drawn = controls_of("token_difference", 50, ControlInputs(D, vectors), seed=0)
    assert torch.linalg.matrix_rank(drawn, rtol=1e-5) == 3


def test_of_activations_on_disk_only_the_rows_of_the_pairs_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 7 * 4 * D)
    held = cached(5, 6)
    on_disk = Activations.load(held.save(tmp_path / "acts"))

    def refuse(*args):
        raise AssertionError("read more than was asked for")

    monkeypatch.setattr(store.Shards, "__getitem__", refuse)
    rows = torch.tensor([29, 0, 7, 7, 13])
    assert torch.equal(on_disk.take(rows), held.vectors[rows])
    for n in (3, 90):
        drawn = (
            controls_of("token_difference", n, ControlInputs(D, a), seed=1) for a in (held, on_disk)
        )
        assert torch.equal(*drawn)
