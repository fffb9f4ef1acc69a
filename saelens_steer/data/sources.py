"""Read rows of text from shipped sets, files and datasets."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from saelens_steer.config import TINY_CORPUS
from saelens_steer.errors import InputError, existing, first_line, is_there, one_string
from saelens_steer.files import digest, file_digest, read_jsonl, read_text

SHIPPED = Path(__file__).parent / "prompts"
TEXT_COLUMNS = ("text", "prompt")
TABLES = {".csv": "read_csv", ".parquet": "read_parquet", ".xlsx": "read_excel"}
"""Files of rows that are not read, and what reads them."""

SourceRow = tuple[str, int, dict[str, Any]]
"""Location of the row (for messages), its number from 1, and its columns."""


def source_rows(source: str) -> Iterator[SourceRow]:
    """Rows of a shipped set, a .jsonl or .txt file, or a dataset `name[:config[:split]]`.

    A file is read whole; a dataset only as far as it is iterated.
    """
    path = source_file(source)
    if path is None:
        return _dataset(source)
    if (read := TABLES.get(path.suffix)) is not None:
        raise InputError(
            f"{path} is neither .jsonl nor .txt: convert it with pandas.{read}({str(path)!r})"
            f".to_json({str(path.with_suffix('.jsonl'))!r}, orient='records', lines=True)"
        )
    return text_rows(path) if path.suffix == ".txt" else json_lines(path)


def source_file(source: str) -> Path | None:
    """The file behind a source, which may not exist; None for a dataset."""
    if source in shipped_prompts():
        return SHIPPED / f"{source}.jsonl"
    named = source.endswith((".jsonl", ".txt")) or (is_there(source) and Path(source).is_file())
    return Path(source) if named else None


def shipped_prompts() -> list[str]:
    """Names of the shipped prompt sets."""
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl"))


def text_rows(path: Path) -> Iterator[SourceRow]:
    """The texts of a .txt file, stripped; they are separated by blank lines."""
    texts = (block.strip() for block in re.split(r"\n[ \t\r]*\n", read_text(path)))
    for number, text in enumerate(filter(None, texts), start=1):
        yield f"{path} text {number}", number, {"text": text}


def json_lines(path: Path) -> Iterator[SourceRow]:
    """The objects of a .jsonl file, numbered by line. InputError for invalid JSON."""
    for number, row in read_jsonl(path):
        yield f"{path} line {number}", number, row


def _dataset(source: str) -> Iterator[SourceRow]:
    near = difflib.get_close_matches(source, shipped_prompts(), n=2, cutoff=0.7)
    if near and not is_there(source) and not set("/:") & set(source):  # before a slow search
        raise InputError(f"there is no shipped set {source!r}; did you mean {' or '.join(near)}?")
    try:
        for number, row in enumerate(dataset_rows(source), start=1):
            yield f"{source} row {number}", number, row
    except InputError as error:
        names = ", ".join(shipped_prompts())
        raise InputError(
            f"{source!r} is neither a .txt or .jsonl file nor a shipped set ({names}); {error}"
        ) from error.__cause__


def check_corpus(name: str) -> None:
    """InputError unless the corpus can be read, as far as that takes no download."""
    if name.endswith((".txt", ".jsonl")):
        existing(Path(name))
    elif name != TINY_CORPUS and constants.HF_HUB_OFFLINE:
        next(dataset_rows(name), None)


def dataset_rows(source: str) -> Iterator[dict[str, Any]]:
    """The rows of `name[:config[:split]]` (default split: train); `name` may be a local folder.

    Rows are streamed, so that a large dataset is not downloaded whole; with HF_HUB_OFFLINE set they
    come from the local cache. InputError if the dataset cannot be loaded.
    """
    name, config, split = _dataset_parts(source)
    import datasets  # takes a second, which files and shipped sets should not cost

    streaming = not constants.HF_HUB_OFFLINE
    with _naming_dataset(name, config, split):
        rows = datasets.load_dataset(
            name, config, split=split, streaming=streaming, trust_remote_code=False
        )
        yield from map(dict, rows)


def _dataset_parts(source: str) -> tuple[str, str | None, str]:
    """Name, config and split of `name[:config[:split]]`. Raises InputError."""
    name, *rest = source.split(":")
    if not name or len(rest) > 2:
        raise InputError(f"give a dataset as name:config:split, not {source!r}")
    config, split = (part or None for part in (*rest, "", "")[:2])
    return name, config, split or "train"


def source_version(source: str) -> str | None:
    """A digest of the local files that a source is read from; None if it has none.

    Of a local folder, those that `datasets` finds in it count, and how it reads them.
    """
    if source == TINY_CORPUS:
        return None
    if (file := source_file(source)) is not None:
        return file_digest(existing(file))
    name, config, split = _dataset_parts(source)
    if not is_there(name):
        return None
    if Path(name).is_file():
        return file_digest(Path(name))
    import datasets

    with _naming_dataset(name, config, split):
        about = datasets.load_dataset_builder(name, config).config
    splits: dict[Any, Any] = about.data_files or {}
    lists = [splits[split]] if split in splits else splits.values()
    files = {Path(file).resolve() for held in lists for file in held}
    unrelated = ("data_files", "data_dir", "description")
    reading = {key: str(value) for key, value in vars(about).items() if key not in unrelated}
    contents = [[file.name, file_digest(file)] for file in sorted(files)]
    return digest(type(about).__name__, reading, contents)


@contextlib.contextmanager
def _naming_dataset(name: str, config: str | None, split: str) -> Iterator[None]:
    """Turn whatever `datasets` raises into an InputError."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"cannot load the dataset {name!r} (config {config}, split {split}; the format is "
            f"name:config:split): {first_line(error)}"
        ) from error


def text_of(row: dict[str, Any], where: str, columns: tuple[str, ...]) -> str:
    """The text in the first of `columns` that the row has. InputError unless it is non-empty."""
    column = next((c for c in columns if c in row), None)
    if column is None:
        wanted = " or ".join(repr(c) for c in columns)
        names = [str(key) if str(key).isprintable() else repr(key) for key in row]
        has = f", only {', '.join(names)}" if names else " and is empty"
        raise InputError(f"{where} has no {wanted}{has}")
    text = row[column]
    if not isinstance(text, str):
        raise InputError(f"{where}: {column!r} must be a string, not {type(text).__name__}")
    if not text.strip():
        raise InputError(f"{where}: {column!r} is empty")
    return encodable(text, where)


def text_if_any(row: dict[str, Any], where: str, columns: tuple[str, ...]) -> str:
    """`text_of`, but '' if the text is null or blank."""
    text = next((row[c] for c in columns if c in row), ...)
    blank = text is None or (isinstance(text, str) and not text.strip())
    return "" if blank else text_of(row, where, columns)


def listed_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list. InputError for a single string, and for items that are not text."""
    if isinstance(texts, str):
        raise one_string("texts", texts)
    if not isinstance(texts, Iterable):
        raise InputError(f"texts is a single {type(texts).__name__}: give a list of strings")
    listed = list(texts)
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(f"texts[{i}] is a {type(text).__name__}: give a string")
        encodable(text, f"texts[{i}]")
    return listed


def encodable(text: str, where: str) -> str:
    """Return the text. InputError if a lone surrogate keeps it from being UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} contains half of a surrogate pair; remove it") from None
    return text
