"""What a finished sweep leaves in the run folder, in the formats others read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.data import Prompt
from saelens_steer.files import write_json, write_jsonl, write_with
from saelens_steer.result import Result

SWEEP_OUTPUTS = (
    "sweep",
    "completions.jsonl",
    "interference.csv",
    "interference.json",
    "claims.csv",
)


def write_result(folder: Path, result: Result, prompts: Sequence[Prompt]) -> None:
    """Write rows, completions, interference (CSV and JSON) and claims."""
    rows, summary, claims = result.rows, result.summary, result.claims
    write_with(folder / "sweep/rows.parquet", lambda path: rows.to_parquet(path, index=False))
    write_jsonl(folder / "completions.jsonl", _texts(result.completions, prompts))
    write_with(folder / "interference.csv", lambda path: summary.to_csv(path, index=False))
    write_json(folder / "interference.json", _records(summary))
    write_with(folder / "claims.csv", lambda path: claims.to_csv(path, index=False))


def _texts(completions: pd.DataFrame, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """The lines of completions.jsonl, each with the text of its prompt."""
    if len(completions) == 0:
        return []
    asked = {prompt.id: prompt.text for prompt in prompts}
    table = completions.drop(columns=["edit", "hook_name", "positions", "matched_norm"])
    return [{**row, "prompt": asked[row["prompt_id"]]} for row in _records(table)]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON objects; NaN and missing values become null."""
    return json.loads(str(table.to_json(orient="records", force_ascii=False, double_precision=15)))
