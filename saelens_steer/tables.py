"""Read and write tables, as CSV and Parquet, so that every name stays the text that it was.

In a CSV file, a text that could be taken for a number, a truth value or nothing is quoted, and an
unquoted empty cell is a missing value. So `"007"`, `"None"`, `"nan"` and `""` are read as written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from saelens_steer.errors import InputError
from saelens_steer.files import read_text, write_bytes

CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n|\Z)')
"""A quoted or plain cell, and what ends it."""
PLAIN = re.compile(r'[^\s",\ufeff]([^",\r\n]*[^\s",])?')
"""A text that needs no quotes, unless it looks like another kind of value."""
WHOLE = re.compile(r"[-+]?\d{1,18}")
TRUTH = {"True": True, "False": False}


class Quoted(str):
    """A cell that was quoted, so that it is a text."""

    __slots__ = ()


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write a table as CSV, atomically. Numbers are written so that they are read back exactly."""
    header = [_quoted(str(name)) for name in table.columns]
    columns = ([_cell(value) for value in table[name].array] for name in table.columns)
    rows = [header, *zip(*columns, strict=True)]
    return write_bytes(path, "".join(",".join(row) + "\n" for row in rows).encode())


def read_csv(path: Path) -> pd.DataFrame:
    """A table from CSV; empty if the file is missing or empty. InputError if it is not a table.

    A column is numeric if no cell is quoted and all are numbers or missing; whole numbers with
    missing ones give Int64.
    """
    text = read_text(path) if path.is_file() else ""
    if not text.strip():
        return pd.DataFrame()
    header, *rows = _rows(text, path)
    rows = [row for row in rows if len(row) == len(header) or row != [""]]  # without empty lines
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise InputError(
                f"{path} cannot be read as a table: row {number} has {len(row)} cells, but there "
                f"are {len(header)} columns"
            )
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return pd.DataFrame(dict(zip(map(str, header), map(_column, columns), strict=True)))


def write_parquet(path: Path, table: pd.DataFrame) -> Path:
    """Write a table as Parquet, atomically."""
    return write_bytes(path, parquet_bytes(table))


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A Parquet file, or all files rows-*.parquet of a folder as one table.

    `columns`: read only these, as far as they exist, with texts as categories to save memory.
    """
    paths = sorted(path.glob("rows-*.parquet")) if path.is_dir() else [path]
    options: dict[str, Any] = {"partitioning": None}
    if columns is None:
        return pq.read_table(paths, **options).to_pandas()
    schema, strings = pq.ParquetDataset(paths).schema, (pa.string(), pa.large_string())
    known = [name for name in columns if name in schema.names]
    texts = [name for name in known if schema.field(name).type in strings]
    options |= {"read_dictionary": texts, "use_threads": False}
    table = pq.read_table(paths, columns=known, **options)
    rows = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    pa.default_memory_pool().release_unused()
    return rows


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """The content of a Parquet file with this table."""
    return table.to_parquet(None, index=False)


def from_parquet(data: bytes) -> pd.DataFrame:
    """The table in the content of a Parquet file."""
    return pq.read_table(pa.BufferReader(data)).to_pandas()


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON objects; missing values and NaN become None."""
    columns = [[_json(value) for value in table[name].array] for name in table.columns]
    names = [str(name) for name in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _json(value: Any) -> Any:
    if value is None or value is pd.NA or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    number = isinstance(value, bool | int | float | np.number | np.bool_)
    return str(value) if number else _quoted(str(value))


def _quoted(text: str) -> str:
    """The text as a cell, in quotes if it might be read as anything else."""
    if PLAIN.fullmatch(text) and text not in TRUTH and not _is_number(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rows(text: str, path: Path) -> Iterator[list[str]]:
    row, place = list[str](), 0
    while place < len(text) or row:
        found = CELL.match(text, place)
        if found is None:
            line = text[:place].count("\n") + 1
            raise InputError(f"{path} cannot be read as a table: line {line} has a stray quote")
        quoted, plain, end = found.groups()
        row.append(plain if quoted is None else Quoted(quoted.replace('""', '"')))
        place = found.end()
        if end != ",":
            yield row
            row = []


def _column(cells: Sequence[str]) -> pd.Series:
    """The cells as numbers or truth values if all of them are, and else as texts."""
    missing = [not cell and not isinstance(cell, Quoted) for cell in cells]
    given = [cell for cell, gone in zip(cells, missing, strict=True) if not gone]
    read, kind = str, None
    if not given:
        kind = "float64"
    elif not any(isinstance(cell, Quoted) for cell in given):
        if all(WHOLE.fullmatch(cell) for cell in given):
            read, kind = int, "Int64" if any(missing) else "int64"
        elif all(cell in TRUTH for cell in given):
            read, kind = TRUTH.__getitem__, "object" if any(missing) else "bool"
        elif all(map(_is_number, given)):
            read, kind = float, "float64"
    values = [None if gone else read(cell) for cell, gone in zip(cells, missing, strict=True)]
    return pd.Series(values, dtype=kind)
