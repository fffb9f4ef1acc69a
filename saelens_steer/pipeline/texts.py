"""Generated texts as a table that a notebook shows side by side."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from html import escape
from typing import Any

import pandas as pd

from saelens_steer.sweeps import ORIGINAL

SHOWN_PROMPTS = 6
"""Prompts that a notebook shows."""
SHOWN_WORDS = 120
"""Words of each text that a notebook shows."""
SHOWN_COLUMNS = ("prompt_id", "variant", "alpha", "sample", "completion")
SHOWN_ROWS, SHOWN_LETTERS = 20, 72
"""Rows that a terminal shows, and letters of each text."""
LEFT = "text-align: left; vertical-align: top"


class Texts(pd.DataFrame):
    """One row per generated text; in a notebook, changed words are marked.

    A pandas DataFrame in every other respect. Columns: prompt_id, domain, prompt, variant,
    completion, truncated and others that `generate` and `compare_edits` document.
    """

    @property
    def _constructor(self) -> type[Texts]:
        return Texts

    def __repr__(self) -> str:
        """The columns that tell texts apart, and the texts, which pandas would leave out first."""
        few = len(self.columns) <= len(SHOWN_COLUMNS) + 2
        columns = [name for name in (self.columns if few else SHOWN_COLUMNS) if name in self]
        if "completion" not in columns:
            return super().__repr__()
        about = f"{len(self)} texts; columns: {', '.join(map(str, self.columns))}"
        shown = self.head(SHOWN_ROWS)[columns].assign(completion=self["completion"].map(repr))
        table = pd.DataFrame(shown).to_string(index=False, max_colwidth=SHOWN_LETTERS)
        return "\n".join([table, *(["…"] if len(self) > SHOWN_ROWS else []), about])

    def _repr_html_(self) -> str | None:
        """Each prompt with its texts below one another; the rest of the table if columns lack."""
        wanted = {"prompt_id", "prompt", "variant", "completion"}
        if not wanted <= set(self.columns) or self.empty:
            return pd.DataFrame(self)._repr_html_()  # type: ignore[operator]
        groups: Any = self.groupby("prompt_id", sort=False)
        shown = [_prompt_html(rows) for _, rows in list(groups)[:SHOWN_PROMPTS]]
        left = len(groups) - len(shown)
        more = f"<p>Prompts left out here: {left}.</p>" if left else ""
        return f'<div style="max-width: 70em">{"".join(shown)}{more}</div>'


def _prompt_html(rows: pd.DataFrame) -> str:
    """A prompt and its texts; words that the unsteered text lacks are marked."""
    first, listed = rows.iloc[0], rows.to_dict("records")
    several = len({row.get("sample", 0) for row in listed}) > 1
    own: dict[object, str] = {}
    lines = []
    for row in listed:
        sample, text = row.get("sample", 0), str(row["completion"])
        if row["variant"] == ORIGINAL.name:
            own[sample] = text
            shown = escape(_cut(text))
        else:
            shown = _marked(own.get(sample), text)
        head = f"<th style='{LEFT}; white-space: nowrap'>{escape(_label(row, several))}</th>"
        cell = f"<td style='{LEFT}; white-space: pre-wrap'>{shown or '<i>empty</i>'}</td>"
        lines.append(f"<tr>{head}{cell}</tr>")
    asked = escape(_cut(str(first["prompt"])))
    return f"<p><b>{asked}</b></p><table>{''.join(lines)}</table>"


def _label(row: dict[Any, Any], several: bool) -> str:
    """The variant with its strength, and its sample from 1 if there are several."""
    name = str(row["variant"])
    if "alpha" in row and not pd.isna(row["alpha"]):
        name += f", α = {row['alpha']:g}"
    return f"{name}, sample {row['sample'] + 1}" if several else name


def _marked(before: str | None, after: str) -> str:
    """`after` as HTML, with words that are not in `before` marked; unmarked without `before`."""
    words = _words(_cut(after))
    if before is None:
        return escape("".join(words))
    old, html = _words(_cut(before)), ""
    for kind, _, _, start, end in SequenceMatcher(None, old, words, autojunk=False).get_opcodes():
        text = escape("".join(words[start:end]))
        html += text if kind == "equal" or not text else f"<mark>{text}</mark>"
    return html


def _words(text: str) -> list[str]:
    """Words and the whitespace between them."""
    return re.findall(r"\s+|\S+", text)


def _cut(text: str) -> str:
    words = _words(text)
    return "".join(words[: 2 * SHOWN_WORDS]) + ("…" if len(words) > 2 * SHOWN_WORDS else "")
