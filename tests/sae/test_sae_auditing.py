"""Laws of the audit: a right pair passes, and each fault is named; what is not audited is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from checkpoints import random_qwen3
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from saes import random_sae

import saelens_steer as ss
from benchmarks.audit import Place, Scene, random_model, random_scenes, rows, spoilt
from benchmarks.audit_saes import edited
from saelens_steer.errors import InputError
from saelens_steer.sae import audit, audit_cached, promises, save_sae
from saelens_steer.sae.auditing import audit_tokens, read_hooks, shipped_texts
from saelens_steer.sae.fit import fit_figures
from saelens_steer.sae.misfit import (
    BETTER,
    BETTER_BOS,
    FEWEST,
    LEAST_EXPLAINED,
    UNEXPLAINED,
    judged_fit,
    more_unexplained,
)
from saelens_steer.sae.quality import packed_contexts
from saelens_steer.sae.verdict import percent

HOOK = "blocks.2.hook_resid_pre"


@pytest.fixture(scope="module")
def scene(random_model) -> Scene:
    """The random Qwen3 on the shipped prompts."""
    return random_scenes([("random", random_model)])[0]


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Scene:
    """A model of the same width with other weights."""
    folder = random_qwen3(tmp_path_factory.mktemp("other"), seed=1)
    return random_scenes([("other", ss.load_model(str(folder)))])[0]


@pytest.fixture(scope="module", params=["topk", "jumprelu"])
def place(request, scene) -> Place:
    return Place(scene, HOOK, request.param, 4)


@pytest.fixture(scope="module")
def sae(scene) -> SAE:
    found = Place(scene, HOOK, "topk", 4).sae()
    found.cfg.metadata.hook_name = HOOK
    return found


def test_a_right_pair_passes_and_every_harmful_fault_is_found_without_a_promise(place, other):
    right, *faults = rows([place], [other])
    assert right["failures"] == []
    harmful = [row for row in faults if row["harmful"]]
    assert len(harmful) >= 10
    assert [row["fault"] for row in harmful if not row["unaided"]] == []


def test_a_wrong_layer_is_told_by_the_hook_that_fits_better(scene, sae):
    found = audit_tokens(scene.model, sae, "blocks.1.hook_resid_pre", scene.tokens, {})
    assert f"at {HOOK}, but" in found.failures[0]
    assert found.failures[0].endswith("check the hook")


def test_what_the_audit_measures_is_the_fit_after_position_0(scene, sae):
    found = audit_tokens(scene.model, sae, HOOK, scene.tokens, {}).figures
    resid = read_hooks(scene.model, scene.tokens, [HOOK])[HOOK]
    by_hand = fit_figures(sae, resid[:, 1:].flatten(0, 1))
    assert found["n_tokens"] == resid.shape[0] * (resid.shape[1] - 1)
    for key in ("explained_variance", "l0", "slope", "bias", "mean_norm"):
        assert found[key] == pytest.approx(by_hand[key], rel=1e-4)
    early = fit_figures(sae, resid[:, 1:8].flatten(0, 1))
    assert found["early_explained_variance"] == pytest.approx(early["explained_variance"])
    assert found["first_norm"] == pytest.approx(float(resid[:, 0].norm(dim=-1).mean()))


def test_slope_and_bias_say_what_would_mend_the_output(scene, sae):
    x = scene.activations(HOOK)[:4].flatten(0, 1)
    right = fit_figures(sae, x)
    halved = edited(sae, dict.fromkeys(("W_dec", "b_dec"), lambda w: 0.5 * w))
    halved.cfg.apply_b_dec_to_input = False
    halved.b_enc.data = sae.b_enc.data - sae.b_dec.data @ sae.W_enc.data
    assert fit_figures(halved, x)["slope"] == pytest.approx(2 * right["slope"], rel=1e-4)
    spread = (x - x.mean(0)).pow(2).sum(-1).mean().sqrt()
    shift = torch.zeros(x.shape[1])
    shift[0] = 3 * spread
    moved = fit_figures(sae, x, target=x + shift)
    assert moved["slope"] == pytest.approx(right["slope"], rel=1e-4)
    assert moved["bias"] == pytest.approx(3, abs=0.1)


def test_a_broken_promise_is_a_failure_and_a_kept_one_is_not(place):
    kept = place.promised()
    figures = fit_figures(place.sae(), place.scene.training(HOOK)[:500])
    assert judged_fit(figures, kept).passed
    (said,) = judged_fit(figures, kept | {"l0": 4 * kept["l0"]}).failures
    assert "are stated for it" in said
    (said,) = judged_fit(figures, kept | {"mean_norm": 10 * figures["mean_norm"]}).failures
    assert "mean norm" in said
    explained = 1 - (1 - figures["explained_variance"]) / 4
    (said,) = judged_fit(figures, kept | {"explained_variance": explained}).failures
    assert "in training" in said and "fine-tuned" in said


@pytest.fixture(scope="module")
def with_bos(tiny_model) -> Scene:
    """A random model that attends to a BOS wherever there is one."""
    model = random_model(tiny_model.tokenizer, 5)
    model.tokenizer.bos_token, bos = "<|im_start|>", model.tokenizer.encode("<|im_start|>")[0]
    with torch.no_grad():
        model.embed.W_E[:, 0] = 0.0
        model.embed.W_E[bos] = 0.0
        model.embed.W_E[bos, :2] = torch.tensor([3.0, -3.0])
        for block in model.blocks:
            block.attn.W_K[:, 0] = 2.0
            block.attn.b_Q[:] = 2.0
    plain = packed_contexts(model, shipped_texts(model), 95, False)[:80]
    return Scene("attends to BOS", model, torch.nn.functional.pad(plain, (1, 0), value=bos))


def test_a_bos_that_the_sae_was_not_trained_with_or_misses_is_named(with_bos):
    for trained_with in (True, False):
        contexts = with_bos.contexts if trained_with else with_bos.contexts[:, 1:]
        own = Scene("own", with_bos.model, contexts)
        other_way = with_bos.contexts[:, 1:] if trained_with else with_bos.contexts
        sae = Place(own, HOOK, "topk", 4).sae()
        assert audit_tokens(own.model, sae, HOOK, own.tokens, {}).passed
        found = audit_tokens(own.model, sae, HOOK, other_way[:4], {})
        assert any("how texts are tokenized" in failure for failure in found.failures)


def test_an_sae_that_does_not_fit_is_not_loaded_for_the_model(sae, scene, other, tmp_path):
    folder = save_sae(sae, tmp_path / "sae")
    assert torch.equal(ss.load_sae(folder, model=scene.model).W_dec, sae.W_dec)
    with pytest.raises(InputError, match=r"does not fit .*explains .*load it without model="):
        ss.load_sae(folder, model=other.model)
    assert ss.load_sae(folder).cfg.d_in == 32


def test_a_sweep_trusts_an_audit_on_loading_while_weights_and_model_stay(
    sae, scene, other, tmp_path
):
    loaded = ss.load_sae(save_sae(sae, tmp_path / "sae"), model=scene.model)
    few: dict[str, Any] = {"alphas": [1.0], "metrics": ["kl"], "n_controls": 2}

    def unchecked(model) -> bool:
        found = ss.sweep(model, loaded, ["One.", "Two."], features=[3], **few)
        return any("Whether the SAE fits was not checked" in one for one in found.warnings)

    assert not unchecked(scene.model)
    assert unchecked(other.model)
    with torch.no_grad():
        loaded.W_dec.mul_(2)
    assert unchecked(scene.model)


def test_a_file_with_damaged_weights_is_named_before_anything_is_run(sae, scene):
    sae = edited(sae, {"b_dec": lambda w: w * float("nan")})
    found = audit(scene.model, sae, HOOK)
    assert found.figures == {}
    assert "its b_dec has values that are not finite" in str(found)


def test_what_has_no_fit_or_is_read_elsewhere_is_said_not_to_be_audited(sae, scene):
    decoder = edited(sae, {"W_enc": lambda w: w * float("nan")})
    decoder.cfg.metadata.decoder_only = True
    assert "no encoder" in str(audit(scene.model, decoder, HOOK))
    x = scene.training(HOOK)[: FEWEST - 1]
    assert "too few" in str(audit(None, sae, activations=x))
    with pytest.raises(InputError, match="needs a model, or activations"):
        audit(None, sae)


def test_given_activations_and_outputs_are_audited_without_a_model(sae, scene):
    x = scene.training(HOOK)[:400]
    assert audit(None, sae, activations=x).passed
    assert (
        audit(None, sae, activations=x, target=x).figures == audit(None, sae, activations=x).figures
    )
    assert not audit(None, sae, activations=x, target=x.flip(0)).passed


def test_an_sae_without_a_hook_is_not_audited_at_a_guess(scene):
    with pytest.raises(InputError, match="does not say which hook it reads"):
        audit(scene.model, random_sae(32, None))


def test_a_sweep_says_first_that_its_sae_may_not_fit(scene, sae):
    prompts = shipped_texts(scene.model)[:6]
    options = {"features": [3], "alphas": [0.0, 4.0], "n_controls": 2, "chat": False}
    right = ss.sweep(scene.model, sae, prompts, **options)
    assert not any("may not fit" in sentence for sentence in right.warnings)
    wrong = ss.sweep(scene.model, random_sae(32, HOOK), prompts, **options)
    assert wrong.warnings[0].startswith("The SAE may not fit")
    cached = ss.cache_activations(scene.model, prompts, hook_name=HOOK, chat=False)
    assert not audit_cached(random_sae(32, HOOK), cached).passed


def test_promises_are_read_from_names_the_directory_metadata_and_training(sae, tmp_path):
    topk = edited(sae, {})
    assert promises(topk) == {"l0": 4.0}
    assert promises(topk, "owner/sae", "layer_20/width_16k/average_l0_71") == {"l0": 71.0}
    assert promises(topk, "w32k-l0_50")["l0"] == 50.0
    assert promises(topk, "model-l01-x", "layer_10") == {"l0": 4.0}
    topk.cfg.metadata.l0 = 33
    topk.cfg.metadata.activation_scale, topk.cfg.metadata.activation_mean_norm = 3.0, 4.0
    assert promises(topk, "average_l0_71") == {"l0": 33.0, "mean_norm": 5.0}
    listed = promises(topk, "gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    assert listed["l0"] == 33.0
    quality = {"verdict": "Good", "l0": 5.5, "explained_variance": 0.8}
    (tmp_path / "quality.json").write_text(json.dumps(quality))
    assert promises(topk, tmp_path) == {"l0": 5.5, "mean_norm": 5.0, "explained_variance": 0.8}
    (tmp_path / "quality.json").write_text(json.dumps({"l0": 5.5}))
    assert promises(topk, tmp_path)["l0"] == 33.0


def test_texts_are_the_shipped_ones_unless_they_are_given(scene, sae):
    tokens = packed_contexts(scene.model, shipped_texts(scene.model), 128)[:5]
    assert audit(scene.model, sae).figures == pytest.approx(
        audit_tokens(scene.model, sae, HOOK, tokens, {"l0": 4.0}).figures
    )
    few = audit(scene.model, sae, texts=["a few words"])
    assert few.figures == {} and "too few" in str(few)


def test_a_random_sae_explains_less_than_any_that_fits(scene):
    found = audit(scene.model, random_sae(32, HOOK))
    assert found.figures["explained_variance"] < LEAST_EXPLAINED
    assert not found.passed


def test_faults_leave_the_right_pair_as_it_was(place):
    before = {name: weight.clone() for name, weight in place.sae().named_parameters()}
    assert len(list(spoilt(place, []))) > 20
    assert all(torch.equal(before[n], w) for n, w in place.sae().named_parameters())


HEADS = "blocks.2.attn.hook_z"


def test_an_sae_of_heads_is_audited_like_others(scene):
    right = Place(scene, HEADS, "topk", 4).sae()
    right.cfg.metadata.hook_name = HEADS
    assert audit(scene.model, right).passed
    assert not audit(scene.model, random_sae(right.cfg.d_in, HEADS)).passed
    found = audit_tokens(scene.model, right, "blocks.1.attn.hook_z", scene.tokens, {})
    assert not found.passed


MISPLACED = {
    "wide heads": (random_sae(7, HEADS), None, "reads 7 dimensions"),
    "heads of a deeper model": (
        random_sae(32, "blocks.9.attn.hook_z"),
        None,
        "has only layers 0 to",
    ),
    "a deeper layer": (random_sae(32, "blocks.9.hook_resid_pre"), None, "has only layers 0 to"),
    "another hook": (random_sae(32, None), "blocks.1.hook_nothing", "There is no hook"),
    "another hook than its own": (random_sae(32, HOOK), HEADS, "was made for"),
}


@pytest.mark.parametrize("case", MISPLACED)
@pytest.mark.parametrize("decoder_only", [False, True])
def test_a_hook_or_width_that_the_model_lacks_is_refused_first(scene, case, decoder_only):
    sae, hook_name, hint = MISPLACED[case]
    sae = edited(sae, {})
    sae.cfg.metadata.decoder_only = decoder_only or None
    with pytest.raises(InputError, match=hint):
        audit(scene.model, sae, hook_name)
    if hint != "was made for":
        with pytest.raises(InputError):
            audit_tokens(scene.model, sae, hook_name or "blocks.9.hook_resid_pre", scene.tokens, {})


def test_a_cache_of_chosen_tokens_is_not_audited_and_prompts_count_alike(scene, sae, tmp_path):
    prompts = shipped_texts(scene.model)[:30]
    given = {"hook_name": HOOK, "chat": False, "max_norm": None}
    chosen = ss.cache_activations(scene.model, prompts, tokens="last", **given)
    assert "might not cover all tokens" in str(audit_cached(random_sae(32, HOOK), chosen))
    whole = ss.cache_activations(scene.model, prompts, **given)
    assert audit_cached(sae, whole).passed
    vectors = whole.vectors.clone()
    vectors[5] *= 1e4
    sunk = ss.Activations(vectors, whole.index, HOOK, tokens="all")
    assert audit_cached(sae, sunk).passed
    first = len(whole) // 3
    vectors = torch.cat([whole.vectors[:first], torch.randn(len(whole) - first, 32)])
    assert not audit_cached(sae, ss.Activations(vectors, whole.index, HOOK, tokens="all")).passed
    again = ss.Activations.load(whole.save(tmp_path / "cache"))
    assert again.tokens == "all" and audit_cached(sae, again) == audit_cached(sae, whole)


@pytest.mark.parametrize("factor", [BETTER, BETTER_BOS, UNEXPLAINED])
def test_a_trivial_difference_is_no_alarm_and_a_clear_one_is(factor):
    assert not more_unexplained(0.9990, 0.99914, factor)
    assert not more_unexplained(0.97, 0.989, factor)
    assert more_unexplained(0.9, 0.95, factor)
    assert not more_unexplained(0.6, 0.63, factor)
    assert percent(0.9991) != percent(1.0)


def test_promises_of_a_hub_repository_are_those_of_its_release():
    sae = random_sae(32, HOOK)
    directory = get_pretrained_saes_directory()
    name, entry = next(
        (n, e) for n, e in directory.items() if any(v for v in e.expected_l0.values())
    )
    sae_id = next(k for k, v in entry.expected_l0.items() if v)
    by_hub = promises(sae, entry.repo_id, entry.saes_map[sae_id])
    assert by_hub["l0"] == promises(sae, name, sae_id)["l0"]
