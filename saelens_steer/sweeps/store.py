"""The record store: answers kept under a hash of everything that decides them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelens_steer.files import write_with


class Store:
    """Shards in a folder, committed by atomic rename; without a folder nothing is kept.

    `key` is a digest of everything that decides all answers, a shard's name of what decides its
    own: under another key or name these shards are never seen.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder = folder
        self.key = key

    def frame(self, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The shard's rows, a Parquet file: read if they were committed, else computed."""
        path = self._path(name, "parquet")
        if path is None:
            return compute()
        if not path.exists():
            frame = compute()
            write_with(path, lambda temporary: frame.to_parquet(temporary, index=False))
        return pd.read_parquet(path)

    def tensors(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The same of named tensors, in a safetensors file; on the CPU once they are kept."""
        path = self._path(name, "safetensors")
        if path is None:
            return compute()
        if not path.exists():
            found = {key: value.cpu().contiguous() for key, value in compute().items()}
            write_with(path, lambda temporary: save_file(found, temporary))
        return load_file(path)

    def _path(self, name: str, kind: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{self.key}-{name}.{kind}"


NO_STORE = Store(None, "")
