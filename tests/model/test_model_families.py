"""Every supported architecture computes what Hugging Face computes, in both classes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from checkpoints import (
    GEMMA_LINEAR,
    random_gemma3,
    random_llama,
    random_qwen2,
    random_qwen3,
)
from hugging import hugging_face, last_logits
from model_batches import left_padded

from saelens_steer.errors import InputError
from saelens_steer.model import (
    ParityError,
    generate,
    last_token_logits,
    load,
    load_model,
    model_provenance,
    resid_to_last,
    run_to_hook,
    unembed,
)
from saelens_steer.model.model_class import is_bridge

CLASSES = ["HookedTransformer", "TransformerBridge"]
FAMILIES = {
    "qwen3": random_qwen3,
    "qwen2": random_qwen2,
    "llama": random_llama,
    "gemma3": random_gemma3,
    "gemma3-linear": partial(
        random_gemma3, rope_parameters=GEMMA_LINEAR, final_logit_softcapping=3.0
    ),
    "qwen3-window": partial(
        random_qwen3, use_sliding_window=True, sliding_window=5, max_window_layers=2
    ),
}
N = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One random checkpoint of each family."""
    root = tmp_path_factory.mktemp("families")
    return {name: write(root / name) for name, write in FAMILIES.items()}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, folders):
    return folders[request.param]


@pytest.fixture(scope="module")
def hf(folder):
    return hugging_face(folder)


@pytest.fixture(scope="module", params=CLASSES)
def model(request, folder):
    return load_model(str(folder), model_class=request.param)


@pytest.fixture
def forgetful(tmp_path, monkeypatch):
    """Without remembered proofs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _prompts():
    """Longer and shorter than the sliding window."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(5, 380, (1, n), generator=draw) for n in (17, 4, 9, 1)]


def test_the_proof_is_far_within_its_tolerance(model):
    assert max(model_provenance(model)["parity"].values()) <= 2e-5


@torch.no_grad()
def test_logits_equal_hugging_face_at_every_position_of_a_left_padded_batch(model, hf):
    tokens, mask = left_padded(_prompts())
    theirs = hf(tokens, attention_mask=mask.long()).logits
    assert (model(tokens, attention_mask=mask.long()) - theirs)[mask].abs().max() <= 1e-4


@torch.no_grad()
def test_a_padded_row_has_the_logits_that_hugging_face_gives_the_row_alone(model, hf):
    tokens, mask = left_padded(_prompts())
    ours = last_token_logits(model, tokens, mask)
    alone = torch.cat([hf(prompt).logits[:, -1] for prompt in _prompts()])
    assert (ours - alone).abs().max() <= 1e-4
    assert (ours - last_logits(hf, tokens, mask)).abs().max() <= 1e-4


@torch.no_grad()
def test_every_resid_pre_is_the_hidden_state_of_hugging_face(model, hf):
    tokens, mask = left_padded(_prompts())
    states = hf(tokens, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    for layer in range(model.cfg.n_layers):
        ours = run_to_hook(model, tokens, mask, f"blocks.{layer}.hook_resid_pre")
        assert (ours - states[layer])[mask].abs().max() <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 3])
def test_running_on_from_a_layer_ends_at_the_logits_of_hugging_face(model, hf, layer):
    tokens, mask = left_padded(_prompts())
    resid = run_to_hook(model, tokens, mask, f"blocks.{layer}.hook_resid_pre")
    if is_bridge(model):
        with pytest.raises(InputError, match="cannot start at a layer"):
            resid_to_last(model, resid, mask, layer)
        return
    ours = unembed(model, resid_to_last(model, resid, mask, layer))
    assert (ours - last_logits(hf, tokens, mask)).abs().max() <= 1e-4


def test_greedy_tokens_of_a_padded_batch_are_those_of_hugging_face(model, hf):
    ours = generate(model, *left_padded(_prompts()), N)
    for row, prompt in zip(ours, _prompts(), strict=True):
        options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": N}
        theirs = hf.generate(prompt, do_sample=False, **options)[0, prompt.shape[1] :]
        assert torch.equal(row[: len(theirs)], theirs)
        assert (row[len(theirs) :] == 0).all()


@pytest.mark.parametrize(
    ("family", "model_class"),
    [("qwen2", CLASSES[0]), ("llama", CLASSES[0]), *(("gemma3-linear", c) for c in CLASSES)],
)
def test_half_precision_is_proved(folders, family, model_class):
    model = load_model(str(folders[family]), model_class=model_class, dtype="bfloat16")
    assert model.cfg.dtype == torch.bfloat16
    assert model_provenance(model)["parity"]["logits_median"] <= 0.03


WRONG = [
    ("llama", "use_NTK_by_parts_rope", False),
    ("gemma3", "rotary_base_local", 1e6),
    ("gemma3", "window_size", 6),
    ("gemma3", "attn_scale", 4.0),
    ("gemma3-linear", "rotary_scaling_factor", 1.0),
    ("gemma3-linear", "output_logits_soft_cap", -1.0),
    ("qwen3-window", "window_size", 4),
    ("qwen2", "eps", 1e-2),
]


def _with_setting(monkeypatch, name, value):
    def wrong(*args):
        cfg = right(*args)
        setattr(cfg, name, value)
        return cfg

    right = load.hooked_config
    monkeypatch.setattr(load, "hooked_config", wrong)


@pytest.mark.parametrize(("family", "name", "value"), WRONG)
def test_each_setting_matters_and_a_wrong_one_is_refused(
    folders, forgetful, monkeypatch, family, name, value
):
    _with_setting(monkeypatch, name, value)
    with pytest.raises(ParityError):
        load_model(str(folders[family]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "value"), [("window_size", 61), ("rotary_scaling_factor", 1.0)])
def test_what_shows_late_or_far_away_is_proved_in_every_dtype(
    tmp_path, forgetful, monkeypatch, dtype, name, value
):
    folder = random_gemma3(tmp_path / "m", sliding_window=60, rope_parameters=GEMMA_LINEAR)
    load_model(str(folder), dtype=dtype)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    _with_setting(monkeypatch, name, value)
    with pytest.raises(ParityError):
        load_model(str(folder), dtype=dtype)
