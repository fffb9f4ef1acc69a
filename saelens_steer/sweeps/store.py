"""The record store: results keyed by a hash of everything that determines them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pandas as pd
from safetensors.torch import load, save
from torch import Tensor

from saelens_steer.files import write_bytes
from saelens_steer.progress import say
from saelens_steer.sealed import digest_of
from saelens_steer.tables import from_parquet, parquet_bytes

Shard = TypeVar("Shard")


class Store:
    """Shards in a folder, written atomically; without a folder nothing is kept.

    `key` is a digest of everything that determines all shards, a shard's name of what determines
    that shard. A shard is only read under the key and name it was written with, and only if its
    content has the digest that its file is named after; otherwise it is computed again.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder = folder
        self.key = key

    def frame(self, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The shard's rows, read from its Parquet file or else computed and written."""
        return self._shard(f"{name}.parquet", compute, parquet_bytes, from_parquet)

    def tensors(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The same for named tensors in a safetensors file; stored tensors are on the CPU."""

        def packed(tensors: dict[str, Tensor]) -> bytes:
            return save({key: value.cpu().contiguous() for key, value in tensors.items()})

        def unpacked(data: bytes) -> dict[str, Tensor]:
            return dict(sorted(load(data).items()))  # safetensors gives them in any order

        return self._shard(f"{name}.safetensors", compute, packed, unpacked)

    def _shard(
        self,
        name: str,
        compute: Callable[[], Shard],
        pack: Callable[[Shard], bytes],
        unpack: Callable[[bytes], Shard],
    ) -> Shard:
        """The shard with this file name, which its file has around the digest of its content."""
        if self.folder is None:
            return compute()
        if file := self._files.get(name):
            data = file.read_bytes()
            if digest_of(data) == digest_in(file):
                return unpack(data)
            say(f"{file.name} is damaged: measuring it again")
            file.unlink()
        data = pack(compute())
        stem, kind = name.rsplit(".", 1)
        file = self.folder / f"{self.key}-{stem}.{digest_of(data)}.{kind}"
        self._files[name] = write_bytes(file, data)
        return unpack(data)

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The files with this key, by the names of their shards; the folder is listed once."""
        found = sorted(self.folder.glob(f"{self.key}-*.*.*")) if self.folder else []
        parts = (file.name.removeprefix(f"{self.key}-").rsplit(".", 2) for file in found)
        return {f"{name}.{kind}": file for (name, _, kind), file in zip(parts, found, strict=True)}


def digest_in(file: Path) -> str:
    """The digest that a shard's file is named after."""
    return file.name.rsplit(".", 2)[1]


NO_STORE = Store(None, "")
