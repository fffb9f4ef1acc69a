"""Every code block of the README and the site does what a reader would have it do.

Python runs, page by page, in a folder with a finished run. YAML is a valid config or a part of one.
Commands and their options exist, and short ones run. A block after `<!-- not run: … -->` is only
compiled.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: [^\n]+ -->\n)?```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SMALL = {
    "prompts": {"limit": 4},
    "sae": {"train": {"training_tokens": 20_000}},
    "select": {"k": 2},
    "features": {"also": [855], "topic": None},
    "label": {"n_prompts": 6, "max_new_tokens": 8},
    "sweep": {
        "n_controls": 80,
        "completions": {"max_new_tokens": 8, "top": 1, "n_controls": 1},
    },
}
"""The demo in seconds: what pages find in runs/demo."""
SHORT = ("export", "features")
"""Commands on runs/demo that are run, and not only checked."""


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    code: str
    run: bool


def blocks(page: Path, *languages: str) -> list[Block]:
    found = [
        Block(m["language"], m["title"], m["code"], not m["skip"])
        for m in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
    return [block for block in found if not languages or block.language in languages]


def with_blocks(*languages: str) -> pytest.MarkDecorator:
    pages = [page for page in PAGES if blocks(page, *languages)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.stem)


def commands(page: Path) -> list[tuple[list[str], bool]]:
    """Each command of the bash blocks as words, and whether it may be run."""
    return [
        (shlex.split(line, comments=True), block.run)
        for block in blocks(page, "bash")
        for line in block.code.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """A folder with configs/ and a small finished run in runs/demo."""
    import saelens_steer as ss
    from saelens_steer.config import parse_config

    folder = tmp_path_factory.mktemp("docs")
    (folder / "configs").symlink_to(ROOT / "configs")
    with contextlib.chdir(folder):
        ss.run(parse_config(SMALL), "runs/demo")
    return folder


@pytest.fixture
def workplace(demo, tmp_path, monkeypatch) -> Path:
    """A copy of that folder for one page; the working directory."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(demo / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_has_a_language_that_is_checked(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= {"python", "yaml", "bash", "json", "text"}
    assert not re.search(r"^\n {4}\S", BLOCK.sub("", text), re.MULTILINE), "indented code"


@pytest.mark.slow
@with_blocks("python")
def test_the_python_of_a_page_runs(page, workplace, monkeypatch):
    monkeypatch.syspath_prepend(workplace)
    names: dict[str, object] = {}
    for block in blocks(page, "python", "json"):
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            code = compile(block.code, f"{page.name}: {block.code[:40]!r}", "exec")
            if block.run:
                exec(code, names)


@with_blocks("yaml")
def test_the_yaml_of_a_page_is_a_config_or_a_part_of_one(page):
    from saelens_steer.config import parse_config

    for block in blocks(page, "yaml"):
        parse_config(yaml.safe_load(block.code))


@with_blocks("bash")
def test_the_commands_of_a_page_exist_with_their_options(page):
    from saelens_steer.cli import app
    from saelens_steer.config import load_config

    group: Any = typer.main.get_command(app)
    targets = re.findall(r"^([\w-]+)(?: [\w-]+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words, _ in commands(page):
        if words[0] == "make":
            assert set(words[1:]) <= {*targets, "test-slow", "nightly"}
        elif words[0] == "saelens-steer":
            name, *given = words[1:]
            context = group.commands[name].make_context(name, given)
            config = context.params.get("config")
            if config and (ROOT / config).is_file():
                load_config(ROOT / config, context.params.get("set_") or [])
        else:
            assert words[:2] in (["pip", "install"], ["source", ".venv/bin/activate"])


@pytest.mark.slow
@with_blocks("bash")
def test_the_short_commands_of_a_page_run(page, workplace):
    from saelens_steer.cli import app

    for words, run in commands(page):
        if run and words[0] == "saelens-steer" and words[1] in SHORT and "runs/demo" in words:
            outcome = CliRunner().invoke(app, words[1:])
            assert outcome.exit_code == 0, outcome.output
