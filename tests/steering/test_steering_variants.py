"""Variants in a config: each edit builds what its function builds, at the hooks it names."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from model.model_batches import left_padded, rows
from plain_edits import firing_sae

from saelens_steer.config import (
    EDITS,
    CompareEditsSpec,
    EditSpec,
    checked,
    dump_config,
    load_config,
    parse_config,
)
from saelens_steer.errors import InputError
from saelens_steer.features import Scale
from saelens_steer.model import last_token_logits
from saelens_steer.steering import (
    EditInputs,
    ablate,
    add,
    build_variant,
    edit_where,
    project_out,
    reconstruct,
    scale,
    set_to,
    steered,
    suppress_and_boost,
)
from saelens_steer.steering.sae_edits import composed

HOOK, WIDTH = "blocks.2.hook_resid_pre", 32
A_MAX, NORM = {5: 2.0, 9: 0.5, 11: 4.0}, 7.0
CANDIDATES = {"code": [5, 9, 11], "math": [12]}


@pytest.fixture(scope="module")
def sae():
    return firing_sae(WIDTH)


@pytest.fixture(scope="module")
def x():
    return torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def known(sae):
    return EditInputs(sae, HOOK, CANDIDATES, Scale(A_MAX, NORM))


def specs(*edits) -> list[EditSpec]:
    """The edits as a config's variant has them."""
    return list(patch_of(v=list(edits)).variants["v"])


def patch_of(**variants) -> CompareEditsSpec:
    return checked(CompareEditsSpec, {"variants": variants}, "compare_edits")


def applied(edits, x: torch.Tensor) -> torch.Tensor:
    return edit_where(composed(edits), x, torch.ones(x.shape[:2]).bool())


def ours(sae) -> dict:
    """Name → an edit of a config, and what the functions make of the same."""
    rows = sae.W_dec.detach()
    unit = rows / rows.norm(dim=-1, keepdim=True)
    two = {"features": [5, 9]}
    return {
        "add raw": ({"add": {**two, "alpha": 3}}, add(rows[5] + rows[9], 3.0)),
        "add unit": (
            {"add": {**two, "alpha": 3, "alpha_unit": "unit"}},
            add(unit[5] + unit[9], 3.0),
        ),
        "add max_act": (
            {"add": {**two, "alpha": 3, "alpha_unit": "max_act"}},
            add(2.0 * rows[5] + 0.5 * rows[9], 3.0),
        ),
        "add resid_norm": (
            {"add": {**two, "alpha": 3, "alpha_unit": "resid_norm"}},
            add(7.0 * (unit[5] + unit[9]), 3.0),
        ),
        "add by domain": ({"add": {"features": "code", "top": 2}}, add(rows[5] + rows[9])),
        "project_out": ({"project_out": two}, project_out(rows[[5, 9]])),
        "project_out by domain": ({"project_out": {"features": "math"}}, project_out(rows[12])),
        "ablate": ({"ablate": two}, ablate(sae, [5, 9])),
        "ablate by domain": ({"ablate": {"features": "code"}}, ablate(sae, 5)),
        "ablate all of a domain": (
            {"ablate": {"features": "code", "top": 3, "error": "drop"}},
            ablate(sae, [5, 9, 11], "drop"),
        ),
        "more than there are": (
            {"ablate": {"features": "code", "top": 50}},
            ablate(sae, [5, 9, 11]),
        ),
        "scale": (
            {"scale": {**two, "factor": -2, "error": "drop"}},
            scale(sae, [5, 9], -2.0, "drop"),
        ),
        "set_to": ({"set_to": {**two, "value": 1.5}}, set_to(sae, [5, 9], 1.5)),
        "set in A_max": (
            {"set_to": {**two, "value": 1.5, "unit": "max_act"}},
            set_to(sae, [5, 9], [3.0, 0.75]),
        ),
        "suppress_and_boost": (
            {"suppress_and_boost": {**two, "boost": 3, "suppress": 0.2}},
            suppress_and_boost(sae, [5, 9], 3.0, 0.2),
        ),
        "boost in A_max": (
            {"suppress_and_boost": {"features": "code", "top": 2, "boost": 3, "unit": "max_act"}},
            suppress_and_boost(sae, [5, 9], [6.0, 1.5]),
        ),
        "reconstruct": ("reconstruct", reconstruct(sae)),
        "reconstruct with nothing below": ({"reconstruct": None}, reconstruct(sae)),
        "reconstruct:keep": ({"reconstruct": {"error": "keep"}}, reconstruct(sae, "keep")),
    }


