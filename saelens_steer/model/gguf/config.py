"""Build the config of a model in a GGUF file, and account for each of its keys and tensors."""

from __future__ import annotations

from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from saelens_steer.errors import InputError, one_line
from saelens_steer.model.configs import weightless
from saelens_steer.model.gguf.architectures import ARCHITECTURES, Settings, Sizes
from saelens_steer.model.gguf.header import GgufFile, gguf_package
from saelens_steer.model.gguf.keys import Keys
from saelens_steer.model.gguf.rope import FACTORS

SPECIAL = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
Shapes = dict[str, tuple[int, ...]]


def gguf_config(file: GgufFile) -> PretrainedConfig:
    """The config; InputError unless every key and tensor of the file is part of the model."""
    if file.architecture not in ARCHITECTURES:
        raise InputError(
            f"{file.path} has the architecture {file.architecture}, which cannot be loaded from a "
            "GGUF file: use its checkpoint in Hugging Face format"
        )
    architecture, keys = ARCHITECTURES[file.architecture], Keys(file)
    sizes = _sizes(keys)
    settings = {**_common(keys, sizes), **architecture.settings(keys, sizes)}
    keys.expect_no_more()
    try:
        config = CONFIG_MAPPING[architecture.model_type](**settings)
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[architecture.model_type]]
        hf = weightless(config)
    except Exception as error:  # transformers validates configs with errors of several kinds
        raise InputError(f"{file.path} does not describe a model: {one_line(error)}") from error
    _account_for_tensors(file, _weights(file, hf))
    return config


def _sizes(keys: Keys) -> Sizes:
    sizes = Sizes(
        n_layers=keys.number("block_count"),
        d_model=keys.number("embedding_length"),
        n_heads=keys.number("attention.head_count"),
        n_ctx=keys.number("context_length"),
    )
    layers = {name.split(".")[1] for name in keys.file.shapes if name.startswith("blk.")}
    if layers != {str(layer) for layer in range(sizes.n_layers)}:
        raise InputError(
            f"{keys.file.path} states {sizes.n_layers} layers, but holds tensors for "
            f"{len(layers)}: download it again"
        )
    return sizes


def _common(keys: Keys, sizes: Sizes) -> Settings:
    """The settings of every architecture, under names that all configs understand."""
    file = keys.file
    if "token_embd.weight" not in file.shapes:
        raise InputError(f"{file.path} lacks the tensor token_embd.weight: download it again")
    vocabulary = file.shapes["token_embd.weight"][0]
    keys.expect("vocab_size", vocabulary)
    ids = {name: file.values.get(f"tokenizer.ggml.{key}_token_id") for name, key in SPECIAL.items()}
    return {
        "num_hidden_layers": sizes.n_layers,
        "hidden_size": sizes.d_model,
        "num_attention_heads": sizes.n_heads,
        "max_position_embeddings": sizes.n_ctx,
        "vocab_size": vocabulary,
        "tie_word_embeddings": "output.weight" not in file.shapes,
        **ids,
    }


def _account_for_tensors(file: GgufFile, expected: Shapes) -> None:
    """InputError unless the file's tensors are exactly these, in these shapes."""
    if missing := sorted(expected.keys() - file.shapes.keys()):
        raise InputError(f"{file.path} lacks the tensor {missing[0]}: download it again")
    known = {*expected, FACTORS}  # the factors were read with the rotary embeddings
    if unknown := sorted(file.shapes.keys() - known):
        raise InputError(
            f"{file.path} holds the tensor {unknown[0]}, which would be ignored: use the "
            "checkpoint in Hugging Face format"
        )
    for name, shape in expected.items():
        if file.shapes[name] != shape:
            raise InputError(
                f"the tensor {name} of {file.path} has the shape {file.shapes[name]}, but its keys "
                f"describe {shape}: convert the checkpoint again"
            )


def _weights(file: GgufFile, hf: PreTrainedModel) -> Shapes:
    """The model's weights under their names in a GGUF file; tied ones once."""
    gguf = gguf_package()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[file.architecture], hf.config.num_hidden_layers)
    turned = {f"{name}.weight" for name, part in hf.named_modules() if isinstance(part, Conv1D)}
    found = {}
    for name, weight in hf.named_parameters():
        stem, dot, end = name.rpartition(".")
        if (place := names.get_name(stem)) is None:
            raise InputError(
                f"{file.path} cannot hold the weight {name} of {type(hf).__name__}, for which GGUF "
                "has no name: use the checkpoint in Hugging Face format"
            )
        shape = tuple(weight.shape)
        found[f"{place}{dot}{end}"] = shape[::-1] if name in turned else shape
    return found
