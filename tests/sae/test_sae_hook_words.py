"""Laws of hooks in other libraries' words."""

import pytest

from saelens_steer.sae.conversion.hook_words import hook_of_word

WORDS = {
    "blocks.4.hook_resid_pre": "blocks.4.hook_resid_pre",
    "blocks.4.attn.hook_z": "blocks.4.attn.hook_z",
    "model.layers.12.output": "blocks.12.hook_resid_post",
    "model.layers.12": "blocks.12.hook_resid_post",
    "model.layers.12.input": "blocks.12.hook_resid_pre",
    "model.language_model.layers.7.output": "blocks.7.hook_resid_post",
    "layers.3": "blocks.3.hook_resid_post",
    "layers.3.mlp": "blocks.3.hook_mlp_out",
    "layers.3.mlp.down_proj": "blocks.3.hook_mlp_out",
    "layers.3.mlp.down_proj.input": "blocks.3.mlp.hook_post",
    "transformer.h.11.attn": "blocks.11.hook_attn_out",
    "gpt_neox.layers.5.attention": "blocks.5.hook_attn_out",
    "gpt_neox.layers.5.attention.dense.input": "blocks.5.attn.hook_z",
    "model.layers.0.self_attn.o_proj.input": "blocks.0.attn.hook_z",
    "model.layers.0.post_feedforward_layernorm.output": "blocks.0.hook_mlp_out",
    "resid_post_layer_8": "blocks.8.hook_resid_post",
    "attn_out_layer2": "blocks.2.hook_attn_out",
    "resid_post_mlp_layer_8": "blocks.8.hook_resid_post",
}


@pytest.mark.parametrize("word", WORDS)
def test_a_known_word_is_one_hook(word):
    assert hook_of_word(word) == WORDS[word]


@pytest.mark.parametrize(
    "word",
    [
        "model.layers.1.pre_feedforward_layernorm.output",
        "model.layers.1.post_attention_layernorm",
        "model.embed_tokens",
        "layers.3.mlp.input",
        "mlp_layer_3",
        "layer_3",
        "resid_post",
        "",
    ],
)
def test_a_word_that_is_no_hook_of_one_layer_is_not_guessed(word):
    assert hook_of_word(word) is None
