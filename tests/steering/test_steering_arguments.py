"""What edits and `steered` make of their arguments, and what an edit tells of its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saes import random_sae

import saelens_steer as ss
from saelens_steer.steering import of_parts
from saelens_steer.sweeps import MatchedPush

HOOK, OTHER = "blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"
WIDTH = 32


@pytest.fixture
def vector():
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(5))


AXES = torch.eye(WIDTH)


@pytest.mark.parametrize(
    ("others", "removed"),
    [
        (AXES[0], 1),
        (torch.stack([AXES[0], 2 * AXES[0]]), 1),  # dependent
        (torch.stack([AXES[0], 0 * AXES[0], AXES[1]]), 2),
        (torch.stack([1e-4 * AXES[0], AXES[1], AXES[0] + AXES[1]]), 2),
        (torch.zeros(WIDTH), 0),
        (AXES[:20] + AXES[1:21], 20),
    ],
)
def test_only_what_the_others_span_is_taken_from_a_direction(vector, others, removed):
    push = ss.add(vector, orthogonal_to=others).push
    spanned = torch.atleast_2d(others).double()
    expected = vector.double() - spanned.T @ torch.linalg.lstsq(
        spanned.T, vector.double()[:, None], driver="gelsd"
    ).solution.squeeze(-1)
    assert torch.linalg.matrix_rank(spanned) == removed
    expected = expected / expected.norm() * vector.norm()
    torch.testing.assert_close(push, expected.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda v: ss.add(v, "2"), "alpha should be a finite number, .* not '2'"),
        (lambda v: ss.add(v, None), "alpha should be a finite number, .* not None"),
        (lambda v: ss.add(v, float("inf")), "alpha should be a finite number"),
        (
            lambda v: ss.add(v, orthogonal_to=v[:3]),
            "orthogonal_to has width 3, but the direction has 32",
        ),
        (lambda v: ss.add(v, orthogonal_to=v * torch.nan), "not finite"),
        (lambda v: ss.add(v, gate=v), r"gate=\(sae, 3\)"),
        (lambda v: ss.add(v, gate=(v, 3)), r"gate=\(sae, 3\)"),
        (lambda v: ss.add(v, gate=(random_sae(WIDTH), [])), "names no feature"),
        (lambda v: ss.project_out(v[None, None]), r"direction has shape \[1, 1, 32\]"),
        (lambda v: ss.project_out(v[None, :0]), "direction has shape"),
        (lambda _: ss.scale(random_sae(WIDTH), [1, 2], [0.5, 2.0]), "factor should be one number"),
        (lambda _: ss.set_to(random_sae(WIDTH), 1, "x"), "value should be a finite number"),
        (lambda _: ss.set_to(random_sae(WIDTH), [1, 2], np.ones((2, 2))), "value should be"),
        (lambda v: ss.per_row([v]), r"write ss\.add\(vector, 2\.0\)"),
    ],
)
def test_what_no_edit_can_be_made_of_is_refused_in_a_sentence(vector, make, sentence, unchecked):
    with pytest.raises(ss.InputError, match=sentence):
        make(vector)


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (torch.ones(WIDTH), {}, r"write ss\.add\(vector, 2\.0\)"),
        ([torch.ones(WIDTH)], {}, r"write ss\.add\(vector, 2\.0\)"),
        (None, {}, "edits should be an Edit"),
        ([], {}, r"edits is empty.*write ss\.add\(vector, 2\.0\)"),
        (ss.Edit("same", lambda x: x), {"positions": np.ones((1, 3), bool)}, "not ndarray"),
        (ss.Edit("same", lambda x: x), {"max_norm": True}, "not True"),
        (ss.Edit("same", lambda x: x), {"max_norm": [3.0]}, "'auto'"),
    ],
)
def test_steered_refuses_what_it_cannot_apply_before_any_pass(
    random_model, given, options, sentence, unchecked
):
    with (
        pytest.raises(ss.InputError, match=sentence),
        ss.steered(random_model, given, HOOK, **options),
    ):
        pytest.fail("a context was opened")


def wrapped(sae):
    """Edits that use the SAE without being edits of it, and whether they splice it in."""
    unit = torch.nn.functional.normalize(torch.ones(sae.cfg.d_in), dim=0)
    return {
        "a gate": (ss.add(unit, gate=(sae, 3)), False),
        "rows": (ss.per_row([ss.add(unit), ss.reconstruct(sae)]), True),
        "a control of an ablation": (MatchedPush.of(unit, ss.ablate(sae, 3)), False),
        "a control of a splice": (MatchedPush.of(unit, ss.ablate(sae, 3, error="drop")), True),
        "rows of controls": (ss.per_row([MatchedPush.of(unit, ss.reconstruct(sae))]), True),
    }


@pytest.mark.parametrize("name", list(wrapped(random_sae(WIDTH))))
def test_an_edit_knows_the_saes_of_its_parts_and_whether_one_is_spliced_in(name):
    sae = random_sae(WIDTH)
    edit, splices = wrapped(sae)[name]
    assert [id(one) for one in edit.saes] == [id(sae)]
    assert edit.splices is splices
    assert of_parts([edit, edit]) == {"saes": edit.saes, "splices": splices}


@pytest.mark.parametrize("name", list(wrapped(random_sae(WIDTH))))
def test_an_sae_of_another_hook_is_refused_within_other_edits_too(random_model, name):
    edit, _ = wrapped(random_sae(random_model.cfg.d_model, OTHER))[name]
    with pytest.raises(ss.InputError, match="made for"), ss.steered(random_model, edit, HOOK):
        pytest.fail("a context was opened")


@pytest.mark.parametrize(("name", "steered"), [("a gate", 5), ("a control of a splice", 4)])
def test_a_control_of_a_splice_leaves_the_same_sinks_alone(random_model, name, steered):
    edit, _ = wrapped(random_sae(random_model.cfg.d_model, HOOK))[name]

    def sink(x, hook):
        x[:, 0] *= 1000
        return x

    with (
        random_model.hooks(fwd_hooks=[(HOOK, sink)]),
        ss.steered(random_model, edit, HOOK) as receipt,
        torch.no_grad(),
    ):
        random_model(torch.tensor([[5, 6, 7, 8, 9]]))
    assert receipt.positions == steered
