"""The trade-offs' edits against their definitions, measure.py against hooked passes, and
tabulate_tradeoffs.py against plain means."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_studies import HOOK, study_of
from torch.nn.functional import cross_entropy

from saelens_steer.config import PlacedEditSpec, TradeoffsSpec
from saelens_steer.data import load_prompts, token_ids
from saelens_steer.directions import (
    NamedDirection,
    TradeoffInputs,
    Treatment,
    difference_of_means,
    probe_between,
    tradeoff_rows,
    vectors_of,
)
from saelens_steer.directions.means_and_probes import Probe
from saelens_steer.directions.text_loss import text_losses
from saelens_steer.errors import InputError
from saelens_steer.evidence import Damage, by_domain_table, tradeoffs_table
from saelens_steer.evidence.tabulate_tradeoffs import on_pareto_front
from saelens_steer.model import last_token_logits
from saelens_steer.steering import EditContext, steered

EDITS: tuple = (
    *("add", "add@last"),
    {"add": {"keep_norm": True}, "positions": "last"},
    {"add": {"gate": "probe"}, "positions": "last"},
    *({"add": {"orthogonal_to": "domains"}}, {"add": {"gate": "feature"}}, "set_to"),
)
SPEC = TradeoffsSpec(edits=EDITS, alphas=(0.2,), effect=0.3, max_new_tokens=8)
STEP = 6.0
KEEP_NORM, WHERE, APART, FIRES = EDITS[2:6]


@pytest.fixture(scope="module")
def context(sae, acts):
    sides = [vectors_of(acts, [d]) for d in ("code", "prose")]
    others = [difference_of_means(acts, [d], ["code", "math"]) for d in ("prose", "transport")]
    return EditContext(sae, probe_between(*sides), torch.stack(others))


@pytest.fixture(scope="module")
def direction(sae):
    return NamedDirection("feature_7", sae.W_dec[7].detach().clone(), 7, "mean_difference@answer")


@pytest.fixture(scope="module")
def x(acts):
    return acts.vectors[:40][None]


def treatment(direction, edit) -> Treatment:
    return Treatment(direction, PlacedEditSpec.model_validate(edit))


def act(edit, direction, context, x):
    return treatment(direction, edit).build(STEP, context)(x)


def test_plain_addition_adds_the_step(direction, context, x):
    torch.testing.assert_close(act("add", direction, context, x), x + STEP * direction.vector)


def test_keep_norm_turns_the_activation_and_leaves_its_norm(direction, context, x):
    after = act(KEEP_NORM, direction, context, x)
    torch.testing.assert_close(after.norm(dim=-1), x.norm(dim=-1))
    pushed = x + STEP * direction.vector
    cosine = torch.nn.functional.cosine_similarity(after, pushed, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_apart_adds_nothing_along_the_other_domains(direction, context, x):
    change = act(APART, direction, context, x) - x
    assert (change @ context.domains.T).abs().max() < 1e-4
    torch.testing.assert_close(change.norm(dim=-1), torch.full(x.shape[:2], STEP))


def test_where_and_fires_add_to_some_and_leave_the_rest_bit_for_bit(direction, context, x, sae):
    for edit, open_ in (
        (WHERE, context.probe.holds(x)),
        (FIRES, sae.encode(x)[..., 7] > 0),
    ):
        after = act(edit, direction, context, x)
        assert 0 < int(open_.sum()) < open_.numel()
        assert torch.equal(after[~open_], x[~open_])
        torch.testing.assert_close(after[open_], x[open_] + STEP * direction.vector)


def test_clamp_puts_the_step_into_the_reconstruction(direction, context, x, sae):
    before = sae.encode(x)[..., 7]
    want = x + (STEP - before)[..., None] * sae.W_dec[7]
    torch.testing.assert_close(act("set_to", direction, context, x), want, atol=1e-4, rtol=1e-4)


def test_edits_of_features_need_a_feature_and_apart_needs_other_domains(direction, context, sae):
    plain = NamedDirection("linear_probe_math", direction.vector, None, "linear_probe")
    assert not treatment(plain, "set_to").applies
    assert treatment(plain, WHERE).applies
    alone = EditContext(sae, Probe(direction.vector, 0.0))
    with pytest.raises(InputError, match="further domains"):
        treatment(direction, APART).build(STEP, alone)


@pytest.fixture(scope="module")
def job(tiny_model, sae, context, direction):
    held_out = load_prompts("tiny-domains-heldout")
    prompts = [p for d in ("mixed", "code", "prose") for p in held_out if p.domain == d]
    few = [p for i, p in enumerate(prompts) if i % 24 < 3]
    plain = NamedDirection("attributed", -direction.vector, None, "attribution")
    pairs = [Treatment(d, e) for d in (direction, plain) for e in SPEC.edits]
    measurement = study_of(tiny_model, few, sae)
    return TradeoffInputs(measurement, [p for p in pairs if p.applies], context, SPEC, 32.0, 1)


@pytest.fixture(scope="module")
def rows(job):
    return tradeoff_rows(job)


def test_a_row_is_what_a_hooked_pass_gives(job, rows, context, direction):
    tokens, mask = job.measurement.unsteered_pass.padded
    for given, positions in (("add", mask), (KEEP_NORM, "last"), ("set_to", mask)):
        edit = treatment(direction, given).build(0.2 * 32.0, context)
        with steered(job.measurement.model, edit, HOOK, positions):
            logits = last_token_logits(job.measurement.model, tokens, mask)
        label = treatment(direction, given).edit.label
        own = rows[(rows["direction"] == "feature_7") & (rows["edit"] == label)]
        own = own[own["kind"] == "grid"]
        want = job.measurement.logit_metrics[0].of(logits, baseline=logits).double()
        found = torch.tensor(own["math_margin"].to_numpy())
        torch.testing.assert_close(found, want, atol=1e-3, rtol=1e-4)


def test_pairs_at_an_equal_effect_have_it_or_say_that_they_do_not(job, rows):
    wanted = rows[(rows["domain"] == "mixed") | rows["domain"].isna()]
    zero = wanted[wanted["edit"] == "none"].set_index("prompt_id")["math_margin"]
    equal = wanted[wanted["kind"] == "equal_effect"]
    keys = equal.groupby(["direction", "edit"])
    assert len(keys) == len(job.treatments)
    for _, own in keys:
        if own["alpha"].notna().all():
            delta = own["math_margin"].to_numpy() - zero[own["prompt_id"]].to_numpy()
            assert delta.mean() == pytest.approx(0.3, rel=0.011)
        else:
            assert len(own) == 1


def test_text_loss_is_the_cross_entropy_of_the_text_after_its_prompt(tiny_model, job):
    tokenizer = tiny_model.tokenizer
    prompts = job.measurement.ids[:2]
    texts = [token_ids(tokenizer, "def f(x):\n    return x"), []]
    found = text_losses(tiny_model, prompts, texts)
    logits = tiny_model(torch.tensor([[*prompts[0], *texts[0]]]))[0]
    n = len(texts[0])
    want = cross_entropy(logits[-n - 1 : -1].float(), torch.tensor(texts[0]))
    assert found[0] == pytest.approx(float(want), abs=1e-4)
    assert np.isnan(found[1])


def test_the_unsteered_model_does_no_damage_and_stands_once_for_each_prompt(job, rows):
    zero = rows[rows["edit"] == "none"]
    assert len(zero) == len(job.measurement.prompts)
    assert (zero["kl"] == 0).all()
    assert zero["text_loss"].notna().all()


def test_the_matrix_holds_the_means_of_each_domain(rows):
    table = by_domain_table(rows, ["math_margin", "kl", "text_loss"])
    own = rows.query("direction == 'feature_7' and edit == 'add' and kind == 'grid'")
    zero = rows[rows["edit"] == "none"].groupby("domain")["math_margin"].mean()
    line = table.query("direction == 'feature_7' and edit == 'add' and kind == 'grid'")
    line = line.set_index("domain")
    for domain, mean in own.groupby("domain")["math_margin"].mean().items():
        assert line.loc[domain, "math_margin"] == pytest.approx(mean)
        assert line.loc[domain, "math_margin_delta"] == pytest.approx(mean - zero[domain])
    assert (line["math_margin_ci_low"] <= line["math_margin_delta"] + 1e-9).all()


def test_damage_is_measured_on_the_other_domains_alone(rows):
    front = tradeoffs_table(rows, Damage("math_margin", 1, "mixed", ("code_valid",)))
    line = front.query("direction == 'feature_7' and edit == 'add' and kind == 'grid'").iloc[0]
    own = rows.query("direction == 'feature_7' and edit == 'add' and kind == 'grid'")
    zero = rows[rows["edit"] == "none"]
    delta = own["math_margin"].to_numpy() - zero["math_margin"].to_numpy()
    wanted = (own["domain"] == "mixed").to_numpy()
    assert line["effect"] == pytest.approx(delta[wanted].mean())
    assert line["damage_kl"] == pytest.approx(own["kl"].to_numpy()[~wanted].mean())
    assert line["damage_margin"] == pytest.approx(np.abs(delta[~wanted]).mean())
    assert 0 <= line["damage_texts"] <= 1


def test_the_baseline_is_plain_addition_along_a_feature_of_mean_difference():
    keys = {"feature": 1, "kind": "equal_effect", "alpha": 1.0}
    about = [("a", "mean_difference", "add", 0.4), ("b", "mean_difference@answer", "add", 0.2)]
    about += [("b", "mean_difference@answer", "add@last", 0.1), ("c", "linear_probe", "add", 0.02)]
    moved = [
        {"direction": d, "found_by": f, "edit": e, **keys, "m": 1.0, "kl": kl}
        for d, f, e, kl in about
    ]
    none = {"direction": "unsteered", "found_by": "", "edit": "none", **keys, "m": 0.0, "kl": 0.0}
    prompts = [("p1", "mixed"), ("p2", "mixed"), ("p3", "code"), ("p4", "code")]
    rows = pd.DataFrame(
        [{**r, "prompt_id": p, "domain": d} for r in (none, *moved) for p, d in prompts]
    )
    front = tradeoffs_table(rows, Damage("m", 1, "mixed"))
    assert list(front["baseline"]) == [False, True, False, False]
    assert list(front["ratio"]) == pytest.approx([2.0, 1.0, 0.5, 0.1])
    assert list(front["on_pareto_front"]) == [False, False, False, True]


def test_the_front_holds_what_no_other_point_beats():
    effect = np.array([1.0, 2.0, 1.5, 2.0, -1.0, np.nan])
    damage = np.array([0.1, 0.5, 0.6, 0.7, 0.0, np.nan])
    assert list(on_pareto_front(effect, damage)) == [True, True, False, False, False, False]
