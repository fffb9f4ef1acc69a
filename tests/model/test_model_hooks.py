"""Hook names are checked before any forward pass."""

from __future__ import annotations

import pytest

from saelens_steer.errors import InputError
from saelens_steer.model import check_editable, check_hook_name, default_hook_name, hook_layer


@pytest.fixture(params=["random_model", "random_bridge"])
def model(request):
    return request.getfixturevalue(request.param)


def test_the_default_hook_is_the_residual_before_the_middle_layer(model):
    assert default_hook_name(model) == "blocks.2.hook_resid_pre"
    assert check_hook_name(model, default_hook_name(model)) == default_hook_name(model)


@pytest.mark.parametrize(
    "name", ["hook_resid_post", "hook_mlp_out", "attn.hook_z", "ln1.hook_scale"]
)
def test_hooks_that_exist_are_returned_as_they_are(model, name):
    assert check_hook_name(model, f"blocks.3.{name}") == f"blocks.3.{name}"


def test_a_misspelt_hook_is_answered_with_the_nearest_names(model):
    with pytest.raises(InputError, match=r"blocks\.1\.hook_resid_pre"):
        check_hook_name(model, "blocks.1.resid_pre")
    with pytest.raises(InputError, match=r"blocks\.1\.hook_resid_post"):
        check_hook_name(model, "blocks.1.zzzzzz")


def test_a_layer_out_of_range_is_answered_with_the_range(model):
    with pytest.raises(InputError, match="layers 0 to 3"):
        check_hook_name(model, "blocks.4.hook_resid_pre")


@pytest.mark.parametrize("name", ["", "hook_embed", "blocks.hook_resid_pre", "blocks.-1.hook_x"])
def test_a_hook_outside_the_layers_is_refused(model, name):
    with pytest.raises(InputError, match=r"blocks\.4\.hook_resid_pre"):
        check_hook_name(model, name)


@pytest.mark.parametrize(
    "name", ["attn.hook_result", "hook_q_input", "hook_mlp_in", "hook_attn_in"]
)
def test_a_hook_that_never_fires_is_refused_with_the_setting_that_wakes_it(model, name):
    with pytest.raises(InputError, match="set_use_"):
        check_hook_name(model, f"blocks.1.{name}")


def test_the_layer_of_a_hook():
    assert hook_layer("blocks.18.hook_resid_pre") == 18
    with pytest.raises(InputError):
        hook_layer("ln_final.hook_scale")


def test_a_bridge_refuses_edits_where_they_do_something_else(random_model, random_bridge):
    name = "blocks.1.hook_resid_mid"
    assert check_editable(random_model, name) == name
    assert check_hook_name(random_bridge, name) == name
    with pytest.raises(InputError, match="TransformerBridge"):
        check_editable(random_bridge, name)
