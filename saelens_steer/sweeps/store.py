"""The record store: answers kept under a hash of everything that decides them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from saelens_steer.files import write_with
from saelens_steer.progress import Note

Compute = Callable[[], pd.DataFrame]


class Store:
    """Parquet shards in a folder, committed by atomic rename; without a folder nothing is kept.

    `key` is a digest of everything that decides the answers: another key never sees these shards.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder = folder
        self.key = key

    def get_or(self, shard: int | str, compute: Compute) -> pd.DataFrame:
        """The shard's rows: read if they were committed, else computed and committed."""
        if self.folder is None:
            return compute()
        name = shard if isinstance(shard, str) else f"{shard:05d}"
        path = self.folder / f"{self.key}-{name}.parquet"
        if not path.exists():
            frame = compute()
            write_with(path, lambda temporary: frame.to_parquet(temporary, index=False))
        return pd.read_parquet(path)


def collect(store: Store, jobs: list[Compute], note: Note) -> pd.DataFrame:
    """Run the jobs in order through the store; `note(rows)` after each. Rows in job order."""

    def parts() -> Iterator[pd.DataFrame]:
        for number, job in enumerate(jobs):
            frame = store.get_or(number, job)
            note(len(frame))
            yield frame

    return pd.concat(list(parts()), ignore_index=True)
