"""How often features fire on cached tokens."""

from __future__ import annotations

import torch
from steering.plain_edits import encoded, firing_sae

import saelens_steer as ss
from saelens_steer.features import firing_rates

HOOK = "blocks.2.hook_resid_pre"


def test_a_firing_rate_is_the_share_of_cached_tokens_however_they_are_cut(
    random_model, monkeypatch
):
    sae = firing_sae(32)
    acts = ss.cache_activations(random_model, ["some of the numbers", "and more"], hook_name=HOOK)
    fires = torch.stack([encoded(sae, x) > 0 for x in acts.vectors])
    expected = fires.double().mean(0)
    assert expected[63] == 0 and len(expected.unique()) > 3
    for chunk in (4096, 7):
        monkeypatch.setattr("saelens_steer.sae.codec.CHUNK", chunk)
        torch.testing.assert_close(firing_rates(acts, sae), expected)
