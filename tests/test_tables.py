"""Names stay the texts they were through every table and file that a run leaves."""

from __future__ import annotations

import ast
import math
import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from saelens_steer.errors import InputError
from saelens_steer.files import read_jsonl, write_jsonl
from saelens_steer.tables import read_csv, read_parquet, records, write_csv, write_parquet

PACKAGE = Path(__file__).parents[1] / "saelens_steer"
NAMES = [
    *("null", "NA", "NaN", "nan", "N/A", "None", "", "007", "1e5", "1_000", "0x1F", "-0", "inf"),
    *("true", "True", "FALSE", "yes", "~", " x ", "a,b", 'say "x"', '"', "two\nlines", "a\rb"),
    *("#", "=1+1", "2026-11-29", "12:30", "1.0", "+1", "é\u2028ü", "\ufeffx", "\t"),
]
"""Texts that readers take for something else."""


@pytest.fixture
def table() -> pd.DataFrame:
    numbers = np.arange(len(NAMES), dtype=float)
    numbers[1::3] = np.nan
    return pd.DataFrame(
        {
            "007": NAMES,
            "name": NAMES[::-1],
            "number": numbers / 3,
            "small": np.geomspace(1e-300, 1e300, len(NAMES)),
            "single": (numbers / 7).astype("float32"),
            "whole": range(len(NAMES)),
            "feature": pd.array([None if math.isnan(n) else int(n) for n in numbers], "Int64"),
            "truth": numbers > 4,
            "missing": np.nan,
        }
    )


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True, check_dtype=False)
    for name in one:
        assert (
            one[name].dtype.kind == other[name].dtype.kind or one[name].dtype == other[name].dtype
        )


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_table_is_read_as_it_was_written(tmp_path, table, format):
    write, read = {"csv": (write_csv, read_csv), "parquet": (write_parquet, read_parquet)}[format]
    read_back = read(write(tmp_path / f"table.{format}", table))
    same(read_back.drop(columns="single"), table.drop(columns="single"))
    assert read_back["single"].astype("float32").equals(table["single"])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_alone_in_a_column_or_above_it_stays_that_text(tmp_path, name):
    one = pd.DataFrame({name: [name, name], "other": [1, 2]})
    found = read_csv(write_csv(tmp_path / "one.csv", one))
    assert list(found.columns) == [name, "other"]
    assert found[name].tolist() == [name, name]
    assert read_csv(write_csv(tmp_path / "x.csv", one[[name]]))[name].tolist() == [name, name]


def test_a_missing_name_is_not_the_empty_one(tmp_path):
    one = pd.DataFrame({"name": ["", None, "a"], "n": [1, 2, 3]})
    found = read_csv(write_csv(tmp_path / "one.csv", one))
    assert found["name"].isna().tolist() == [False, True, False]
    assert [row["name"] for row in records(found)] == ["", None, "a"]


def test_ordinary_names_are_written_without_quotes(tmp_path):
    one = pd.DataFrame({"direction": ["feature_7", "covariance_0001"], "T": [0.5, np.nan]})
    path = write_csv(tmp_path / "one.csv", one)
    assert path.read_text() == "direction,T\nfeature_7,0.5\ncovariance_0001,\n"


def test_texts_drawn_at_random_survive(tmp_path):
    rng = np.random.default_rng(0)
    letters = list(string.printable + "éü数\u2028\u0085")
    texts = ["".join(rng.choice(letters, rng.integers(0, 6))) for _ in range(500)]
    one = pd.DataFrame({"a": texts, "b": texts[::-1]})
    found = read_csv(write_csv(tmp_path / "one.csv", one))
    assert found["a"].tolist() == texts and found["b"].tolist() == texts[::-1]
    rows = list(read_jsonl(write_jsonl(tmp_path / "one.jsonl", records(one))))
    assert [row["a"] for _, row in rows] == texts


@pytest.mark.parametrize("text", ["a,b\n1\n", "a,b\n1,2,3\n", 'a\nx"y\n', 'a\n"x"y\n', 'a\n"x'])
def test_what_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=r"x\.csv cannot be read as a table: "):
        read_csv(tmp_path / "x.csv")


@pytest.mark.parametrize("data", ["é".encode("latin-1"), b"a\n\xff", "a".encode("utf-16")])
def test_a_table_in_another_encoding_is_refused(tmp_path, data):
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.csv line \d is not UTF-8"):
        read_csv(tmp_path / "x.csv")


def test_a_missing_or_empty_file_is_an_empty_table(tmp_path):
    assert read_csv(tmp_path / "x.csv").empty
    (tmp_path / "x.csv").write_text("\n")
    assert read_csv(tmp_path / "x.csv").empty
    bare = pd.DataFrame(columns=["layer", "feature"])
    assert list(read_csv(write_csv(tmp_path / "x.csv", bare)).columns) == ["layer", "feature"]


def test_a_folder_whose_name_is_an_assignment_adds_no_column(tmp_path, table):
    folder = tmp_path / "domain=NA"
    folder.mkdir()
    write_parquet(folder / "rows-0.parquet", table[["name", "whole"]])
    (folder / "notes.parquet").write_text("not one of its files")
    for place in (folder, folder / "rows-0.parquet"):
        for columns in (None, ["whole", "name", "none"]):
            assert sorted(read_parquet(place, columns)) == ["name", "whole"]
            assert read_parquet(place, columns)["name"].tolist() == NAMES[::-1]


def test_records_are_the_rows_without_rounding():
    one = pd.DataFrame({"p": [1e-20, np.nan], "n": pd.array([3, None], "Int64"), "s": ["007", ""]})
    assert records(one) == [{"p": 1e-20, "n": 3, "s": "007"}, {"p": None, "n": None, "s": ""}]


def test_names_in_a_config_survive_writing_and_reading():
    import yaml

    from saelens_steer.config import parse_yaml
    from saelens_steer.config.yaml import Dumper

    data: dict[str, Any] = {"names": NAMES, **dict.fromkeys(NAMES, 1)}
    assert parse_yaml(yaml.dump(data, Dumper=Dumper, allow_unicode=True), "dumped") == data


ONE_PLACE = {
    "read_csv": set(),
    "to_csv": set(),
    "read_parquet": set(),
    "to_parquet": {"tables.py"},
    "ParquetDataset": {"tables.py"},
    "read_table": {"tables.py"},
    "read_json": set(),
    "read_excel": set(),
    "DictReader": set(),
    "reader": set(),
    "safe_load": set(),
    "yaml.load": {"yaml.py", "installed.py"},  # which reads a megabyte of SAELens's
    "yaml.dump": {"yaml.py"},
}
"""Functions of other libraries that read or write a format → the modules that may call them."""


def test_each_format_has_one_reader_and_one_writer():
    """Calls of a method, such as `pd.read_csv(…)`: our own functions are called by their names."""
    found: dict[str, set[str]] = {name: set() for name in ONE_PLACE}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                for name in (node.attr, ast.unparse(node)):
                    found.get(name, set()).add(path.name)
    assert found == ONE_PLACE


def test_no_module_imports_a_reader_of_pandas_or_csv():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("pandas", "csv", "yaml"), path
            if isinstance(node, ast.Import):
                assert "csv" not in [alias.name for alias in node.names], path
