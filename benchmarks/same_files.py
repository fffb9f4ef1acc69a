"""Reads the files of a run folder into plain values for `benchmarks.same` to compare."""

from __future__ import annotations

import base64
import csv
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

TEXTS = ("report.html", "features.html")
"""Pages compared by their visible text; every other page is one figure."""
IGNORED_LINES = re.compile(
    r"(Steering report: |Features: |Features of ).*"  # the name of the run folder
    r"|/\S+|\d+\.\d+\.\d+\S*|cpu|cuda\S*"  # paths, versions, devices
)

NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?([eE][+-]?\d+)?|nan|NaN|-?inf")
FIGURE = re.compile(r'Plotly\.newPlot\(\s*"[^"]*",\s*(?=\[)')
INLINE = re.compile(r"</?(a|abbr|b|code|em|i|mark|small|span|strong|sub|sup|u)\b[^>]*>")

Paths = Sequence[Path]


class Column(list[Any]):
    """The rows of one column, or those of a .jsonl file."""


class Lines(list[str]):
    """The visible text of a page."""


def read(name: str, paths: Paths) -> Any:
    """The parsed content of a file, or of all parts of sweep/ as one table."""
    kind = Path(name).suffix
    if kind == ".parquet":
        parts = [pq.ParquetFile(path).read() for path in paths]
        table = pa.concat_tables(parts, promote_options="permissive")
        columns = {key: table[key].to_pylist() for key in table.column_names}
        return rows_of(columns, len(table))
    return READERS.get(kind, Path.read_bytes)(paths[0])


def rows_of(columns: Mapping[str, list[Any]], n: int) -> dict[str, Any]:
    """A table as its columns and its number of rows."""
    return {"number of rows": n, **{key: Column(cells) for key, cells in columns.items()}}


def read_csv(path: Path) -> dict[str, Any]:
    """A CSV file; cells written as numbers become numbers. Raises ValueError for ragged rows."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    cells = zip(*rows, strict=True) if rows else [()] * len(header)
    columns = {key: list(map(cell, own)) for key, own in zip(header, cells, strict=True)}
    return rows_of(columns, len(rows))


def cell(text: str) -> str | int | float:
    """A cell's number, or its text."""
    if not NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("-").isdigit() else float(text)


def read_json(path: Path) -> Any:
    """Any JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> dict[str, Any]:
    """The objects of a .jsonl file as one column."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return rows_of({"": found}, len(found))


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a .safetensors file, and its metadata."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return {"metadata": file.metadata() or {}, **tensors}


def read_page(path: Path) -> Any:
    """The visible text of a page, or the numbers of a figure."""
    text = path.read_text(encoding="utf-8")
    return visible(text) if path.name in TEXTS else numbers(text)


def visible(text: str) -> Lines:
    """The text of a page, a line per block, without lines that name the run or the machine."""
    text = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", text)
    text = html.unescape(re.sub(r"<[^>]+>", "\n", INLINE.sub("", text)))
    found = (" ".join(line.split()) for line in text.split("\n"))
    return Lines(line for line in found if line and not IGNORED_LINES.fullmatch(line))


def numbers(text: str) -> dict[str, Any]:
    """The arrays of a figure's traces, and the coordinates of its lines and bands."""
    decode = json.JSONDecoder().raw_decode
    *_, call = FIGURE.finditer(text)
    traces, end = decode(text, call.end())
    layout, _ = decode(text, text.index("{", end))
    marks = [
        {key: one.get(key) for key in ("x0", "x1", "y0", "y1")} for one in layout.get("shapes", [])
    ]
    return {"traces": list(map(arrays, traces)), "shapes": marks}


def arrays(data: Any) -> Any:
    """The arrays in a trace, decoded, without its other settings."""
    if isinstance(data, list):
        return data
    if not isinstance(data, dict):
        return None
    if "bdata" in data:
        flat = np.frombuffer(base64.b64decode(data["bdata"]), data["dtype"])
        return flat.reshape([int(n) for n in str(data.get("shape", len(flat))).split(",")]).tolist()
    found = {key: arrays(value) for key, value in data.items()}
    return {key: value for key, value in found.items() if value is not None} or None


READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": read_csv,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".safetensors": read_tensors,
    ".html": read_page,
}
