"""The site's own laws: nothing from other hosts, references complete, quoted messages real."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from test_docs_code import PAGES, ROOT, blocks

from scripts.docs.pages import (
    LINK,
    SHOWN_AS,
    cli_page,
    config_page,
    external,
    links_of_site,
    python_page,
)


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
    assert "`n_controls` · integer or mapping of names to integer, default `512`" in page
    assert "`target` · [metrics.margin.target](#metricsmargintarget), required" in page


def test_the_references_name_every_command_and_every_public_name():
    import saelens_steer
    from saelens_steer.pipeline.step_table import STEPS

    assert {f"## {step.command}\n" for step in STEPS if step.help} <= set(
        re.findall(r"## .+\n", cli_page())
    )
    shown = re.findall(r"::: saelens_steer\..*?(\w+)\n", python_page())
    assert sorted(shown) == sorted(set(saelens_steer.__all__) - {"__version__"})


TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
"""Every text with links that a reader of the repository may follow."""


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_every_relative_link_leads_to_a_place_in_the_repository(page):
    known = set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines())
    for link in re.findall(r"\]\(((?!\w+:)[^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.relative_to(ROOT).as_posix() in known, link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, which forges and the site make alike."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_of_the_pages_to_other_files_lead_to_generated_pages():
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name, text = page.relative_to(ROOT / "docs"), page.read_text(encoding="utf-8")
        for link in LINK.findall(text):
            target = (page.parent / link).resolve().relative_to(ROOT)
            assert target.parts[0] == "docs" or target.as_posix() in SHOWN_AS, link
        for link in LINK.findall(links_of_site(text, name.as_posix())):
            target = (page.parent / link).resolve()
            assert target.is_relative_to(ROOT / "docs"), link


def test_a_link_to_a_file_is_one_to_its_page_on_the_site():
    text = "[a](../../benchmarks/README.md#x), [b](edit.md#y), [c](https://d.org/a.md), [e](#f)"
    there = text.replace("../../benchmarks/README.md", "../figures.md")
    assert links_of_site(text, "how-to/gpu.md") == there
    names = links_of_site("[a](../saelens_steer/__init__.pyi)", "index.md")
    assert names == "[a](reference/python.md)"


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


def test_each_fault_of_the_page_has_its_test():
    text = (ROOT / "docs/concepts/faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| .+ \| `(test_\w+)` \|$", text, re.MULTILINE)
    assert len(rows) >= 60 and len({fault for fault, _ in rows}) == len(rows)
    tests = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for _, name in rows if f"def {name}(" not in tests]
    assert missing == []
