"""What other parsers make of each completion, and which completions have to be read.

    python -m scripts.verdicts.reference OUT PANDOC KATEX

Code: the fences that markdown-it finds by CommonMark, parsed by Python; in an open fence, a line at
the margin does not end a list item. Mathematics: what Pandoc finds outside of code, its balance
judged by KaTeX. A completion must be read if a delimiter is left that Pandoc did not use, or if
KaTeX stops at something other than a lack of balance. Nothing of saelens_steer.metrics is used.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

HERE = Path(__file__).parent
PYTHON = {"python", "py", "python3", "py3"}
THOUGHT = re.compile(r"</?think(ing)?>", re.IGNORECASE)
DELIMITER = re.compile(r"(?<!\\)(?:\\\\)*(\$\$?|\\[()\[\]]|\\(?:begin|end)(?![a-zA-Z]))")
PRICE = re.compile(r"\$ ?[0-9][0-9.,]*(?![0-9a-zA-Z^_\\])")
UNBALANCED = re.compile(
    r"Expected '(\}|\\right|\\end|EOF|\])', got '(EOF|\}|\\right|\\end)'"
    r"|Mismatch: |expected '\}'|Expected '\\right', got"
)
ENDS = {"DisplayMath": [("$$", "$$"), (r"\[", r"\]")], "InlineMath": [("$", "$"), (r"\(", r"\)")]}


def main(out: str, pandoc: str, katex: str) -> None:
    """Add `reference.jsonl`: one line per distinct text and cut."""
    rows = {}
    for file in sorted(Path(out).glob("*-*-*.jsonl")):
        for row in map(json.loads, file.read_text().splitlines()):
            rows.setdefault((row["completion"], row["truncated"]), row)
    found = list(rows.values())
    blocks = [fenced(row["completion"]) for row in found]
    bare = [without(row["completion"], b) for row, b in zip(found, blocks, strict=True)]
    mathematics = [
        [(kind, text) for kind, text in m if kind != "tex" or text.startswith("\\begin{")]
        for m in pandoc_finds(bare, pandoc)  # a bare command is no mathematics
    ]
    readings = [Reading.of(*pair) for pair in zip(bare, mathematics, strict=True)]
    messages = katex_says([r.formulas for r in readings], katex)
    lines = []
    for row, fences, reading, wrong in zip(found, blocks, readings, messages, strict=True):
        code, (latex, why) = code_verdict(row, fences), reading.verdict(wrong, row["truncated"])
        if THOUGHT.search(row["completion"]):
            code, latex, why = "read", "read", "a thought"
        lines.append(json.dumps(row | {"code": code, "latex": latex, "why": why}))
    (Path(out) / "reference.jsonl").write_text("\n".join(lines) + "\n")


def fenced(text: str) -> list[dict[str, Any]]:
    """CommonMark's fences: language, body, whether marks close it, first and last line."""
    lines = text.split("\n")
    kept_in: set[int] = set()  # lines that a list item would lose
    while True:
        tokens = [t for t in MarkdownIt("commonmark").parse("\n".join(lines)) if t.type == "fence"]
        blocks = [_block(token, lines) for token in tokens]
        more = [b for b in blocks if not b["closed"] and _keep_in(b, lines, kept_in)]
        if not more:
            break
    for block in blocks:
        inside = set(range(block["first"] + 1, block["last"] + 1))
        if inside & kept_in:  # code at the margin of a list stands as it is written
            own = text.split("\n")[block["first"] + 1 : block["last"] + 1 - block["closed"]]
            block["body"] = "\n".join(own) + "\n"
    return blocks


def _block(token: Token, lines: list[str]) -> dict[str, Any]:
    assert token.map is not None
    first, end = token.map
    last = lines[end - 1].lstrip(" \t>")
    mark = re.escape(token.markup[0])
    closed = end - 1 > first and re.fullmatch(rf"{mark}{{{len(token.markup)},}}\s*", last)
    return {
        "info": token.info,
        "mark": token.markup,
        "language": language(token.info),
        "body": token.content,
        "closed": bool(closed),
        "first": first,
        "last": end - 1,
    }


def _keep_in(block: dict[str, Any], lines: list[str], kept_in: set[int]) -> bool:
    """Indent the next line if it ended the list item of an open fence; whether that was so."""
    opening = lines[block["first"]]
    column = len(opening) - len(opening.lstrip(" \t-*+0123456789.)"))
    after = block["last"] + 1
    if column == 0 or ">" in opening[:column] or after >= len(lines) or after in kept_in:
        return False
    lines[after] = " " * column + lines[after]
    kept_in.add(after)
    return True


