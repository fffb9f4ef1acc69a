"""Counts and their bounds, and estimates that refuse what no machine holds before any work."""

from __future__ import annotations

import os
from typing import Annotated, SupportsIndex

from pydantic import Field

from saelens_steer.config.base import whole
from saelens_steer.errors import InputError, shortened

MOST = 10**12
"""The largest count that a config or a call may state; the longest trainings read fewer tokens."""
Count = Annotated[int, Field(gt=0, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
BYTES_PER_ROW = 64
"""The least memory of a row: direction, strength, prompt and metrics."""
BYTES_PER_TOKEN = 4
"""The memory of a token of text."""
FLOAT32 = 4
"""Bytes."""


def counted(name: str, value: SupportsIndex, least: int = 1) -> int:
    """The argument `name` as a count from `least` to MOST. Raises InputError."""
    number = whole(name, value)
    if not least <= number <= MOST:
        bound = f"at least {least}" if number < least else f"at most {MOST:,}"
        raise InputError(f"{name} should be {bound}, not {shortened(number)}")
    return number


def memory_of(device: str) -> int | None:
    """All memory of a device in bytes: of the machine unless it is a GPU; None if not known."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not known on Windows
        return None


def check_memory(what: str, n_bytes: int, instead: str, device: str = "cpu") -> None:
    """Raise InputError if something alone needs more memory than its device has."""
    memory = memory_of(device)
    if memory is not None and n_bytes > memory:
        raise InputError(
            f"{what} would need about {n_bytes / 2**30:,.0f} GiB of memory, but "
            f"{'this machine' if device == 'cpu' else device} has {memory / 2**30:,.0f} GiB: "
            f"{instead}"
        )


def check_rows(n: int, factors: str, instead: str) -> None:
    """Raise InputError if a table of n rows exceeds the memory; `factors`: what n multiplies."""
    check_memory(f"a table of {n:,} rows ({factors})", n * BYTES_PER_ROW, instead)


def check_texts(n: int, n_tokens: int, factors: str, instead: str) -> None:
    """Raise InputError if n texts of `n_tokens` exceed the memory; `factors`: what n multiplies."""
    size = n * (BYTES_PER_ROW + BYTES_PER_TOKEN * n_tokens)
    check_memory(f"{n:,} texts of up to {n_tokens:,} tokens ({factors})", size, instead)
