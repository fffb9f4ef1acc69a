"""Tensor types with TransformerLens's axis names; beartype checks them in the tests."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

Tokens = Int[Tensor, "batch pos"]
"""Token ids, left-padded."""
Mask = Bool[Tensor, "batch pos"]
"""True at real tokens, False at padding; or True at positions that an edit changes."""
Resid = Float[Tensor, "batch pos d_model"]
"""A residual-stream activation at one hook."""
Logits = Float[Tensor, "batch d_vocab"]
"""Next-token logits at the last position of each row, float32."""
PerRow = Float[Tensor, " batch"]
"""One number for each row of a batch."""
Direction = Float[Tensor, " d_model"]
"""A direction in the residual stream."""
Vectors = Float[Tensor, "n d_model"]
"""Activations or directions, one per row."""
Kept = Bool[Tensor, " n"]
"""True at the vectors that are kept."""
