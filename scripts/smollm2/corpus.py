"""Write the texts on which the SAEs of the study are trained, as corpus.yaml lists them, and with
them the model's own answers: `python -m scripts.smollm2.corpus FILE.jsonl ANSWERS.jsonl` downloads
Debian packages, so it needs apt."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

RECIPE: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("corpus.yaml").read_text(encoding="utf-8")
)
DOLLARS = ((r"\(", "$"), (r"\)", "$"), (r"\[", "$$"), (r"\]", "$$"))
NOT_READ = frozenset({"test", "tests", "site-packages"})
HIDDEN = frozenset({"script", "style", "nav", "header", "footer", "title"})
BREAKS = frozenset({"p", "div", "li", "dt", "dd", "tr", "br", "pre", "h1", "h2", "h3", "h4", "dl"})


class Text(HTMLParser):
    """The text of a page, with a line for each block and LaTeX between dollar signs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._found, self._hidden, self._exact = list[str](), 0, 0
        self.feed(page)
        lines = "".join(self._found).replace("¶", "").split("\n")
        self.text = "\n".join(line.rstrip() for line in lines if line.strip())

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self._hidden += tag in HIDDEN
        self._exact += tag == "pre"
        if tag in BREAKS:
            self._found.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in HIDDEN
        self._exact -= tag == "pre"
        if tag in BREAKS:
            self._found.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._found.append(data if self._exact else re.sub(r"\s+", " ", data))


def text_of(file: Path) -> str:
    """What a reader sees of a file: of a page, its text."""
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    text = data.decode("utf-8", errors="ignore")
    if file.suffix != ".html":
        return text
    text = Text(text).text
    for old, new in DOLLARS:
        text = text.replace(old, new)
    return text


def pieces(text: str, longest: int) -> Iterator[str]:
    """Parts of a text of at most so many characters that end where a line does."""
    part = ""
    for line in text.splitlines(keepends=True):
        if len(part) + len(line) > longest:
            yield part
            part = ""
        part += line[:longest]
    yield part


def library_files(pattern: str) -> list[Path]:
    """Files of the standard library."""
    found = Path(os.__file__).parent.rglob(pattern)
    return sorted(file for file in found if not NOT_READ & {*file.parts})


def unpacked(work: Path) -> Iterator[tuple[str, list[Path]]]:
    """Domain → its files, of the standard library and of each package."""
    for domain, pattern in RECIPE["stdlib"].items():
        yield domain, library_files(pattern)
    for package, files in RECIPE["packages"].items():
        subprocess.run(["apt-get", "download", "-qq", package], cwd=work, check=True)
        name = package.partition("=")[0]
        (deb,) = work.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, work / name], check=True)
        for domain, pattern in files.items():
            yield domain, [file for file in (work / name).glob(pattern) if file.is_file()]


def main(out: Path, answers: Path) -> None:
    draw, domains = random.Random(RECIPE["seed"]), dict[str, list[list[str]]]()
    with tempfile.TemporaryDirectory() as work:
        for domain, files in unpacked(Path(work)):
            texts = [p for f in sorted(files) for p in pieces(text_of(f), RECIPE["longest"])]
            texts = [text for text in texts if len(text) > 200]
            if domain == "math":
                texts = [text for text in texts if text.count("$") >= RECIPE["dollars"]]
            draw.shuffle(texts)
            domains.setdefault(domain, []).append(texts)
    rows = [json.loads(line) for line in answers.read_text("utf-8").splitlines()]
    for domain, sources in domains.items():
        left = RECIPE["characters"][domain]
        for number, texts in enumerate(sources):  # sources give equally much, while they last
            own = left // (len(sources) - number)
            while texts and own > 0:
                rows.append({"text": texts.pop(), "domain": domain})
                own, left = own - len(rows[-1]["text"]), left - len(rows[-1]["text"])
    draw.shuffle(rows)
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
