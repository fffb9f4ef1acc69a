"""The keys of a file's architecture, each removed once read, so leftovers can be refused."""

from __future__ import annotations

import math
import re
from typing import Any

from saelens_steer.errors import InputError
from saelens_steer.model.gguf.header import GgufFile

HARMLESS = ("GGUF.", "general.", "tokenizer.", "quantize.", "split.")
"""Keys about the file, its vocabulary (which transformers reads) and its parts, not arithmetic."""
DECIDES = re.compile(r"rope|freq|scal|window|cap|expert|eps|norm|head|alibi|clamp|factor|lora")
"""Words that mark any other key as one that must not be ignored."""
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.shared_kv_layers": (0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0.0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.finetuned": (True, False),
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
}
"""Keys that any architecture may state, with the values that change nothing."""
REQUIRED = object()


class Keys:
    """The keys of a file's architecture; each is removed when it is read."""

    def __init__(self, file: GgufFile) -> None:
        self.file, self.prefix = file, f"{file.architecture}."
        self.left = {
            key.removeprefix(self.prefix): value
            for key, value in file.values.items()
            if key.startswith(self.prefix)
        }

    def take(self, name: str, default: Any = REQUIRED) -> Any:
        """The value of a key; InputError if it is missing.

        A list of equal numbers gives one number, unless the default is None.
        """
        value = self.left.pop(name, default)
        if value is REQUIRED:
            raise InputError(f"{self.file.path} lacks {self.prefix}{name}: convert it again")
        if default is None or not isinstance(value, list):
            return value
        if len(set(value)) != 1:  # one for each layer
            raise self.refused(name, value, "which differs between layers")
        return value[0]

    def number(self, name: str) -> int:
        """The value of a key that is a positive whole number."""
        value = self.take(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refused(name, value, "which is not a positive whole number")
        return value

    def expect(self, name: str, *allowed: Any) -> None:
        """InputError if the file states a value that differs from all of these."""
        value = self.take(name, None)
        if value is not None and not any(_equal(value, one) for one in allowed):
            raise self.refused(name, value)

    def expect_no_more(self) -> None:
        """InputError for a key that was not read, unless it has no effect."""
        for name, values in WITHOUT_EFFECT.items():
            self.expect(name, *values)
        for name, value in self.left.items():
            raise self.refused(name, value)
        for key, value in self.file.values.items():
            if not key.startswith((*HARMLESS, self.prefix)) and DECIDES.search(key):
                raise InputError(
                    f"{self.file.path} states {key} = {value}, which no {self.file.architecture} "
                    "model reads: convert the checkpoint again"
                )

    def refused(self, name: str, value: Any, why: str = "which would be ignored") -> InputError:
        """The error for a key that the loaded model would not follow."""
        return InputError(
            f"{self.file.path} states {self.prefix}{name} = {value}, {why}: use the checkpoint in "
            "Hugging Face format"
        )


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, int | float) and isinstance(other, int | float):
        return math.isclose(value, other, rel_tol=1e-6)
    return value == other