@pytest.mark.parametrize("name", ours(firing_sae(WIDTH)))
def test_an_edit_of_a_config_does_what_the_function_does(name, sae, known, x):
    given, expected = ours(sae)[name]
    built = build_variant("v", specs(given), known).edits[HOOK]
    assert [e.name for e in composed(built)] == [expected.name]
    torch.testing.assert_close(applied(built, x), applied([expected], x))
    if name != "reconstruct:keep":
        assert (applied(built, x) - x).abs().max() > 0.1


def test_every_kind_of_edit_is_built_here(sae):
    kinds = {specs(given)[0].kind for given, _ in ours(sae).values()}
    assert kinds == set(EDITS) - {"custom"}


def test_edits_at_one_hook_act_in_the_order_given_and_are_named_so(sae, known, x):
    given = [
        {"suppress_and_boost": {"features": [5], "boost": 1}},
        {"scale": {"features": [9], "factor": 3}},
        {"add": {"features": [11], "alpha": 2}},
    ]
    variant = build_variant("v", specs(*given), known)
    z_edits = composed([suppress_and_boost(sae, 5, 1.0), scale(sae, 9, 3.0)])
    expected = add(sae.W_dec[11], 2.0)(z_edits[0](x))
    torch.testing.assert_close(applied(variant.edits[HOOK], x), expected)
    assert variant.label == "suppress(0.5)_boost(1)[5]+scale(3)[9]:keep; add(2)"
    assert variant.features == (5, 9, 11)


def test_the_features_of_a_variant_are_those_its_edits_name_each_once(known):
    given = [{"add": {"features": [5, 9]}}, {"ablate": {"features": "code", "top": 2}}]
    assert build_variant("v", specs(*given), known).features == (5, 9)
    assert build_variant("v", specs("reconstruct"), known).features == ()


TWICE = {
    "in one edit": [{"ablate": {"features": [5, 5]}}],
    "in two edits": [{"ablate": {"features": [5]}}, {"set_to": {"features": [9, 5], "value": 1}}],
    "a domain": [{"ablate": {"features": "code"}}, {"scale": {"features": "code", "factor": 2}}],
}


@pytest.mark.parametrize("case", TWICE)
def test_a_feature_twice_in_a_variant_at_one_hook_is_refused_by_the_config(case):
    with pytest.raises(InputError, match=r"feature .* twice at one hook|a feature twice"):
        specs(*TWICE[case])


def test_the_same_feature_may_be_edited_at_two_hooks_and_in_two_variants():
    here, there = {"features": [5]}, {"features": [5], "hook_name": "blocks.1.hook_resid_pre"}
    specs({"ablate": here}, {"ablate": there})
    patch_of(one=[{"ablate": here}], two=[{"ablate": here}])


def test_a_feature_named_by_number_and_by_domain_is_refused_before_any_pass(known):
    given = [{"ablate": {"features": "code"}}, {"set_to": {"features": [5], "value": 1}}]
    with pytest.raises(InputError, match="two edits at one hook change feature 5"):
        build_variant("v", specs(*given), known)
    own = [{"ablate": {"features": [5], "hook_name": h}} for h in (None, HOOK)]
    with pytest.raises(InputError, match="two edits at one hook change feature 5"):
        build_variant("v", specs(*own), known)


def test_a_place_with_two_names_is_one_place(known):
    baseline = {"ablate": {"features": [5], "hook_name": "blocks.1.hook_resid_post"}}
    with pytest.raises(InputError, match="two edits at one hook change feature 5"):
        build_variant("v", specs({"set_to": {"features": [5], "value": 1.0}}, baseline), known)
    assert list(build_variant("v", specs(baseline), known).edits) == [HOOK]


def test_what_a_config_refers_to_and_is_not_there_is_refused_with_the_nearest(sae, known):
    with pytest.raises(InputError, match="no candidates for 'cod'; did you mean 'code'"):
        build_variant("v", specs({"ablate": {"features": "cod"}}), known)
    with pytest.raises(InputError, match="feature 64 is out of range: the SAE has features 0"):
        build_variant("v", specs({"add": {"features": [64]}}), known)
    with pytest.raises(InputError, match="never fires on the cached activations"):
        none = EditInputs(sae, HOOK, CANDIDATES, Scale({63: 0.0}))
        build_variant(
            "v", specs({"set_to": {"features": [63], "value": 1, "unit": "max_act"}}), none
        )
    with pytest.raises(InputError, match="found no feature for 'code': name features by index"):
        build_variant(
            "v", specs({"ablate": {"features": "code"}}), EditInputs(sae, HOOK, {"code": []})
        )