def language(info: str) -> str:
    """The first word of an info string, or the first class of `{…}`."""
    words = info.strip().strip("{}").split()
    if info.strip().startswith("{"):
        words = [w for w in words if w.startswith(".")] or words
    return re.split(r"[^\w+#-]", words[0].removeprefix("."))[0].lower() if words else ""


def code_verdict(row: dict[str, Any], blocks: list[dict[str, Any]]) -> str:
    """The verdict on the fences whose language is Python."""
    last, n = blocks[-1] if blocks else None, row["completion"].count("\n")
    if row["truncated"] and last and not last["closed"] and last["last"] >= n - 1:
        begun = last["first"] == n and not last["info"].strip()[len(last["language"]) :]
        if last["language"] in PYTHON or (
            begun and any(p.startswith(last["language"]) for p in PYTHON)
        ):
            return "truncated"
    python = [b for b in blocks if b["language"] in PYTHON]
    if not python:
        return "absent"
    return "valid" if all(b["closed"] and parses(b["body"]) for b in python) else "invalid"


def parses(source: str) -> bool:
    """Whether Python parses it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def without(text: str, blocks: list[dict[str, Any]]) -> str:
    """The text with its fenced lines left empty."""
    lines = text.split("\n")
    for block in blocks:
        for i in range(block["first"], min(block["last"] + 1, len(lines))):
            lines[i] = ""
    return "\n".join(lines)


def pandoc_finds(texts: list[str], pandoc: str) -> list[list[tuple[str, str]]]:
    """(kind, text) of the mathematics, TeX and code that Pandoc finds in each."""
    given = "\n".join(json.dumps({"text": text}) for text in texts)
    command = [pandoc, "lua", str(HERE / "pandoc.lua")]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    return [json.loads(line) or [] for line in done.stdout.splitlines()]


def katex_says(formulas: list[list[str]], katex: str) -> list[list[str]]:
    """What KaTeX finds wrong with each formula; empty if nothing."""
    command = ["node", str(HERE / "katex.js"), katex]
    given = json.dumps(formulas)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Reading:
    """What Pandoc made of a text."""

    formulas: list[str]
    """Those that it found, and what follows a delimiter that is left over at the end."""
    left: list[str]
    """Delimiters that it did not use, without the dollars of prices."""
    unsure: bool
    """A formula is not in the text as it stands."""

    @classmethod
    def of(cls, text: str, found: list[tuple[str, str]]) -> Reading:
        """The reading of a text without its fenced code."""
        rest, unsure = remaining(text, found)
        left = [m for m in DELIMITER.finditer(rest) if not PRICE.match(rest, m.start(1))]
        formulas = [content for kind, content in found if kind != "code"]
        partial = [rest[left[0].end() :]] if left else []
        return cls(formulas + partial, [m[1] for m in left], unsure)

    def verdict(self, messages: list[str], truncated: bool) -> tuple[str, str]:
        """The verdict, or `read`; and why."""
        if self.unsure:
            return "read", "not in the text as it stands"
        whole = messages[:-1] if self.left else messages
        if any(re.search(r"(?<!\\)(?:\\\\)*(?:\\[()\[\]]|\\\Z)", f) for f in self.formulas):
            return "read", "a delimiter within a formula, or an escaped one"
        wrong = next((m for m in whole if UNBALANCED.search(m)), "")
        if wrong:
            return "invalid", wrong
        if any(whole):
            return "read", next(filter(None, whole))
        if not self.left:
            return ("valid" if self.formulas else "absent"), ""
        if self.left not in (["$$"], [r"\["], [r"\("]):
            return "read", "left over: " + " ".join(self.left[:4])
        if not truncated:
            return "invalid", f"left over: {self.left[0]}"
        if re.search(r"\n[ \t]*\n", self.formulas[-1]):
            return "invalid", "a blank line"
        if messages[-1] and not re.search("got 'EOF'|end of input", messages[-1]):
            return "read", messages[-1]
        return "truncated", ""


def remaining(text: str, found: list[tuple[str, str]]) -> tuple[str, bool]:
    """The text without what Pandoc found, and whether something was not found again."""
    kept, at, unsure = [], 0, False
    for kind, content in found:
        sources = [a + content + b for a, b in ENDS.get(kind, [])] or [content]
        places = [(text.find(s, at), len(s)) for s in sources if s in text[at:]]
        if not places:
            unsure |= kind != "code"
            continue
        place, length = min(places)
        kept.append(text[at:place])
        at = place + length
    return " ".join([*kept, text[at:]]), unsure


if __name__ == "__main__":
    main(*sys.argv[1:])
