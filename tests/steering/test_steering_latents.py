"""Laws of edits through an SAE and of projecting out."""

import pytest
import torch
from plain_edits import EDITS, F, G, encoded, firing_sae, our_edits, plain_edits
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from saelens_steer.errors import InputError
from saelens_steer.model import last_token_logits
from saelens_steer.sae import encode
from saelens_steer.steering import (
    ablate,
    add,
    edit_where,
    gates,
    per_row,
    project_out,
    reconstruct,
    sae_edits,
    scale,
    set_to,
    steered,
    suppress_and_boost,
)
from saelens_steer.steering.sae_edits import composed

WIDTH = 32


@pytest.fixture(scope="module")
def sae():
    return firing_sae(WIDTH)


@pytest.fixture(scope="module")
def x():
    return torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def push():
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))


def everywhere(edits, x):
    edits = edits if isinstance(edits, list) else [edits]
    return edit_where(composed(edits), x, torch.ones(x.shape[:2]).bool())


@pytest.mark.parametrize("name", EDITS)
def test_each_edit_is_what_it_says_written_out(name, sae, push, x):
    expected = plain_edits(sae, push)[name](x)
    torch.testing.assert_close(everywhere(our_edits(sae, push)[name], x), expected)
    assert (expected - x).abs().max() > 0.1


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_leaves_its_input_and_everything_outside_the_mask_alone(name, sae, push, x):
    edits = our_edits(sae, push)[name]
    edits = composed(edits if isinstance(edits, list) else [edits])
    before, mask = x.clone(), torch.zeros(x.shape[:2]).bool()
    mask[1, 2:5] = True
    after = edit_where(edits, x, mask)
    assert torch.equal(x, before)
    assert torch.equal(after[~mask], x[~mask])
    torch.testing.assert_close(after[mask], everywhere(edits, x)[mask])


def test_ablation_removes_exactly_the_features_activation_along_its_decoder_row(sae, x):
    taken = x - everywhere(ablate(sae, F), x)
    torch.testing.assert_close(taken, encoded(sae, x)[..., [F]] * sae.W_dec[F].detach())


def test_ablating_a_feature_that_never_fires_changes_no_bit(sae, x):
    assert torch.equal(everywhere(ablate(sae, 63), x), x)
    assert torch.equal(everywhere(scale(sae, [63], 8.0), x), x)


def test_setting_a_feature_to_its_own_value_changes_no_bit(sae, x):
    with torch.no_grad():
        own = float(sae.encode(x[:1, :1])[0, 0, F])
    assert own > 0
    mask = torch.zeros(x.shape[:2]).bool()
    mask[0, 0] = True
    assert torch.equal(edit_where([set_to(sae, F, own)], x, mask), x)


def test_scaling_by_one_is_the_identity_and_by_zero_ablation(sae, x):
    assert torch.equal(everywhere(scale(sae, [F, G], 1.0), x), x)
    assert torch.equal(everywhere(scale(sae, F, 0.0), x), everywhere(ablate(sae, F), x))


def test_keeping_the_error_with_no_change_is_the_identity_and_dropping_it_the_splice(sae, x):
    assert (everywhere(reconstruct(sae, error="keep"), x) - x).abs().max() <= 1e-6
    with torch.no_grad():
        torch.testing.assert_close(everywhere(reconstruct(sae), x), sae(x))


def test_neighbours_through_one_sae_are_encoded_once_and_act_in_order(sae, x):
    edits = [suppress_and_boost(sae, F, 1.0, suppress=0.5), scale(sae, G, 3.0)]
    assert len(composed(edits)) == 1
    z = encoded(sae, x)
    z_new = 0.5 * z
    z_new[..., F] += 1.0
    z_new[..., G] *= 3.0
    torch.testing.assert_close(everywhere(edits, x), x + ((z_new - z) @ sae.W_dec).detach())


def test_edits_through_different_saes_and_of_both_kinds_stay_apart(sae, push, x):
    other = firing_sae(WIDTH, scale=2.0)
    edits = [ablate(sae, F), ablate(other, F), ablate(sae, G, error="drop"), add(push)]
    assert len(composed(edits)) == 4
    one_by_one = x
    for edit in edits:
        one_by_one = edit(one_by_one)
    torch.testing.assert_close(everywhere(edits, x), one_by_one)


@pytest.mark.parametrize("kind", ("layer_norm", "constant_norm_rescale"))
def test_an_sae_that_normalises_at_run_time_is_encoded_before_each_decode(kind, x):
    sae = StandardSAE(StandardSAEConfig(d_in=WIDTH, d_sae=64, normalize_activations=kind))
    source = firing_sae(WIDTH)
    sae.load_state_dict(source.state_dict())
    with torch.no_grad():
        z = sae.encode(x)
        z_new = z.clone()
        z_new[..., F] = 0.0
        whole = sae.decode(z)
        sae.encode(x)
        expected = x + sae.decode(z_new) - whole
        torch.testing.assert_close(everywhere(ablate(sae, F), x), expected)
        torch.testing.assert_close(everywhere(reconstruct(sae), x), sae(x))
    assert (everywhere(reconstruct(sae, error="keep"), x) - x).abs().max() <= 1e-6


def test_projecting_out_leaves_no_component_and_twice_is_once(push, x):
    once = everywhere(project_out(push), x)
    assert (once @ push).abs().max() <= 1e-4
    torch.testing.assert_close(everywhere(project_out(push), once), once)
    torch.testing.assert_close(everywhere(project_out(-3.0 * push), x), once)


