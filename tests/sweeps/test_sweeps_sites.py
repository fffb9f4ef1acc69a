"""Sweeps at all heads, and of transcoders, equal a loop of run_with_hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkpoints import random_gemma3
from steering.plain_edits import firing_sae
from sweeps.passes import based
from transcoders import random_transcoder

import saelens_steer as ss
from saelens_steer.config import CompletionSpec
from saelens_steer.errors import InputError
from saelens_steer.features.scale import feature_activations
from saelens_steer.metrics import LogitMetric, kl
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import CompletionSweep, LogitSweep, UnsteeredPass, grid, run_completions
from saelens_steer.sweeps.logits import run_logits

LAYER, FEATURE, ALPHAS = 1, 5, (-8.0, 0.0, 8.0)
Z, OUT, READ = (f"blocks.{LAYER}.{name}" for name in ("attn.hook_z", "hook_mlp_out", "mlp.hook_in"))
SIDES = ["Write a Python function", "Let x be", "show your work", "the sum of two numbers"]
PROMPTS = ["Write a Python function", "Let x be a real number", "answer"]
IDS = [[50, 60, 70, 80, 90], [50, 60, 70], [200, 210], [210, *range(40, 60)]]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return ss.load_model(str(random_gemma3(tmp_path_factory.mktemp("gemma3"))))


@pytest.fixture(params=["qwen3", "gemma3", "bridge"])
def model(request, random_model, random_bridge, gemma):
    return {"qwen3": random_model, "gemma3": gemma, "bridge": random_bridge}[request.param]


@torch.no_grad()
def by_hand(model, hook_name: str, change, alphas) -> dict[tuple[str, float], float]:
    """KL from the unsteered model of every prompt × α, one row at a time."""
    found = {}
    for prompt in PROMPTS:
        tokens = model.tokenizer(prompt, return_tensors="pt").input_ids

        def last(fwd_hooks, tokens=tokens) -> torch.Tensor:
            return model.run_with_hooks(tokens, fwd_hooks=fwd_hooks)[0, -1].log_softmax(-1)

        clean = last([])
        for alpha in alphas:
            steered = last([(hook_name, lambda x, hook, a=alpha: change(x, a))])
            found[str(PROMPTS.index(prompt) + 1), alpha] = float(
                (clean.exp() * (clean - steered)).sum()
            )
    return found


def assert_same(result, want: dict[tuple[str, float], float]) -> None:
    rows = result.rows[result.rows["feature"] == FEATURE]
    found = dict(
        zip(zip(rows["prompt_id"].astype(str), rows["alpha"], strict=True), rows["kl"], strict=True)
    )
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
    assert max(want.values()) > 1e-3


def width_of(model) -> int:
    return model.cfg.n_heads * model.cfg.d_head


def test_a_sweep_along_rows_of_all_heads_is_a_loop(model):
    sae = firing_sae(width_of(model), 1.0, Z)
    row = sae.W_dec[FEATURE].detach()

    def change(z, alpha):
        return (z.flatten(2) + alpha * row).view_as(z)

    result = ss.sweep(model, sae, PROMPTS, features=[FEATURE], alphas=ALPHAS, n_controls=5)
    assert set(result.rows["hook_name"]) == {Z}
    assert_same(result, by_hand(model, Z, change, ALPHAS))


def test_a_sweep_of_a_feature_of_all_heads_is_a_loop(model):
    sae = firing_sae(width_of(model), 1.0, Z)

    @torch.no_grad()
    def change(z, alpha):
        x = z.flatten(2)
        if alpha == 0:
            return z
        step = (alpha - sae.encode(x)[..., FEATURE])[..., None] * sae.W_dec[FEATURE]
        return (x + step).view_as(z)

    options = {"features": [FEATURE], "alphas": ALPHAS, "n_controls": 5, "edit": "set_to"}
    assert_same(ss.sweep(model, sae, PROMPTS, **options), by_hand(model, Z, change, ALPHAS))


def test_a_sweep_of_a_transcoder_is_a_loop_where_it_writes(model):
    transcoder = random_transcoder(model.cfg.d_model, LAYER)
    row = transcoder.W_dec[FEATURE].detach()
    result = ss.sweep(model, transcoder, PROMPTS, features=[FEATURE], alphas=ALPHAS, n_controls=5)
    assert set(result.rows["hook_name"]) == {OUT}
    assert_same(result, by_hand(model, OUT, lambda x, alpha: x + alpha * row, ALPHAS))
    assert result.rows["receipt_feature_act"].isna().all()


def test_a_transcoders_a_max_is_of_what_it_reads_and_norms_are_of_what_it_writes(random_model):
    transcoder = random_transcoder(random_model.cfg.d_model, LAYER)
    read, out = (ss.cache_activations(random_model, PROMPTS, hook_name=h) for h in (READ, OUT))
    highest = float(feature_activations(transcoder, read.vectors)[:, FEATURE].max())
    row = transcoder.W_dec[FEATURE].detach()
    sizes = {
        "max_act": highest * float(row.norm()),
        "resid_norm": float(out.vectors.norm(dim=-1).mean()),
    }
    assert highest > 0 and highest != float(
        feature_activations(transcoder, out.vectors)[:, 5].max()
    )
    for unit, size in sizes.items():
        for given in (None, read, out):
            result = ss.sweep(
                random_model, transcoder, PROMPTS, features=[FEATURE], alphas=[0, 1],
                alpha_unit=unit, n_controls=5, activations=given,
            )  # fmt: skip
            pushed = result.rows.loc[result.rows["alpha"] == 1, "receipt_push"]
            assert pushed.to_numpy() == pytest.approx(size, rel=1e-4)


def test_controls_of_a_transcoder_have_the_covariance_of_what_it_writes(random_model):
    transcoder = random_transcoder(random_model.cfg.d_model, LAYER)
    read, out = (ss.cache_activations(random_model, PROMPTS, hook_name=h) for h in (READ, OUT))
    options = {"features": [FEATURE], "alphas": [0, 1], "n_controls": 5}
    tables = [
        ss.sweep(random_model, transcoder, PROMPTS, activations=given, **options).rows
        for given in (None, read, out)
    ]
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


def test_features_of_a_transcoder_are_selected_on_what_it_reads(random_model):
    transcoder = random_transcoder(random_model.cfg.d_model, LAYER)
    prompts = [ss.Prompt(str(i), text, "ab"[i % 2]) for i, text in enumerate(SIDES)]
    read, out = (ss.cache_activations(random_model, prompts, hook_name=h) for h in (READ, OUT))
    found = ss.select_features(transcoder, read, "a", "b", k=2)
    with pytest.raises(InputError, match=f"hook_name='{READ}'"):
        ss.select_features(transcoder, out, "a", "b")
    with pytest.raises(InputError, match=f"hook_name='{READ}'"):
        ss.feature_pages(random_model, transcoder, out, [FEATURE])
    page = ss.feature_pages(random_model, transcoder, read, [FEATURE]).pages[0]
    assert page.raised and page.firing is not None
    ranked = ss.rank_features(
        random_model, transcoder, found, prompts, score="output_score", k=2, push_prompts=2
    )
    assert ranked.scores["output_score"].notna().any()


def test_what_a_transcoder_cannot_do_is_refused_before_any_pass(random_model):
    transcoder = random_transcoder(random_model.cfg.d_model, LAYER)
    for wrong, hint in (
        ({"edit": "ablate"}, f"writes to {OUT}.*use add or project_out"),
        ({"edit": "reconstruct"}, "use add or project_out"),
        ({"edit": {"add": {"gate": "feature"}}}, "use add or project_out"),
        ({"hook_name": READ}, "mlp.hook_in"),
        ({"hook_name": "blocks.1.hook_resid_mid"}, f"steer at {OUT}"),
    ):
        with pytest.raises(InputError, match=hint):
            ss.sweep(random_model, transcoder, PROMPTS, features=[FEATURE], n_controls=5, **wrong)


def test_logits_are_not_read_off_rows_of_the_heads(random_model):
    sae = firing_sae(width_of(random_model), 1.0, Z)
    prompts = [ss.Prompt(str(i), text, "ab"[i % 2]) for i, text in enumerate(SIDES)]
    acts = ss.cache_activations(random_model, prompts, hook_name=Z)
    found = ss.select_features(sae, acts, "a", "b", k=2)
    for score in ("direct_logit", "output_score", "token_confidence"):
        with pytest.raises(InputError, match="does not write to the residual stream"):
            ss.rank_features(random_model, sae, found, prompts, score=score)
    metrics = [ss.margin(target=[300], other=[301], name="m")]
    options = {"score": "attribution", "metrics": metrics, "k": 2}
    ranked = ss.rank_features(random_model, sae, found, prompts, **options)
    assert ranked.scores["attribution"].abs().max() > 0


def sweep_at(model, hook_name: str, positions: str) -> LogitSweep:
    draw = torch.Generator().manual_seed(1)
    return LogitSweep(
        unsteered_pass=UnsteeredPass(
            model=model, hook_name=hook_name, prompts=IDS, positions=positions, new_tokens=8
        ),
        directions=plain_directions(3 * torch.randn(2, width_of(model), generator=draw)),
        cells=grid(2, (-1.0, 1.0)),
        metrics=[LogitMetric("kl", kl)],
    )


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_rows_and_texts_from_the_heads_on_are_those_of_whole_passes(gemma, layer, positions):
    fast = sweep_at(gemma, f"blocks.{layer}.attn.hook_z", positions)
    assert fast.unsteered_pass.padded_reason is None
    slow = based(fast, whole_passes=True)
    tables = [run_logits(sweep).sort_values(["cell", "prompt"]) for sweep in (fast, slow)]
    ours, theirs = (table.drop(columns="receipt_feature_act").to_numpy() for table in tables)
    assert tables[1]["kl"].max() > 1e-2
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)
    texts = [
        run_completions(
            CompletionSweep(
                unsteered_pass=sweep.unsteered_pass,
                directions=fast.directions,
                cells=[(0, 0.0), (1, 1.0)],
                metrics=[],
                spec=CompletionSpec(max_new_tokens=8),
            )
        ).sort_values(["cell", "prompt"], ignore_index=True)
        for sweep in (fast, slow)
    ]
    assert texts[0].equals(texts[1])
