"""Where an SAE reads and where it steers, by its metadata."""

from __future__ import annotations

import pytest
import torch
from sae_lens.saes.temporal_sae import TemporalSAE, TemporalSAEConfig
from saes import random_sae
from transcoders import KINDS, random_transcoder

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.sae import check_sae, check_sae_at, load_sae, reads_at, save_sae, steers_at

IN, OUT = "blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out"
PLACES = {
    "gemma scope 2": (
        {"hook_name": "blocks.2.hook_mlp_in", "hook_name_out": OUT}
        | {"hf_hook_name": "model.layers.2.pre_feedforward_layernorm.output"}
        | {"hf_hook_name_out": "model.layers.2.post_feedforward_layernorm.output"},
        (IN, OUT),
    ),
    "mwhanna": ({"hook_name": IN, "hook_name_out": OUT}, (IN, OUT)),
    "gpt2": (
        {"hf_hook_name": "transformer.h.2.ln_2.output", "hook_name_out": OUT},
        (IN, OUT),
    ),
    "llama": (
        {"hf_hook_name": "model.layers.2.post_attention_layernorm.output", "hook_name_out": OUT},
        (IN, OUT),
    ),
    "an input": (
        {"hf_hook_name": "model.layers.2.mlp.input", "hf_hook_name_out": "model.layers.2.mlp"},
        (IN, OUT),
    ),
    "before the weights": (
        {"hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": OUT},
        ("blocks.2.ln2.hook_normalized", OUT),
    ),
    "before the norm": (
        {"hook_name": "blocks.2.hook_resid_mid", "hook_name_out": OUT},
        ("blocks.2.hook_resid_mid", OUT),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLACES)
def test_a_transcoder_reads_and_steers_where_its_checkpoint_says(name, kind):
    metadata, places = PLACES[name]
    transcoder = random_transcoder(32, 2, kind, **metadata)
    assert (reads_at(transcoder), steers_at(transcoder)) == places


def test_an_sae_steers_where_it_reads():
    for hook_name in ("blocks.1.attn.hook_z", "blocks.1.hook_resid_post", None):
        sae = random_sae(32, hook_name)
        assert (reads_at(sae), steers_at(sae)) == (hook_name, hook_name)


@pytest.mark.parametrize(
    ("metadata", "hint"),
    [
        ({"hook_name": "blocks.2.hook_mlp_in"}, r'"model\.layers\.2\.mlp\.input"'),
        ({"hf_hook_name": "model.layers.2.fancy.output"}, "'model.layers.2.fancy.output'"),
        (
            {"hook_name": IN, "hf_hook_name": "model.layers.3.mlp.input"},
            "blocks.2.mlp.hook_in and model.layers.3.mlp.input",
        ),
    ],
)
def test_a_transcoder_whose_input_is_not_certain_is_refused(metadata, hint):
    with pytest.raises(InputError, match=hint):
        reads_at(random_transcoder(32, 2, hook_name_out=OUT, **metadata))


def test_refusals_of_a_transcoder_name_the_right_hook(random_model):
    transcoder = random_transcoder(32, 2)
    check_sae(transcoder, random_model, OUT)
    check_sae_at(transcoder, 32, IN)
    with pytest.raises(InputError, match=f"steer at {OUT}"):
        check_sae(transcoder, random_model, IN)
    with pytest.raises(InputError, match=f"hook_name='{IN}'"):
        check_sae_at(transcoder, 32, OUT)
    with pytest.raises(InputError, match="writes 16 dimensions"):
        check_sae(random_transcoder(16, 2), random_model, OUT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_transcoder_is_never_spliced_in(random_model, kind):
    transcoder = random_transcoder(32, 2, kind)
    for edit in (
        lambda: ss.reconstruct(transcoder),
        lambda: ss.ablate(transcoder, 3),
        lambda: ss.set_to(transcoder, 3, 1.0),
        lambda: ss.add(torch.ones(32), gate=(transcoder, 3)),
        lambda: ss.sae_quality(random_model, transcoder, OUT, ["text"]),
    ):
        with pytest.raises(InputError, match=f"writes to {OUT}.*use add or project_out"):
            edit()


def test_a_saved_transcoder_loads_with_either_hook(tmp_path):
    save_sae(random_transcoder(32, 2), tmp_path / "t")
    for hook_name in (None, IN, OUT):
        loaded = load_sae(tmp_path / "t", hook_name=hook_name)
        assert (reads_at(loaded), steers_at(loaded)) == (IN, OUT)
    with pytest.raises(InputError, match=r"blocks\.2\.mlp\.hook_in"):
        load_sae(tmp_path / "t", hook_name="blocks.1.hook_mlp_out")


def test_kinds_that_nothing_was_tested_with_are_refused_by_name(random_model):
    temporal = TemporalSAE(
        TemporalSAEConfig(d_in=32, d_sae=32, n_heads=1, bottleneck_factor=1, kval_topk=4)
    )
    crossing = random_transcoder(32, 2)
    crossing.W_dec = torch.nn.Parameter(torch.randn(64, 4, 32))
    for sae, name in ((temporal, "temporal"), (crossing, "cross-layer transcoder")):
        for use in (
            lambda sae: ss.ablate(sae, 3),
            lambda sae: check_sae(sae, random_model, OUT),
            lambda sae: check_sae_at(sae, 32, OUT),
        ):
            with pytest.raises(InputError, match=name):
                use(sae)
