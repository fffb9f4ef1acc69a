"""The record store: results keyed by a hash of everything that determines them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelens_steer.files import write_with
from saelens_steer.tables import read_parquet, write_parquet


class Store:
    """Shards in a folder, written atomically; without a folder nothing is kept.

    `key` is a digest of everything that determines all shards, a shard's name of what determines
    that shard. A shard is only read under the key and name it was written with.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder = folder
        self.key = key

    def frame(self, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The shard's rows, read from its Parquet file or else computed and written."""
        path = self._path(name, "parquet")
        if path is None:
            return compute()
        if not path.exists():
            frame = compute()
            write_parquet(path, frame)
        return read_parquet(path)

    def tensors(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The same for named tensors in a safetensors file; stored tensors are on the CPU."""
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
