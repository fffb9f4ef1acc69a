"""The tables and texts of a run folder, in formats that other tools read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from saelens_steer.evidence import ROW_COLUMNS
from saelens_steer.files import write_json, write_jsonl, write_with
from saelens_steer.report import read_lines
from saelens_steer.tables import read_parquet, records, write_csv, write_parquet

if TYPE_CHECKING:
    from saelens_steer.pipeline.result import Result

TEXTS = "generated_texts"
"""Folder with one JSON file per feature and prompt, if the config asks for them."""
OF_DIRECTION = ("edit", "hook_name", "positions", "matched_norm")
"""Columns that are the same in all rows of a direction, left out of completions.jsonl."""


def write_result(
    folder: Path, result: Result, texts: Mapping[str, str], texts_of_layer: int | None = None
) -> None:
    """Write completions, interference (CSV and JSON), claims, claims by family, and warnings.

    `texts`: prompt id → its text. With `texts_of_layer`, also the files of `write_generated_texts`
    for that layer.
    """
    completions = result.completions
    rows = records(completions.drop(columns=[*OF_DIRECTION], errors="ignore"))
    lines = [{**row, "prompt": texts[row["prompt_id"]]} for row in rows]
    write_jsonl(folder / "completions.jsonl", lines)
    write_csv(folder / "interference.csv", result.summary)
    write_json(folder / "interference.json", records(result.summary))
    write_csv(folder / "claims.csv", result.claims)
    write_json(folder / "warnings.json", result.warnings)
    if len(by_family := result.by_family):
        write_csv(folder / "controls.csv", by_family)
    if texts_of_layer is not None:
        write_generated_texts(folder / TEXTS, completions, texts, texts_of_layer)


def read_completions(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The texts in completions.jsonl, with the columns that only the rows have, in their order."""
    texts = pd.DataFrame(read_lines(folder / "completions.jsonl"))
    if texts.empty:
        return texts
    about = rows.drop_duplicates("direction").set_index("direction")
    kept = [name for name in OF_DIRECTION if name in about]
    found = texts.drop(columns="prompt").join(about[kept], on="direction")
    names = list(rows.columns)
    last = max(map(names.index, kept), default=-1)
    front = [name for name in names[: last + 1] if name in found]
    return found.reindex(columns=[*front, *(name for name in found if name not in front)])


def write_rows(folder: Path, tables: Iterable[pd.DataFrame]) -> Path:
    """Write sweep/*.parquet, one file per table, with one table in memory at a time."""

    def write(place: Path) -> None:
        place.mkdir()
        for number, table in enumerate(tables):
            write_parquet(place / f"rows-{number:05d}.parquet", table)

    return write_with(folder / "sweep", write)


def read_rows(place: Path, metrics: Sequence[str]) -> pd.DataFrame:
    """The columns of sweep/*.parquet that `evidence` reads: 50 bytes a row, plus 8 a metric."""
    return read_parquet(place, (*ROW_COLUMNS, *metrics))


def write_generated_texts(
    folder: Path, completions: pd.DataFrame, prompts: Mapping[str, str], layer: int
) -> None:
    """Write generated_texts_layer_{L}_feature_{F}_{S}_prompt_{P}.json per feature and prompt.

    S is the number of nonzero strengths, P the prompt's index in `prompts` (id → text). Each file
    holds layer → feature → prompt text → {original, each strength}; several samples are a list.
    """
    folder.mkdir(parents=True, exist_ok=True)  # even if there is nothing to write
    if completions.empty:
        return
    steered = completions[completions["feature"].notna()]
    n_strengths = steered.loc[steered["alpha"] != 0, "alpha"].nunique()
    numbers = {prompt: number for number, prompt in enumerate(prompts)}
    groups: Any = steered.groupby(["feature", "prompt_id"], sort=False)
    for (feature, prompt), own in groups:
        by_alpha = {alpha: list(rows["completion"]) for alpha, rows in own.groupby("alpha")}
        texts = {
            "original" if alpha == 0 else _strength(alpha): found if len(found) > 1 else found[0]
            for alpha, found in sorted(by_alpha.items(), key=lambda item: (item[0] != 0, item[0]))
        }
        stem = f"generated_texts_layer_{layer}_feature_{feature}_{n_strengths}"
        content = {str(layer): {str(feature): {prompts[str(prompt)]: texts}}}
        write_json(folder / f"{stem}_prompt_{numbers[str(prompt)]}.json", content)


def _strength(alpha: float) -> str:
    """A strength in as few digits as tell it from others."""
    return f"{alpha:g}" if float(f"{alpha:g}") == alpha else repr(float(alpha))


def write_compared_edits(folder: Path, table: pd.DataFrame) -> None:
    """Write compare_edits.csv, and compare_edits.json with one object per prompt."""
    write_csv(folder / "compare_edits.csv", table)
    prompts: dict[str, dict[str, Any]] = {}
    for row in records(table):
        about = {key: row.pop(key) for key in ("prompt_id", "domain", "prompt")}
        prompt = prompts.setdefault(about["prompt_id"], {**about, "variants": {}})
        name = row.pop("variant")
        outputs = prompt if name == "original" else prompt["variants"]
        outputs[name] = row
    write_json(folder / "compare_edits.json", list(prompts.values()))
