"""Cached activations, in memory or in safetensors shards."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.files import write_with
from saelens_steer.tables import read_parquet, write_parquet
from saelens_steer.tensors import Kept, Vectors, first_unfinite

SHARD_BYTES = 1 << 26
"""Size of a shard, which is held in memory until it is written."""
NAME = "shard-{:05d}.safetensors"
KEY = "vectors"
INDEX = "index.parquet"
CHUNK = 4096
"""Vectors read at once."""
DAMAGE = (SafetensorError, OSError, ValueError, KeyError)


At = Literal["assistant_start", "prompt", "answer"]
"""Which tokens of a prompt are read: the last, all, or the answer's."""


class Activations:
    """Vectors [n, d_model] (float32, CPU) at one hook, and an index with one row per vector.

    Index columns: prompt_id, domain, position (0-based, without padding), token (id), text, and
    part: prompt, assistant_start (the last prompt token) or answer. Loaded vectors stay on disk:
    `chunks` reads them in parts, `vectors` all at once.
    """

    def __init__(
        self,
        vectors: Vectors | Shards,
        index: pd.DataFrame,
        hook_name: str,
        sinks_dropped: int = 0,
        begins: list[int] | None = None,
        tokens: str | None = None,
    ) -> None:
        """`begins`: ids put before plain texts; None if they are in the chat template. `tokens`:
        which tokens were cached, as in `cache_activations`; None if unknown."""
        self._vectors, self.begins, self.tokens = vectors, begins, tokens
        self.index, self.hook_name, self.sinks_dropped = index, hook_name, sinks_dropped

    def __len__(self) -> int:
        return len(self._vectors)

    def __repr__(self) -> str:
        """Tokens, width, hook, and tokens by domain."""
        counts = self.index["domain"].value_counts(sort=False)
        domains = ", ".join(f"{name or 'no domain'} {n:,}" for name, n in counts.items())
        prompts = self.index["prompt_id"].nunique()
        return (
            f"Activations: {len(self):,} tokens × {self.d_model} at {self.hook_name}, "
            f"{prompts} prompts ({domains})"
        )

    @property
    def vectors(self) -> Vectors:
        """All vectors, in memory."""
        return _finite(self._vectors[:])

    def are_at(self, at: At) -> Kept:
        """Whether each vector is of a token at `at`. None is at prompt unless whole prompts were
        cached."""
        part = self.index["part"].to_numpy()
        if at == "prompt":
            return torch.tensor((part != "answer") & (self.tokens in ("all", None)))
        return torch.tensor(part == at)

    @property
    def d_model(self) -> int:
        held = self._vectors
        return held.width if isinstance(held, Shards) else held.shape[1]

    def chunks(self, size: int = CHUNK) -> Iterator[Vectors]:
        """Vectors in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield _finite(self._vectors[start : start + size], start)

    def take(self, rows: Int[Tensor, " n"]) -> Vectors:
        """The vectors of these rows, in that order, without reading others from disk."""
        held = self._vectors
        return _finite(held.take(rows) if isinstance(held, Shards) else held[rows])

    def save(self, folder: str | Path) -> Path:
        """Write safetensors shards and index.parquet to a folder, atomically."""
        return write_with(Path(folder), self._write)

    def _write(self, folder: Path) -> None:
        writer = ShardWriter(folder)
        for part in self.chunks():
            writer.append(part)
        about = (self.hook_name, self.sinks_dropped, self.begins, self.tokens)
        writer.finish(self.index, *about)

    @classmethod
    def load(cls, folder: str | Path) -> Activations:
        """Open a folder written by `save`; vectors are read when used."""
        shards = Shards(Path(folder))
        try:
            index = read_parquet(Path(folder) / INDEX)
        except DAMAGE as error:
            raise InputError(f"{folder} is damaged ({error}): delete it and run again") from None
        if len(index) != len(shards):
            raise InputError(
                f"{folder} is incomplete: index and shards differ. Delete it and run again"
            )
        return cls(shards, index, **shards.about)


def _finite(vectors: Vectors, start: int = 0) -> Vectors:
    """The vectors, read from row `start` on. Raises InputError for NaN and infinities."""
    if (row := first_unfinite(vectors)) is not None:
        raise InputError(
            f"the activations hold NaN or an infinity, first in row {start + row} of the rows "
            "read: cache them again, with a model in float32 if they overflow"
        )
    return vectors


class Shards:
    """Vectors [n, d_model] (float32) in the shards of a folder, read in slices.

    Raises InputError if shards are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("shard-*.safetensors"))
        if not self.paths:
            raise InputError(f"{folder} holds no cached activations")
        try:
            shapes: list[Sequence[int]] = []
            for path in self.paths:
                with safe_open(path, framework="pt") as handle:
                    shapes.append(handle.get_slice(KEY).get_shape())
            with safe_open(self.paths[0], framework="pt") as handle:
                self.about: dict[str, Any] = json.loads(handle.metadata()["about"])
        except DAMAGE as error:
            raise InputError(f"{folder} is damaged ({error}): delete it and run again") from None
        self.starts = [0, *itertools.accumulate(n for n, _ in shapes)]
        self.width = shapes[0][1]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, rows: slice) -> Vectors:
        """Vectors of a range of rows."""
        start, stop, _ = rows.indices(len(self))
        parts = [torch.zeros(0, self.width)]
        for path, first, end in zip(self.paths, self.starts, self.starts[1:], strict=False):
            low, high = max(start, first), min(stop, end)
            if low < high:
                with safe_open(path, framework="pt") as handle:
                    parts.append(handle.get_slice(KEY)[low - first : high - first])
        return parts[1] if len(parts) == 2 else torch.cat(parts)

    def take(self, rows: Int[Tensor, " n"]) -> Vectors:
        found = torch.empty(len(rows), self.width)
        for path, first, end in zip(self.paths, self.starts, self.starts[1:], strict=False):
            here = ((rows >= first) & (rows < end)).nonzero().flatten().tolist()
            if here:
                with safe_open(path, framework="pt") as handle:
                    part = handle.get_slice(KEY)
                    for place in here:
                        row = int(rows[place]) - first
                        found[place] = part[row : row + 1][0]
        return found