def test_several_directions_are_projected_out_as_the_space_they_span(push, x):
    other = push.roll(1)
    both = everywhere(project_out(torch.stack([push, other, push + other])), x)
    assert (both @ push).abs().max() <= 1e-4
    assert (both @ other).abs().max() <= 1e-4
    kept = x - both
    basis = torch.linalg.qr(torch.stack([push, other]).T).Q
    torch.testing.assert_close(kept, kept @ basis @ basis.T, atol=1e-5, rtol=1e-4)


def test_rows_with_an_edit_each_equal_the_rows_one_by_one(sae, push):
    x = torch.randn(len(EDITS), 7, WIDTH, generator=torch.Generator().manual_seed(0))
    ours = our_edits(sae, push) | {"set two": suppress_and_boost(sae, G, 1.0)}
    edits = [ours[name] for name in EDITS]
    together = everywhere(per_row(edits), x)
    for row, edit in enumerate(edits):
        torch.testing.assert_close(together[row], everywhere(edit, x[[row]])[0])


def test_rows_and_edits_must_be_of_one_number(push, x):
    with pytest.raises(InputError, match="2 edits for a batch of 3 rows"):
        everywhere(per_row([add(push), add(push)]), x)


def test_a_feature_named_by_two_edits_at_one_hook_is_refused(sae):
    with pytest.raises(InputError, match="two edits at one hook change feature 5"):
        composed([ablate(sae, F), set_to(sae, F, 1.0)])
    with pytest.raises(InputError, match="names a feature twice"):
        ablate(sae, [F, F])
    with pytest.raises(InputError, match="out of range"):
        scale(sae, 64, 2.0)


def test_numbers_that_are_not_finite_or_too_few_are_refused(sae):
    with pytest.raises(InputError, match="finite"):
        set_to(sae, F, float("nan"))
    with pytest.raises(InputError, match="finite"):
        scale(sae, F, float("inf"))
    with pytest.raises(InputError, match="value has 3 numbers for 2 features"):
        set_to(sae, [F, G], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="zero"):
        project_out(torch.zeros(WIDTH))


def test_an_sae_without_an_encoder_steers_and_refuses_edits_that_encode(x):
    bare = firing_sae(WIDTH)
    bare.cfg.metadata.decoder_only = True
    everywhere(add(bare.W_dec[F]), x)
    for make in (
        lambda: ablate(bare, F),
        lambda: scale(bare, F, 2.0),
        lambda: set_to(bare, F, 1.0),
        lambda: suppress_and_boost(bare, F, 1.0),
        lambda: reconstruct(bare),
    ):
        with pytest.raises(InputError, match="only a decoder"):
            make()


def test_an_sae_made_for_another_hook_is_refused_before_any_pass(random_model):
    sae = firing_sae(random_model.cfg.d_model, hook_name="blocks.1.hook_resid_pre")
    with (
        pytest.raises(InputError, match=r"blocks\.1"),
        steered(random_model, ablate(sae, F), "blocks.2.hook_resid_pre"),
    ):
        raise AssertionError("not reached")


def test_the_receipt_tells_a_no_op_from_an_edit(random_model):
    sae = firing_sae(random_model.cfg.d_model)
    tokens = torch.tensor([[5, 6, 7, 8]])
    real = torch.ones_like(tokens).bool()
    plain = last_token_logits(random_model, tokens, real)
    with steered(random_model, ablate(sae, 63), "blocks.2.hook_resid_pre") as receipt:
        assert torch.equal(last_token_logits(random_model, tokens, real), plain)
    assert (receipt.positions, receipt.changed, receipt.rel_norm) == (4, 0, 0.0)
    with steered(random_model, set_to(sae, F, 9.0), "blocks.2.hook_resid_pre") as receipt:
        last_token_logits(random_model, tokens, real)
    assert receipt.changed == 4


@pytest.mark.parametrize("features", [(3,), (3, 5), tuple(range(12))])
def test_a_gate_encodes_each_vector_once_however_many_features_it_reads(sae, features, monkeypatch):
    encoded = []

    def counting(through, x):
        encoded.append(len(x))
        return encode(through, x)

    monkeypatch.setattr(gates, "encode", counting)
    monkeypatch.setattr("saelens_steer.sae.codec.CHUNK", 7)
    x = torch.randn(5, 4, sae.cfg.d_in, generator=torch.Generator().manual_seed(0))
    held = gates.as_gate((sae, features)).holds(x)
    assert encoded == [7, 7, 6]
    assert held.equal((encode(sae, x)[..., list(features)] > 0).any(-1))


def test_edits_encode_no_more_vectors_at_once_than_fit(sae, monkeypatch):
    x = torch.randn(2, 9, sae.cfg.d_in, generator=torch.Generator().manual_seed(0))
    sizes, edit = [], ablate(sae, [3, 5])
    want = edit(x)
    monkeypatch.setattr("saelens_steer.sae.codec.ENCODED", 4 * sae.cfg.d_sae)
    seen = sae_edits.encode
    monkeypatch.setattr(sae_edits, "encode", lambda s, x: sizes.append(len(x)) or seen(s, x))
    torch.testing.assert_close(edit(x), want)
    assert sizes == [4, 4, 4, 4, 2]
