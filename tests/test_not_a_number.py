"""NaN and infinities are never data: refused in weights, and undefined rows in tables."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import random_qwen3
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from saes import random_sae
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import saelens_steer as ss
from saelens_steer.activations import Activations
from saelens_steer.config import draft_config
from saelens_steer.errors import InputError
from saelens_steer.evidence import claims, guards, summarise
from saelens_steer.metrics import KL, LogitMetric
from saelens_steer.model import load_model
from saelens_steer.sae import check_sae, load_sae, save_sae

NOT_NUMBERS = [float("nan"), float("inf"), float("-inf")]
PROMPTS = ["Write a Python function", "Hello there", "What is 2+2"]
HOOK = "blocks.2.hook_resid_pre"


def jump_relu(width: int) -> JumpReLUSAE:
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=width, d_sae=16))
    for weight in sae.parameters():
        weight.data = torch.rand(weight.shape)
    sae.cfg.metadata.hook_name = HOOK
    return sae


@pytest.mark.parametrize("bad", NOT_NUMBERS)
@pytest.mark.parametrize(
    ("section", "place"),
    [
        (
            '{"sae": {"train": {"options": {"k": 4, "aux_loss_coefficient": BAD}}}}',
            "sae.train.options",
        ),
        ('{"sae": {"train": {}, "grid": [{"options": {"k": BAD}}]}}', "sae.grid.0.options.k"),
        ('{"sae": {"train": {}, "grid": [{"vary": {"k": [2, BAD]}}]}}', "sae.grid.0.vary.k.1"),
        ('{"sae": {"train": {}, "grid": [{"vary": {"w": [[2, BAD]]}}]}}', "sae.grid.0.vary.w.0"),
        (
            '{"prompts": {"chat_template_kwargs": {"a": {"b": BAD}}}}',
            "prompts.chat_template_kwargs.a",
        ),
        (
            '{"sweep": {"edit": {"custom": {"function": "a:b", "options": {"x": BAD}}}}}',
            "options.x",
        ),
        (
            '{"label": {"provider": "openai-compatible", "server": {"base_url": "http://a/v1", '
            '"model": "a", "extra": {"temperature": BAD}}}}',
            "label.server.extra.temperature",
        ),
    ],
)
def test_nan_and_infinity_in_a_config_are_refused_even_inside_options(
    section, place, bad, tmp_path
):
    file = tmp_path / "config.yaml"
    file.write_text(section.replace("BAD", f".{bad}" if bad >= 0 or bad != bad else f"-.{-bad}"))
    with pytest.raises(InputError, match=re.escape(place) + r"\S*: should be a finite number"):
        draft_config(file).checked()


@pytest.mark.parametrize("bad", NOT_NUMBERS)
@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"])
def test_an_sae_with_a_non_finite_weight_is_refused_as_a_file_and_as_an_object(
    name, bad, random_model, tmp_path
):
    sae = jump_relu(random_model.cfg.d_model)
    check_sae(sae, random_model, HOOK)
    getattr(sae, name).data.view(-1)[3] = bad
    save_sae(sae, tmp_path / "saelens")
    save_file(
        {k: v.contiguous() for k, v in sae.state_dict().items()}, tmp_path / "other.safetensors"
    )
    with pytest.raises(InputError, match=f"the SAE's {name} holds NaN or an infinity"):
        load_sae(tmp_path / "saelens")
    with pytest.raises(InputError, match="finite"):
        load_sae(tmp_path / "other.safetensors", d_model=32, hook_name=HOOK)
    with pytest.raises(InputError, match=f"the SAE's {name} holds NaN or an infinity"):
        ss.sweep(random_model, sae, PROMPTS, features=[2], alphas=[4], metrics=["kl"])
    with pytest.raises(InputError, match=f"the SAE's {name} holds NaN or an infinity"):
        ss.generate(random_model, PROMPTS, {"a": ss.scale(sae, 2, 0.0)})


def test_a_decoder_without_an_encoder_may_hold_nan_in_the_encoder_alone(random_model, tmp_path):
    save_file({"W_dec": torch.randn(16, 32)}, tmp_path / "decoder.safetensors")
    sae = load_sae(tmp_path / "decoder.safetensors", d_model=32, hook_name=HOOK)
    assert sae.W_enc.isnan().all()
    check_sae(sae, random_model, HOOK)
    sae.W_dec.data[5, 0] = torch.nan
    with pytest.raises(InputError, match="W_dec holds NaN or an infinity, first at index 5"):
        check_sae(sae, random_model, HOOK)


@pytest.mark.parametrize("bad", NOT_NUMBERS)
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.norm.weight", "model.layers.1.mlp.up_proj.weight"]
)
def test_a_model_with_a_non_finite_weight_is_refused(name, bad, tmp_path):
    folder = random_qwen3(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[-1] = bad
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"hold NaN or an infinity in {name}"):
        load_model(str(folder))


def test_weights_that_overflow_in_the_requested_dtype_are_refused(tmp_path):
    folder = random_qwen3(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"as float16; .* load them in float32 if they overflow"):
        load_model(str(folder), dtype="float16")


@pytest.mark.parametrize(
    ("steered", "defined"),
    [
        ([0.0, 1.0, 2.0], True),
        ([0.0, 1.0, float("-inf")], True),
        ([0.0, 1.0, float("inf")], False),
        ([0.0, float("nan"), 2.0], False),
        ([float("-inf")] * 3, False),
    ],
)
def test_logits_that_are_no_numbers_give_no_metric_even_if_it_does_not_read_them(steered, defined):
    first = LogitMetric("first", lambda logits, *, baseline: logits[:, 0])
    logits, unsteered = torch.tensor([steered]), torch.zeros(1, 3)
    assert bool(first.of(logits, baseline=unsteered).isfinite().all()) is defined


def test_an_infinite_divergence_is_undefined():
    assert KL.of(torch.tensor([[0.0, -torch.inf]]), baseline=torch.zeros(1, 2)).isnan().all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("alpha", [1e25, -1e30, 3e38])
@pytest.mark.parametrize("model", ["random_model", "random_bridge"])
def test_a_push_that_overflows_has_rows_but_no_numbers(model, alpha, temperature, request):
    model = request.getfixturevalue(model)
    sae = random_sae(model.cfg.d_model)
    completions = ss.CompletionSpec(max_new_tokens=3, n_controls=1, temperature=temperature)
    options = {"alpha_unit": "raw", "n_controls": 2, "completions": completions}
    metrics = ["kl", "distinct_words"]
    both = ss.sweep(
        model, sae, PROMPTS, features=[7], alphas=[1, alpha], metrics=metrics, **options
    )
    only = ss.sweep(model, sae, PROMPTS, features=[7], alphas=[1], metrics=metrics, **options)
    lost = both.rows["alpha"] == alpha
    assert lost.any() and both.rows.loc[lost, [*metrics, "receipt_rel_norm"]].isna().all(axis=None)
    texts = both.completions
    assert texts.loc[texts["alpha"] == alpha, "truncated"].isna().all()
    assert texts.loc[texts["alpha"] != alpha, "truncated"].notna().all()
    kept = both.summary[both.summary["alpha"] != alpha].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, only.summary)
    assert list(both.claims["effect"]) == pytest.approx(list(only.claims["effect"]), rel=1e-5)
    assert list(both.claims["n_undefined"]) == [3, 3]
    assert list(only.claims["n_undefined"]) == [0, 0]
    assert any("kl (as few as 0 of 3), distinct_words" in sentence for sentence in both.warnings)
    assert not any("repeat themselves" in sentence for sentence in both.warnings)


def test_a_variant_that_overflows_has_rows_but_no_numbers(random_model, capsys):
    vector = random_sae(32).W_dec[7].detach()
    edits = {"far": ss.add(vector, 1e30), "near": ss.add(vector, 1.0)}
    table = ss.generate(
        random_model,
        PROMPTS,
        edits,
        hook_name=HOOK,
        max_new_tokens=3,
        metrics=["kl", "distinct_words"],
    )
    far, near = (table[table["variant"] == name] for name in edits)
    assert far[["kl", "distinct_words", "receipt_rel_norm", "truncated"]].isna().all(axis=None)
    assert near[["kl", "distinct_words", "receipt_rel_norm", "truncated"]].notna().all(axis=None)
    assert "the residual stream overflows in 6 of" in capsys.readouterr().err


def test_an_infinite_value_of_a_metric_is_left_out_with_a_warning(random_model, capsys):
    def odds(logits):
        return torch.where(logits[:, 0] > logits[:, 1], torch.inf, 1.0)

    def words(text):
        return float("inf") if len(text) % 2 else 1.0

    result = ss.sweep(
        random_model,
        random_sae(32),
        PROMPTS,
        features=[7],
        alphas=[-2, 1],
        metrics=["kl", odds, words],
        completions=ss.CompletionSpec(max_new_tokens=3),
    )
    assert set(result.rows["odds"].dropna()) <= {1.0} and set(result.rows["words"].dropna()) <= {
        1.0
    }
    assert "metric 'odds' returned an infinite value, which counts as" in capsys.readouterr().err


@pytest.mark.parametrize("bad", NOT_NUMBERS)
def test_a_table_with_an_infinite_value_is_summarised_as_if_the_value_were_missing(bad):
    rows = pd.DataFrame(
        [
            {
                "direction": name,
                "family": family,
                "feature": 1 if name == "feature_1" else None,
                "alpha": float(alpha),
                "alpha_unit": "raw",
                "prompt_id": str(prompt),
                "m": alpha * (prompt + 1.0) * (1 if family == "candidate" else 0.1),
            }
            for name, family in (("feature_1", "candidate"), ("gaussian_0", "gaussian"))
            for alpha in (0, 1, 2)
            for prompt in range(4)
        ]
    )
    broken = rows.copy()
    broken.loc[6, "m"] = bad
    missing = rows.copy()
    missing.loc[6, "m"] = np.nan
    for table in (summarise, claims):
        found, expected = (table(one, ["m"]) for one in (broken, missing))
        pd.testing.assert_frame_equal(found, expected)
    assert list(claims(broken, ["m"])["n_undefined"]) == [1]
    empty = pd.DataFrame()
    assert any("m (as few as 3 of 4)" in s for s in guards(broken, empty, empty, ["m"]))


@pytest.mark.parametrize("bad", NOT_NUMBERS)
def test_non_finite_activations_and_directions_are_refused(bad, random_model, tmp_path):
    found = ss.cache_activations(random_model, PROMPTS, hook_name=HOOK)
    found.save(tmp_path / "good")
    vectors = found.vectors.clone()
    vectors[4, 0] = bad
    broken = Activations(vectors, found.index, HOOK, tokens=found.tokens)
    with pytest.raises(InputError, match="the activations hold NaN or an infinity, first in row 4"):
        list(broken.chunks())
    file = next((tmp_path / "good").glob("shard-*"))
    with safe_open(file, framework="pt") as handle:
        about = handle.metadata()
    save_file({"vectors": vectors}, file, about)
    loaded = Activations.load(tmp_path / "good")
    for read in (lambda: loaded.vectors, lambda: loaded.take(torch.tensor([1, 4]))):
        with pytest.raises(InputError, match="the activations hold NaN or an infinity"):
            read()
    vector = torch.ones(32)
    vector[2] = bad
    for call in (
        lambda: ss.add(vector, 1.0),
        lambda: ss.project_out(vector),
        lambda: ss.generate(random_model, PROMPTS, {"v": vector}, hook_name=HOOK),
        lambda: ss.sweep(
            random_model, None, PROMPTS, directions={"v": vector}, hook_name=HOOK, alphas=[1]
        ),
    ):
        with pytest.raises(InputError, match="not finite"):
            call()
