"""Every edit and every source of directions, in a sweep, a comparison and the trade-offs."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import pytest
import torch
from small_studies import HOOK, study_of

from saelens_steer.config import (
    EDITS,
    SOURCES,
    CompareDirectionsSpec,
    EditSpec,
    PlacedEditSpec,
    TradeoffsSpec,
)
from saelens_steer.data import load_prompts
from saelens_steer.directions import (
    FINDERS,
    ComparisonInputs,
    NamedDirection,
    TradeoffInputs,
    Treatment,
    comparison_rows,
    difference_of_means,
    linear_probe,
    tradeoff_rows,
    with_controls,
)
from saelens_steer.directions import (
    tested_directions as candidates_of,
)
from saelens_steer.errors import InputError
from saelens_steer.evidence import comparison_table
from saelens_steer.features import select_features
from saelens_steer.model import last_token_logits
from saelens_steer.steering import (
    BUILDERS,
    EditContext,
    EditInputs,
    add,
    build_variant,
    plain_directions,
    save_vectors,
    steered,
)

FEATURE, ALPHA = 7, 3.0
VARIATIONS = {
    "add": (
        {},
        {"keep_norm": True},
        {"gate": "feature"},
        {"gate": "probe"},
        {"orthogonal_to": "domains"},
    ),
    "ablate": ({}, {"error": "drop"}),
    "suppress_and_boost": ({"suppress": 0.9},),
    "custom": ({"function": "own_vocabulary:mirror", "options": {"share": 0.5}},),
}
"""Name → options to try; without an entry, none."""
EVERY_EDIT = [{name: options} for name in EDITS for options in VARIATIONS.get(name, ({},))]
OWN = "own_vocabulary:first_component"
EVERY_SOURCE = [*SOURCES, "auroc@answer", OWN, FEATURE]


@pytest.fixture(scope="module")
def context(sae, acts):
    others = [difference_of_means(acts, d, ["code", "math"]) for d in ("prose", "transport")]
    return EditContext(sae, linear_probe(acts, "code", "prose"), torch.stack(others))


@pytest.fixture(scope="module")
def prompts():
    held_out = load_prompts("tiny-domains-heldout")
    return [p for d in ("mixed", "code") for p in [p for p in held_out if p.domain == d][:2]]


def label(edit: dict) -> str:
    return EditSpec.model_validate(edit).label


def test_the_tables_of_configs_and_of_functions_have_the_same_names():
    assert set(EDITS) == set(BUILDERS)
    assert set(SOURCES) == set(FINDERS)


def written_out(edit: dict, sae, context) -> tuple:
    """(x′ of x by hand, the strengths that a sweep of this edit has)."""
    (name, options), w = next(iter(edit.items())), sae.W_dec[FEATURE].detach()

    def through(x, to):
        z = sae.encode(x)
        new = z.clone()
        new[..., FEATURE] = to(z[..., FEATURE])
        change = (new - z) @ sae.W_dec
        return sae.decode(new) if options.get("error") == "drop" else x + change

    def added(x):
        pushed = x + ALPHA * w
        if options.get("keep_norm"):
            pushed = pushed * x.norm(dim=-1, keepdim=True) / pushed.norm(dim=-1, keepdim=True)
        if options.get("gate") == "feature":
            return torch.where(sae.encode(x)[..., FEATURE, None] > 0, pushed, x)
        if options.get("gate") == "probe":
            return torch.where(context.probe.holds(x)[..., None], pushed, x)
        if options.get("orthogonal_to"):
            basis = torch.linalg.qr(context.domains.T).Q
            left = w - basis @ (basis.T @ w)
            return x + ALPHA * left / left.norm() * w.norm()
        return pushed

    unit = w / w.norm()
    by_hand = {
        "add": added,
        "project_out": lambda x: x - (x @ unit)[..., None] * unit,
        "ablate": lambda x: through(x, lambda z: 0.0 * z),
        "scale": lambda x: through(x, lambda z: (1 + ALPHA) * z),
        "set_to": lambda x: through(x, lambda z: torch.full_like(z, ALPHA)),
        "suppress_and_boost": lambda x: (
            x + (0.9 * sae.encode(x) - sae.encode(x)) @ sae.W_dec + ALPHA * w
        ),
        "reconstruct": lambda x: sae.decode(sae.encode(x)),
        "custom": lambda x: x - ALPHA * (x @ unit)[..., None] * unit,
    }
    return by_hand[name], EDITS[name](**options).strength


@pytest.mark.parametrize("edit", EVERY_EDIT, ids=label)
def test_a_sweep_of_an_edit_is_the_edit_at_each_strength_and_its_controls_are_as_large(
    edit, tiny_model, sae, acts, context, prompts
):
    by_hand, strength = written_out(edit, sae, context)
    alphas = {"alphas": [-ALPHA, ALPHA]} if strength else {}
    where = {"positions": "last", "max_norm": None}
    sweep = {"edit": edit, "features": [FEATURE], "n_controls": 2, "controls": "isotropic"}
    measurement = replace(
        study_of(tiny_model, prompts, sae, **sweep, **alphas, **where), context=context
    )
    directions = with_controls(measurement, candidates_of(sae, measurement.spec), acts)
    rows = measurement.logit_rows(directions)

    tokens, mask = measurement.unsteered_pass.padded
    metric, baseline = measurement.logit_metrics[0], last_token_logits(tiny_model, tokens, mask)

    def hooked(x, hook):
        return torch.cat([x[:, :-1], by_hand(x[:, -1:])], dim=1)

    with torch.no_grad(), tiny_model.hooks(fwd_hooks=[(HOOK, hooked)]):
        want = metric.of(last_token_logits(tiny_model, tokens, mask), baseline=baseline)
    own = rows[(rows["feature"] == FEATURE) & (rows["alpha"] == rows["alpha"].max())]
    found = torch.tensor(own[metric.name].to_numpy())
    torch.testing.assert_close(found, want.double(), atol=2e-3, rtol=1e-3)

    zero = rows[rows["alpha"] == 0]
    assert zero.groupby("prompt_id")[metric.name].nunique().eq(1).all()
    assert set(rows["edit"]) == {label(edit)}
    sizes = rows[rows["alpha"] != 0].pivot_table(
        index=["alpha", "prompt_id"], columns="direction", values="receipt_rel_norm"
    )
    assert sizes.shape[1] == 3
    assert float(sizes[f"feature_{FEATURE}"].max()) > 0
    for name in sizes:
        assert sizes[name].to_numpy() == pytest.approx(
            sizes[f"feature_{FEATURE}"].to_numpy(), rel=1e-4
        )


@pytest.mark.parametrize("edit", [e for e in EVERY_EDIT if "reconstruct" not in e], ids=label)
def test_an_edit_with_its_strength_stated_is_the_same_in_a_comparison(edit, sae, context, acts):
    name, options = next(iter(edit.items()))
    given_as = EDITS[name].GIVEN_AS
    strength = {given_as: 1 + ALPHA if name == "scale" else ALPHA} if given_as else {}
    spec = EditSpec.model_validate({name: {**options, "features": [FEATURE], **strength}})
    known = EditInputs(sae, HOOK, {}, context=context)
    x = acts.vectors[:20][None]
    (built,) = build_variant("v", [spec], known).edits[HOOK]
    by_hand, _ = written_out(edit, sae, context)
    torch.testing.assert_close(built(x), by_hand(x).detach(), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("edit", EVERY_EDIT, ids=label)
def test_the_trade_offs_of_an_edit_have_rows(edit, tiny_model, sae, context, prompts):
    placed = PlacedEditSpec.model_validate({**edit, "positions": "last"})
    spec = TradeoffsSpec(edits=(placed,), alphas=(0.2,), effect=None, max_new_tokens=0)
    direction = NamedDirection("feature_7", sae.W_dec[FEATURE].detach(), FEATURE, "config")
    measurement = study_of(tiny_model, prompts, sae)
    job = TradeoffInputs(measurement, [Treatment(direction, placed)], context, spec, 32.0, 1)
    rows = tradeoff_rows(job)
    moved = rows[rows["edit"] == placed.label]
    assert len(moved) == len(prompts)
    assert moved["math_margin"].notna().all()
    assert float(moved["receipt_rel_norm"].max()) > 0


@pytest.mark.parametrize("source", EVERY_SOURCE, ids=str)
def test_the_first_directions_of_many_are_those_of_few(source, find):
    for few, many in zip(find.directions_by(source, 2), find.directions_by(source, 3), strict=True):
        assert few.side == many.side
        assert few.names == many.names[: len(few.names)]
        assert torch.equal(few.vectors, many.vectors[: len(few.vectors)])
        norms = many.vectors.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("source", EVERY_SOURCE, ids=str)
def test_a_source_runs_in_sweep_comparison_and_trade_offs(
    source, find, tiny_model, sae, acts, prompts
):
    measurement = study_of(
        tiny_model, prompts, sae, alphas=[1.0], n_controls=2, controls="isotropic"
    )
    tested = find.under_test([source], 2, "resid_norm")
    swept = measurement.logit_rows(with_controls(measurement, tested, acts))
    assert set(tested.names) <= set(swept["direction"])

    found = find.directions_by(source, 2)
    spec = CompareDirectionsSpec(methods=(source,), baseline=str(source))
    compared = comparison_rows(
        ComparisonInputs(measurement, spec, find.scale, {"code": -1, "math": 1}), found
    )
    assert compared["effect"].notna().all()
    evidence = set(comparison_table(compared, str(source))["evidence"])
    name = str(source).partition("@")[0]
    assert evidence == {
        SOURCES[name].evidence if name in SOURCES else "selection" if source == OWN else "given"
    }

    direction = NamedDirection(
        found[0].names[0], found[0].vectors[0], found[0].features[0], str(source)
    )
    traded = TradeoffsSpec(alphas=(0.2,), effect=None, max_new_tokens=0)
    job = TradeoffInputs(measurement, [Treatment(direction)], EditContext(sae), traded, 32.0, 1)
    assert len(tradeoff_rows(job)) == 2 * len(prompts)


def test_a_family_of_your_own_gives_controls(tiny_model, sae, acts, prompts):
    sweep = {"features": [FEATURE], "n_controls": 3, "controls": "own_vocabulary:axes"}
    measurement = study_of(tiny_model, prompts, sae, **sweep)
    directions = with_controls(measurement, candidates_of(sae, measurement.spec), acts)
    drawn = directions.vectors[1:]
    assert ((drawn != 0).sum(1) == 1).all()
    assert set(directions.families[1:]) == {"own_vocabulary:axes"}


def test_two_directions_of_one_name_are_refused_and_not_dropped(find, sae, tmp_path):
    row = sae.W_dec[FEATURE].detach()
    for name, file in (("a", "one"), ("a", "two"), (f"feature_{FEATURE}", "three")):
        save_vectors(tmp_path / f"{file}.safetensors", {name: row}, HOOK)
        row = row.flip(0)
    one, two, three = (str(tmp_path / f"{n}.safetensors") for n in ("one", "two", "three"))
    assert find.under_test([one, FEATURE], 2, "raw").names == ("a", f"feature_{FEATURE}")
    for both in ([one, two], [FEATURE, three]):
        with pytest.raises(InputError, match="two directions are called"):
            find.under_test(both, 2, "raw")


@pytest.mark.parametrize("size", [0.01, 1.0, 300.0])
def test_directions_of_your_own_function_are_unit_vectors(find, monkeypatch, size):
    find = replace(find)  # which has found nothing yet
    own = torch.randn(2, find.activations.d_model, generator=torch.Generator().manual_seed(1))
    module = types.ModuleType(f"own_source_{size:g}".replace(".", "_"))
    module.found = lambda *_: size * own
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for found, sign in zip(find.directions_by(f"{module.__name__}:found", 2), (1, -1), strict=True):
        torch.testing.assert_close(found.vectors, sign * torch.nn.functional.normalize(own))


@pytest.mark.parametrize("source", ["difference_of_means", "linear_probe", OWN])
def test_with_a_reference_each_side_has_a_direction_from_it(find, acts, source):
    finder = replace(find, spec=find.spec.model_copy(update={"reference": "prose"}))
    for found, side in zip(finder.directions_by(source, 1), ("code", "math"), strict=True):
        assert found.side == side and found.names[0].endswith(side)
        if source != OWN:
            made = difference_of_means if source == "difference_of_means" else linear_probe
            alone = made(acts, side, "prose")
            torch.testing.assert_close(found.vectors[0], getattr(alone, "direction", alone))
    tested = finder.under_test([source], 1, "raw")
    assert len(tested.names) == 2, "they are no opposites, so both are swept"
    assert len(find.under_test([source], 1, "raw").names) == 1


def test_with_a_reference_a_score_finds_decoder_rows_against_it(find, sae, acts):
    finder = replace(find, spec=find.spec.model_copy(update={"reference": "prose"}))
    code, math = finder.directions_by("mean_difference", 3)
    alone = select_features(sae, acts, "code", "prose", k=3, at=find.spec.at)
    assert list(code.features) == alone.candidates["code"]
    assert not set(code.features) & set(math.features)


def test_a_name_means_one_direction_whoever_asks_for_it(find, sae, tmp_path):
    find = replace(find)  # which has found nothing yet
    row = sae.W_dec[FEATURE].detach()
    for file in ("first", "second"):
        save_vectors(tmp_path / f"{file}.safetensors", {"same name": row}, HOOK)
        row = row.flip(0)
    for _ in range(2):
        find.directions_by(str(tmp_path / "first.safetensors"), 1)
    with pytest.raises(InputError, match=r"'same name', the second found by .*second.*rename one"):
        find.directions_by(str(tmp_path / "second.safetensors"), 1)


def test_an_edit_of_features_refuses_a_vector_and_says_which(tiny_model, sae, acts, prompts):
    measurement = study_of(tiny_model, prompts, sae, edit="ablate", n_controls=0)
    tested = plain_directions(acts.vectors[:1])
    with pytest.raises(InputError, match="ablate edits SAE features, and direction_0 is not one"):
        measurement.logit_rows(tested)


def test_a_function_that_returns_no_edit_is_refused(sae, context):
    spec = EditSpec.model_validate(
        {"custom": {"function": "own_vocabulary:no_edit", "features": [1]}}
    )
    with pytest.raises(InputError, match="return an Edit"):
        build_variant("v", [spec], EditInputs(sae, HOOK, {}, context=context))


def test_what_an_edit_needs_is_asked_for(sae):
    for options, hint in (
        ({"gate": "probe"}, "cached activations"),
        ({"orthogonal_to": "domains"}, "domains"),
    ):
        spec = EditSpec.model_validate({"add": {**options, "features": [1]}})
        with pytest.raises(InputError, match=hint):
            build_variant("v", [spec], EditInputs(sae, HOOK, {}))


def test_a_push_orthogonal_to_itself_has_nothing_left():
    v = torch.randn(8)
    with pytest.raises(InputError, match="the direction lies in the span"):
        add(v, 2.0, orthogonal_to=v)


def test_a_gate_may_be_a_feature_in_python(tiny_model, sae, acts):
    edit = add(sae.W_dec[FEATURE], 4.0, gate=(sae, FEATURE))
    x = acts.vectors[:30][None]
    active = sae.encode(x)[..., FEATURE] > 0
    moved = (edit(x) != x).any(-1)
    assert torch.equal(moved, active)
    with steered(tiny_model, edit, HOOK) as receipt:
        tiny_model(torch.tensor([[5, 6, 7, 8, 9, 10]]))
    assert receipt.changed < receipt.positions
