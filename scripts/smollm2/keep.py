"""Keep what the study's page needs of a run: `python -m scripts.smollm2.keep RUN FOLDER` writes one
row per direction, strength and prompt (rows.parquet), and one per text (texts.parquet)."""

from __future__ import annotations

import sys
from pathlib import Path

import saelens_steer as ss
from scripts.smollm2.answer import OUTCOME, TEXT

KEYS = ["direction", "family", "alpha", "prompt_id"]


def main(run: str, folder: Path) -> None:
    result = ss.Result.load(run)
    folder.mkdir(parents=True, exist_ok=True)
    rows = result.rows[[*KEYS, OUTCOME, "math_margin", "kl"]]
    rows.to_parquet(folder / "rows.parquet", compression="zstd", index=False)
    texts = result.completions[[*KEYS, "completion", "truncated", TEXT]]
    texts.to_parquet(folder / "texts.parquet", compression="zstd", index=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
