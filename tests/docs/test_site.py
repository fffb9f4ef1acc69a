"""The site's own laws: nothing from other hosts, references complete, quoted messages real."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from test_docs_code import ROOT, blocks

from scripts.docs.pages import cli_page, config_page, external, python_page


def test_a_page_that_loads_from_another_host_is_found_and_a_plain_link_is_not():
    assert external('<script src="https://cdn.org/a.js"></script>') == ["https://cdn.org/a.js"]
    assert external('<link rel="stylesheet" href="//cdn.org/a.css">') == ["//cdn.org/a.css"]
    assert external("<img alt=x src=http://cdn.org/a.png>") == ["http://cdn.org/a.png"]
    assert external("@import url(https://cdn.org/a.css);") == ["https://cdn.org/a.css"]
    assert external('<a href="https://arxiv.org/abs/2505.20063">a paper</a>') == []


def test_the_config_page_has_every_section_with_types_and_defaults():
    from saelens_steer.config import RunSpec

    page = config_page()
    assert all(f"`{name}` · " in page for name in RunSpec.model_fields)
    assert "`n_controls` · integer, default `512`" in page
    assert "`target` · [metrics.margin.target](#metricsmargintarget), required" in page


def test_the_references_name_every_command_and_every_public_name():
    import saelens_steer
    from saelens_steer.pipeline.step_table import STEPS

    assert {f"## {step.command}\n" for step in STEPS if step.help} <= set(
        re.findall(r"## .+\n", cli_page())
    )
    shown = re.findall(r"::: saelens_steer\..*?(\w+)\n", python_page())
    assert sorted(shown) == sorted(set(saelens_steer.__all__) - {"__version__"})


def test_the_messages_that_troubleshooting_quotes_are_in_the_package():
    sources = sorted((ROOT / "saelens_steer").rglob("*.py"))
    known = [message for path in sources for message in messages(path)]
    quoted = [block.code for block in blocks(ROOT / "docs" / "troubleshooting.md", "text")]
    lost = [text for text in quoted if not any(re.search(known_, text) for known_ in known)]
    assert lost == []


def messages(path: Path) -> list[str]:
    """The f-strings of a module as expressions that match what they give."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        constant = [part.value for part in parts if isinstance(part, ast.Constant)]
        if len("".join(constant)) > 15:
            found.append(
                "".join(
                    re.escape(part.value) if isinstance(part, ast.Constant) else "(?s:.*)"
                    for part in parts
                )
            )
    return found