class ShardWriter:
    """Writes shards as vectors arrive, so that memory holds only one shard."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.lengths = folder, list[int]()
        self.waiting: list[Vectors] = []

    def append(self, vectors: Vectors) -> None:
        """Write full shards, and keep the rest in memory."""
        size = max(1, SHARD_BYTES // (4 * vectors.shape[1]))
        self.waiting.append(vectors)
        if sum(map(len, self.waiting)) < size:
            return
        *full, rest = torch.cat(self.waiting).split(size)
        if len(rest) == size:
            full, rest = [*full, rest], rest[:0]
        for part in full:
            self._write(part)
        self.waiting = [rest.clone()]

    def finish(
        self,
        index: pd.DataFrame,
        hook_name: str,
        sinks_dropped: int,
        begins: list[int] | None = None,
        tokens: str | None = None,
        keep: Kept | None = None,
    ) -> None:
        """Write the rest, metadata and index; drop vectors where `keep` [n] is False."""
        if sum(map(len, self.waiting)):
            self._write(torch.cat(self.waiting))
        for number, kept in enumerate([] if keep is None else keep.split(self.lengths)):
            if not kept.all():
                self._save(number, load_file(self._path(number))[KEY][kept])
        first = load_file(self._path(0))[KEY].clone()
        about = {"hook_name": hook_name, "sinks_dropped": sinks_dropped, "begins": begins}
        about["tokens"] = tokens
        # a single key: safetensors writes several in an order that varies between processes
        self._save(0, first, {"about": json.dumps(about)})
        write_parquet(self.folder / INDEX, index)

    def _write(self, vectors: Vectors) -> None:
        self.lengths.append(len(vectors))
        self._save(len(self.lengths) - 1, vectors)

    def _save(self, number: int, vectors: Vectors, about: dict[str, str] | None = None) -> None:
        temporary = self._path(number).with_suffix(".new")
        save_file({KEY: vectors.contiguous()}, temporary, about)
        temporary.replace(self._path(number))

    def _path(self, number: int) -> Path:
        return self.folder / NAME.format(number)