REFUSED = {
    "a variant called original": (
        {"original": ["reconstruct"]},
        "'original', the name of the unedited model",
    ),
    "a variant without edits": ({"v": []}, "'v' has no edit"),
    "no variants": ({}, "should not be empty"),
    "an edit of two keys": (
        {"v": [{"ablate": {"features": [1]}, "add": {"features": [1]}}]},
        "an edit should be one of add, project_out, ablate",
    ),
    "an edit of no key": ({"v": [{}]}, "an edit should be one of add"),
    "an unknown edit": ({"v": [{"ablat": {"features": [1]}}]}, "did you mean 'ablate'"),
    "an unknown bare name": ({"v": ["reconstuct"]}, "did you mean 'reconstruct'"),
    "an edit without features": ({"v": ["ablate"]}, "features"),
    "features that are none": ({"v": [{"add": {"features": []}}]}, "features: should not be empty"),
    "a number for a list": ({"v": [{"add": {"features": 3}}]}, "a domain or a list of feature"),
    "kl, which only a sweep can find": (
        {"v": [{"add": {"features": [1], "alpha_unit": "kl"}}]},
        "alpha_unit",
    ),
    "a key of another edit": (
        {"v": [{"ablate": {"features": [1], "factor": 2}}]},
        "unknown key 'variants.v.0.ablate.factor'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_variant_that_means_nothing_is_refused_by_the_config(case):
    variants, hint = REFUSED[case]
    with pytest.raises(InputError, match=hint):
        checked(CompareEditsSpec, {"variants": variants}, "compare_edits")


@pytest.mark.parametrize("max_norm", (0, -1.0, "some"))
def test_a_limit_of_norms_is_a_positive_number_null_or_auto(max_norm):
    with pytest.raises(InputError, match="max_norm"):
        checked(
            CompareEditsSpec,
            {"variants": {"v": ["reconstruct"]}, "max_norm": max_norm},
            "compare_edits",
        )
    for fine in (None, "auto", 3):
        given = {"variants": {"v": ["reconstruct"]}, "max_norm": fine}
        assert checked(CompareEditsSpec, given, "compare_edits").max_norm == fine


@pytest.mark.parametrize("kind", ("random_model", "random_bridge"))
def test_a_variant_at_two_hooks_is_two_nested_contexts_in_the_order_of_layers(kind, request, sae):
    model = request.getfixturevalue(kind)
    known = EditInputs(sae, HOOK, CANDIDATES)
    later, earlier = "blocks.3.hook_resid_pre", "blocks.1.hook_mlp_out"
    given = [
        {"set_to": {"features": [5], "value": 9, "hook_name": later}},
        {"ablate": {"features": "code", "top": 2}},
        {"add": {"features": [9], "alpha": 4, "hook_name": earlier}},
    ]
    variant = build_variant("v", specs(*given), known)
    assert list(variant.edits) == [earlier, HOOK, later]
    by_hand = {later: set_to(sae, 5, 9.0), HOOK: ablate(sae, [5, 9])}
    by_hand[earlier] = add(sae.W_dec[9], 4.0)
    tokens, mask = left_padded(rows())
    with variant.applied(model):
        ours = last_token_logits(model, tokens, mask)
    for order in (by_hand, dict(reversed(by_hand.items()))):
        with ExitStack() as stack:
            for hook_name, edit in order.items():
                stack.enter_context(steered(model, edit, hook_name))
            torch.testing.assert_close(last_token_logits(model, tokens, mask), ours)
    one_less = {name: e for name, e in by_hand.items() if name != HOOK}
    with ExitStack() as stack:
        for hook_name, edit in one_less.items():
            stack.enter_context(steered(model, edit, hook_name))
        assert (last_token_logits(model, tokens, mask) - ours).abs().max() > 1e-3


def test_a_config_with_variants_reads_back_equal(tmp_path, sae):
    edits = [given for given, _ in ours(sae).values()]
    variants = {str(i): [edit] for i, edit in enumerate(edits)}
    variants["both: hooks"] = [
        "reconstruct",
        {"ablate": {"features": "math", "hook_name": "blocks.2.hook_resid_pre"}},
    ]
    section = {"variants": variants, "limit": 3, "positions": "generated", "max_norm": None}
    spec = parse_config({"compare_edits": section})
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(spec), encoding="utf-8")
    assert load_config(path) == spec
    assert dump_config(load_config(path)) == dump_config(spec)
    assert load_config(path, ["compare_edits.max_norm=2.5"]).compare_edits.max_norm == 2.5
    assert spec.named_features == (5, 9)
