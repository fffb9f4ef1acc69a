"""Is every weight of an SAE a number?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sae_lens import SAE

from saelens_steer.errors import InputError
from saelens_steer.tensors import first_unfinite


def unfinite(sae: SAE[Any]) -> Iterator[tuple[str, int]]:
    """Weights that hold NaN or an infinity, with the first such row.

    The missing encoder of a decoder-only SAE is deliberately NaN.
    """
    for name, weight in sae.state_dict().items():
        missing = sae.cfg.metadata.decoder_only and name == "W_enc"
        if not missing and (row := first_unfinite(weight)) is not None:
            yield name, row


def check_finite(sae: SAE[Any]) -> None:
    """Raise InputError for a weight that holds NaN or an infinity."""
    for name, row in unfinite(sae):
        raise InputError(
            f"the SAE's {name} holds NaN or an infinity, first at index {row}: load an undamaged "
            "copy, or convert it from float32 if it overflowed in a narrower dtype"
        )
