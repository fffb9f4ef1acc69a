"""The loaded model computes what its checkpoint computes, or it is refused."""

from __future__ import annotations

import pytest
import torch
from checkpoints import random_qwen3
from model_batches import hugging_face, left_padded, rows
from transformer_lens import HookedTransformer

from saelens_steer.errors import InputError
from saelens_steer.model import (
    ParityError,
    architectures,
    load,
    load_model,
    model_provenance,
    parity,
    run_to_hook,
)
from saelens_steer.model.parity import Parity

CLASSES = ["HookedTransformer", "TransformerBridge"]


@pytest.fixture(params=CLASSES)
def model(request, random_model, random_bridge):
    return random_model if request.param == "HookedTransformer" else random_bridge


@pytest.fixture(autouse=True)
def forgetful(tmp_path, monkeypatch):
    """Each test begins without remembered proofs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@torch.no_grad()
def test_logits_equal_hugging_face_without_padding(model, random_folder):
    hf = hugging_face(random_folder)
    for prompt in rows():
        mask = torch.ones_like(prompt)
        gap = (model(prompt, attention_mask=mask) - hf(prompt).logits).abs().max()
        assert gap <= 1e-4


@torch.no_grad()
def test_logits_equal_hugging_face_when_left_padded(model, random_folder):
    tokens, mask = left_padded(rows())
    theirs = hugging_face(random_folder)(tokens, attention_mask=mask.long()).logits
    ours = model(tokens, attention_mask=mask.long())
    assert (ours - theirs)[mask].abs().max() <= 1e-4


@torch.no_grad()
def test_a_padded_row_has_the_logits_of_the_row_alone(model):
    tokens, mask = left_padded(rows())
    together = model(tokens, attention_mask=mask.long())
    for i, prompt in enumerate(rows()):
        alone = model(prompt, attention_mask=torch.ones_like(prompt))
        assert (together[i, -prompt.shape[1] :] - alone[0]).abs().max() <= 1e-4


@torch.no_grad()
def test_every_resid_pre_equals_the_hidden_state_of_hugging_face(model, random_folder):
    tokens, mask = left_padded(rows())
    out = hugging_face(random_folder)(tokens, attention_mask=mask.long(), output_hidden_states=True)
    for layer in range(model.cfg.n_layers):
        ours = run_to_hook(model, tokens, mask, f"blocks.{layer}.hook_resid_pre")
        assert (ours - out.hidden_states[layer])[mask].abs().max() <= 1e-4


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_good_checkpoint_passes_far_below_the_tolerance(random_folder, model_class, dtype):
    model = load_model(str(random_folder), model_class=model_class, dtype=dtype)
    proof = model_provenance(model)["parity"]
    assert max(proof.values()) <= (1e-5 if dtype == "float32" else 0.02)
    assert model.cfg.dtype == getattr(torch, dtype)


def _tamper(monkeypatch, key: str, factor: float) -> None:
    def tampered(*args, **kwargs):
        weights = get(*args, **kwargs)
        return weights if key not in weights else {**weights, key: weights[key] * factor}

    get = load.get_pretrained_state_dict
    monkeypatch.setattr(load, "get_pretrained_state_dict", tampered)


@pytest.mark.parametrize("key", ["blocks.0.attn.W_O", "blocks.3.mlp.W_out", "ln_final.w"])
def test_a_model_with_wrong_weights_is_refused(random_folder, monkeypatch, key):
    _tamper(monkeypatch, key, 1.01)
    with pytest.raises(ParityError, match="differs from its Hugging Face checkpoint"):
        load_model(str(random_folder))


def test_wrong_weights_in_a_late_layer_are_refused_in_bfloat16(random_folder, monkeypatch):
    _tamper(monkeypatch, "blocks.3.mlp.W_out", 2.0)
    with pytest.raises(ParityError):
        load_model(str(random_folder), dtype="bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_rotary_base_is_refused_in_every_dtype(tmp_path, monkeypatch, dtype):
    rope = {"rope_type": "default", "rope_theta": 5e6}
    folder = random_qwen3(tmp_path / "m", rope_parameters=rope)
    monkeypatch.setattr(architectures, "rope_theta", lambda *_: 1e6)
    with pytest.raises(ParityError):
        load_model(str(folder), dtype=dtype)


def test_a_proof_is_made_once(random_folder, monkeypatch):
    first = load_model(str(random_folder))
    monkeypatch.setattr(parity, "read_hugging_face", lambda *_: pytest.fail("proved again"))
    second = load_model(str(random_folder))
    assert model_provenance(first)["parity"] == model_provenance(second)["parity"]


def test_a_failed_proof_is_not_remembered(random_folder, monkeypatch):
    with monkeypatch.context() as patch:
        _tamper(patch, "ln_final.w", 1.1)
        for _ in range(2):
            with pytest.raises(ParityError):
                load_model(str(random_folder))
    load_model(str(random_folder))


def test_a_damaged_record_is_proved_again(random_folder):
    load_model(str(random_folder))
    (record,) = parity.cache_folder().iterdir()
    record.write_text("{")
    load_model(str(random_folder))
    assert record.read_text() != "{"


def test_a_cache_folder_that_cannot_be_written_does_not_matter(
    random_folder, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    load_model(str(random_folder))


@pytest.mark.parametrize("n_ctx", [5, 20])
def test_a_short_context_is_proved_within_it(random_folder, n_ctx):
    assert load_model(str(random_folder), n_ctx=n_ctx).cfg.n_ctx == n_ctx


def test_nan_is_no_parity():
    good = parity.Reading(torch.ones(3, 4), torch.ones(3, 4))
    bad = parity.Reading(torch.full((3, 4), torch.nan), torch.ones(3, 4))
    with pytest.raises(ParityError):
        parity.check(parity.compare(bad, good), torch.bfloat16, "m")
    assert parity.compare(good, good) == Parity(0.0, 0.0, 0.0, 0.0)


def test_the_checkpoint_behind_a_model_is_loaded_again_as_it_is(model, random_folder):
    again, plain = load.checkpoint_of(model).state_dict(), hugging_face(random_folder)
    assert all(torch.equal(again[name], weight) for name, weight in plain.state_dict().items())


def test_a_model_from_elsewhere_has_no_known_checkpoint(random_model):
    with pytest.raises(InputError, match="not loaded by load_model"):
        load.checkpoint_of(HookedTransformer(random_model.cfg))


def test_prompts_of_ones_own_are_compared_at_their_ends(model, random_folder):
    tokens, mask = left_padded(rows())
    found = parity.compare_on(model, hugging_face(random_folder), tokens, mask)
    assert found.worst(torch.float32) <= 1e-5
    wrong = hugging_face(random_folder)
    wrong.model.layers[0].mlp.down_proj.weight.data *= 1.1
    assert parity.compare_on(model, wrong, tokens, mask).worst(torch.float32) > 1e-3
