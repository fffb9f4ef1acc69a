"""Vectors in safetensors shards on disk: written as they come, read a piece at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.tensors import Kept, Vectors

SHARD_BYTES = 1 << 26
"""Size of a shard: what is held in memory while vectors are written."""
NAME = "shard-{:05d}.safetensors"
KEY = "vectors"
DAMAGE = (SafetensorError, OSError, ValueError, KeyError)


class Shards:
    """Vectors [n, d_model] (float32) in the shards of a folder; a slice of them is read when asked.

    Raises InputError where there are no shards, or damaged ones.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("shard-*.safetensors"))
        if not self.paths:
            raise InputError(f"{folder} holds no cached activations")
        try:
            shapes = [_shape(path) for path in self.paths]
            self.about: dict[str, Any] = _about(self.paths[0])
        except DAMAGE as error:
            raise InputError(f"{folder} is damaged ({error}): delete it and run again") from None
        self.starts = [0, *itertools.accumulate(n for n, _ in shapes)]
        self.width = shapes[0][1]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, rows: slice) -> Vectors:
        """Vectors of a range of rows, from as many shards as hold some of them."""
        start, stop, _ = rows.indices(len(self))
        parts = [torch.zeros(0, self.width)]
        for path, first, end in zip(self.paths, self.starts, self.starts[1:], strict=False):
            low, high = max(start, first), min(stop, end)
            if low < high:
                with safe_open(path, framework="pt") as handle:
                    parts.append(handle.get_slice(KEY)[low - first : high - first])
        return parts[1] if len(parts) == 2 else torch.cat(parts)

    def take(self, rows: Int[Tensor, " n"]) -> Vectors:
        """The vectors of these rows, in that order; no other is read."""
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


def _shape(path: Path) -> Sequence[int]:
    with safe_open(path, framework="pt") as handle:
        return handle.get_slice(KEY).get_shape()


def _about(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as handle:
        return json.loads(handle.metadata()["about"])


class ShardWriter:
    """Shards of a folder, written as vectors come, so that memory holds one of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.lengths = folder, list[int]()
        self.waiting: list[Vectors] = []

    def append(self, vectors: Vectors) -> None:
        """Write what fills shards; hold back the rest."""
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

    def finish(self, about: dict[str, Any], keep: Kept | None = None) -> None:
        """Write the rest, then what the shards are of; `keep` [n]: the only vectors that stay."""
        if sum(map(len, self.waiting)):
            self._write(torch.cat(self.waiting))
        for number, kept in enumerate([] if keep is None else keep.split(self.lengths)):
            if not kept.all():
                self._save(number, load_file(self._path(number))[KEY][kept])
        first = load_file(self._path(0))[KEY].clone()
        # one key: safetensors writes several in an order that changes from process to process
        self._save(0, first, {"about": json.dumps(about)})

    def _write(self, vectors: Vectors) -> None:
        self.lengths.append(len(vectors))
        self._save(len(self.lengths) - 1, vectors)

    def _save(self, number: int, vectors: Vectors, about: dict[str, str] | None = None) -> None:
        temporary = self._path(number).with_suffix(".new")
        save_file({KEY: vectors.contiguous()}, temporary, about)
        temporary.replace(self._path(number))

    def _path(self, number: int) -> Path:
        return self.folder / NAME.format(number)
