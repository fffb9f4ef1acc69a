"""Laws of refusal: ambiguous, contradictory, unsafe, damaged or unsupported checkpoints."""

from functools import partial

import legacy_files as old
import pytest
import torch
from legacy_files import B_DEC, B_ENC, D_IN, D_SAE, MEAN, OWN, W_DEC, W_ENC

from saelens_steer.errors import InputError
from saelens_steer.sae import load_sae


@pytest.fixture
def load(tmp_path):
    return partial(old.load, tmp_path)


def refusal(load, content, **given) -> str:
    """The one-line message with which a checkpoint is refused."""
    with pytest.raises(InputError) as refused:
        load(content, **given)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_models_width_decides_where_nothing_else_does(load):
    for matrix in (W_DEC, W_DEC.T):
        assert load({"dictionary": matrix}, d_model=D_IN).W_dec.data.equal(W_DEC)
        assert load({"W_dec": matrix}, d_model=D_IN).W_dec.data.equal(W_DEC)
    said = refusal(load, {"dictionary": W_DEC})
    assert "which axis is which" in said and "[15, 6]" in said and "d_model" in said


def test_names_decide_where_the_matrices_are_square(load):
    enc, dec = old.draw(5, 5, seed=1), old.draw(5, 5, seed=2)
    own = load({"W_enc": enc, "W_dec": dec}, said=old.RELU)
    linear = load({"encoder.weight": enc.T, "decoder.weight": dec.T}, said=old.RELU)
    for sae in (own, linear):
        assert sae.W_enc.data.equal(enc) and sae.W_dec.data.equal(dec)
    assert "square (5)" in refusal(load, {"dictionary": dec}, d_model=5)


CONTRADICTIONS = {
    "matrices": (OWN | {"W_dec": old.draw(D_SAE, 7)}, {}, ["w_enc is [6, 15]", "w_dec is [15, 7]"]),
    "a bias": (OWN | {"b_dec": old.draw(7)}, {}, ["w_dec is [15, 6]", "b_dec says d_in = 7"]),
    "a size": (OWN | {"d_sae": 14}, {}, ["d_sae says d_sae = 14"]),
    "the model": (OWN, {"d_model": 8}, ["the model says d_in = 8"]),
    "a mean": (OWN | {"mean": old.draw(4)}, {}, ["mean says d_in = 4"]),
    "names": (
        {"W_enc": W_ENC, "W_dec": W_DEC.T},
        {},
        ["names contradict", "w_enc is [6, 15], w_dec is [6, 15]"],
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_refused_with_both_shapes(load, case):
    content, given, hints = CONTRADICTIONS[case]
    said = refusal(load, content, **given)
    for hint in hints:
        assert hint in said


THRESHOLD = old.draw(D_SAE, seed=8).abs()
REFUSED = {
    "no decoder": (old.without(OWN, "W_dec"), r"no decoder \(like W_dec\), only w_enc"),
    "two decoders": (OWN | {"decoder.weight": W_DEC.T}, "holds both w_dec and decoder.weight"),
    "a gate": (OWN | {"r_mag": B_ENC}, "is a gated SAE, but holds no b_gate"),
    "a gated SAE without gates": (OWN | {"architecture": "gated"}, "is gated, but holds no r_mag"),
    "nothing said": (OWN, 'which kind of SAE it is: write "architecture": "standard"'),
    "another factor": (OWN | {"scaling_factor": 2 * torch.ones(D_SAE)}, "holds scaling_factor"),
    "k and a threshold": (OWN | {"k": 4, "threshold": THRESHOLD}, "holds both k and threshold"),
    "TopK without k": (OWN | {"activation": "topk"}, "says it is topk, but holds no k"),
    "BatchTopK without threshold": (
        OWN | {"k": 4, "architecture": "BatchTopK"},
        "says it is jumprelu, but holds no threshold",
    ),
    "a broken k": (OWN | {"k": 0}, "k must be a whole number from 1 to 15, not 0"),
    "more than all": (OWN | {"k": D_SAE + 1}, "from 1 to 15, not 16"),
    "an unknown normalisation": (OWN | {"normalize": "whitening"}, "whitening, which is unknown"),
    "a normalisation without numbers": (OWN | {"normalize": True}, "holds neither activation_mean"),
    "numbers without a normalisation": (
        OWN | {"normalize_activations": "none", "mean": MEAN},
        "has normalize_activations: none, but holds mean",
    ),
    "two means": (OWN | {"mean": MEAN, "act_mean": MEAN}, "holds both act_mean and mean|mean and"),
    "a norm of nothing": (
        OWN | {"activation_norm": 0.0},
        "norm must be finite, and positive if it is a scale",
    ),
    "a bias that is not finite": (OWN | {"b_dec": B_DEC * torch.nan}, "must be a finite vector"),
    "three axes": (OWN | {"W_dec": W_DEC[None]}, "must be a finite matrix"),
    "signed activations": (OWN | {"cfg": {"signed": True}}, "has signed: true"),
    "no matrix": ({"b_dec": B_DEC, "step": 4}, "no named matrix"),
    "a tensor": (W_DEC, "holds a Tensor, not named tensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_unsupported_checkpoint_is_refused_in_one_sentence(load, case):
    content, hint = REFUSED[case]
    with pytest.raises(InputError, match=hint):
        load(content, said=old.SUBTRACTED)
    refusal(load, content, said=old.SUBTRACTED)


def test_a_file_that_would_run_code_is_refused_and_runs_none(load, tmp_path):
    made = tmp_path / "made"
    said = refusal(load, {"W_dec": W_DEC, "cfg": old.Trap(made)})
    assert "could run code" in said and not made.exists()
    torch.load(tmp_path / "sae.pt", weights_only=False)
    assert made.exists(), "the trap is a real one"


@pytest.mark.parametrize("name", ["sae.pt", "sae.safetensors"])
def test_a_damaged_file_is_refused(tmp_path, name):
    file = old.saved(tmp_path / name, OWN)
    for content in (file.read_bytes()[:-200], b"", b"not a checkpoint at all"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=name):
            load_sae(file)


def test_a_file_with_an_sae_id_is_refused(tmp_path):
    with pytest.raises(InputError, match="a file may hold only one SAE: leave out sae_id"):
        load_sae(old.saved(tmp_path / "sae.pt", OWN), "blocks.2")
