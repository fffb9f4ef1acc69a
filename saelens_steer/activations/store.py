"""Activations and the index that says where each came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from jaxtyping import Int
from torch import Tensor

from saelens_steer.activations.shards import DAMAGE, Shards, ShardWriter
from saelens_steer.errors import InputError
from saelens_steer.files import write_with
from saelens_steer.tensors import Vectors

CHUNK = 4096
"""Vectors read at once."""


class Activations:
    """Vectors [n, d_model] (float32, CPU) at one hook, and an index with a row for each.

    The index has prompt_id, domain, position (0-based, padding not counted), token (id), text, and
    part: prompt, assistant_start (the last prompt token) or answer. The vectors are in memory or,
    once saved and loaded, on disk: `chunks` reads those piece by piece, `vectors` all of them.
    """

    def __init__(
        self,
        vectors: Vectors | Shards,
        index: pd.DataFrame,
        hook_name: str,
        sinks_dropped: int = 0,
    ) -> None:
        self._vectors = vectors
        self.index, self.hook_name, self.sinks_dropped = index, hook_name, sinks_dropped

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def vectors(self) -> Vectors:
        """All vectors, in memory."""
        return self._vectors[:]

    @property
    def d_model(self) -> int:
        """Width of a vector."""
        held = self._vectors
        return held.width if isinstance(held, Shards) else held.shape[1]

    def chunks(self, size: int = CHUNK) -> Iterator[Vectors]:
        """Vectors in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self._vectors[start : start + size]

    def take(self, rows: Int[Tensor, " n"]) -> Vectors:
        """The vectors of these rows, in that order; of those on disk no other is read."""
        held = self._vectors
        return held.take(rows) if isinstance(held, Shards) else held[rows]

    def save(self, folder: str | Path) -> Path:
        """Write safetensors shards and index.parquet into a folder, all or nothing."""
        return write_with(Path(folder), self._write)

    def _write(self, folder: Path) -> None:
        writer = ShardWriter(folder)
        for part in self.chunks():
            writer.append(part)
        writer.finish(about(self.hook_name, self.sinks_dropped))
        write_index(self.index, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Activations:
        """Open what `save` wrote; the vectors stay on disk until they are asked for."""
        shards = Shards(Path(folder))
        try:
            index = pd.read_parquet(Path(folder) / INDEX)
        except DAMAGE as error:
            raise InputError(f"{folder} is damaged ({error}): delete it and run again") from None
        if len(index) != len(shards):
            raise InputError(f"{folder} is not whole: its shards do not fit its index")
        return cls(shards, index, **shards.about)


INDEX = "index.parquet"


def about(hook_name: str, sinks_dropped: int) -> dict[str, str | int]:
    """What the first shard says of all."""
    return {"hook_name": hook_name, "sinks_dropped": sinks_dropped}


def write_index(index: pd.DataFrame, folder: Path) -> None:
    """The index beside the shards."""
    index.to_parquet(folder / INDEX, index=False)
