"""MkDocs hook: generated pages, and a check of the built site."""

import ast
import posixpath
import re
from collections import Counter, defaultdict
from pathlib import Path
from types import UnionType
from typing import Any

import typer
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import saelens_steer
from saelens_steer.cli import app
from scripts.docs.config_page import config_page, spec_places
from scripts.docs.releases import releases_page

ROOT = Path(__file__).parents[2]
GROUPS = {
    "model": "Models", "data": "Prompts", "activations": "Activations", "sae": "SAEs",
    "features": "Features", "steering": "Steering", "sweeps": "Sweeps",
    "pipeline": "Studies and runs", "directions": "Directions", "evidence": "Evidence",
    "metrics": "Metrics", "config": "Configs", "report": "Report", "errors": "Errors",
    "tensors": "Types of arguments",
}  # fmt: skip
"""Package of a public name → its heading, in the order of the page."""
SHOWN_AS = {
    "benchmarks/README.md": "figures.md",
    "saelens_steer/cli/steps.py": "reference/cli.md",
    "saelens_steer/config/run.py": "reference/config.md",
    "saelens_steer/__init__.pyi": "reference/python.md",
    "scripts/docs/releases.py": "reference/releases.md",
    **{
        f"notebooks/{path.stem}.ipynb": f"notebooks/{path.stem}.md"
        for path in (ROOT / "notebooks").glob("*.ipynb")
    },
}
"""File of the repository → the page that the site generates from it. Pages link to the file, which
exists wherever the repository is read."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
"""The file of a relative link."""
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\ssrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b[^>]*?rel=["']?(?:stylesheet|preconnect|preload|icon)["']?[^>]*?"""
    r"""href=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|@import[^;]*?((?:https?:)?//[^"'\s;)]+)"""
)
"""Addresses that a browser loads when it opens a page; plain links do not count."""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those in `docs/`."""
    figures = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    pages = {
        "reference/cli.md": cli_page(),
        "reference/config.md": config_page(),
        "reference/python.md": python_page(),
        "reference/releases.md": releases_page(),
        "figures.md": figures,
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files of the repository lead to the pages generated from them."""
    return links_of_site(markdown, page.file.src_uri)


def links_of_site(markdown: str, name: str) -> str:
    """The text of the page `name` in `docs/`, with its links as they are on the site."""
    folder = posixpath.dirname(name)

    def shown(link: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join("docs", folder, link[0]))
        found = SHOWN_AS.get(file)
        return link[0] if found is None else posixpath.relpath(found, folder or ".")

    return LINK.sub(shown, markdown)


def on_post_build(config: Any) -> None:
    """Refuse a site that loads anything from another host."""
    for page in sorted(Path(config.site_dir).rglob("*")):
        if page.suffix in (".html", ".css") and (found := external(page.read_text("utf-8"))):
            raise PluginError(f"{page} loads {found[0]}: the site must work without a network")


def external(text: str) -> list[str]:
    """The addresses on other hosts that a page or style sheet loads."""
    return ["".join(groups) for groups in LOADED.findall(text)]


def cli_page() -> str:
    """Every command with its arguments and options; options of most commands come first."""
    group: Any = typer.main.get_command(app)
    shown = {
        name: [(_label(p), p.help or "") for p in c.params] for name, c in group.commands.items()
    }
    counts = Counter(both for params in shown.values() for both in params)
    shared = {both for both, n in counts.items() if 2 * n > len(shown)}
    lines = [
        "# Command line\n",
        "The last line that a command prints on stdout is the path of its output. The exit status "
        "is 0 if it is done, 2 for bad input (with one sentence on stderr) and 1 for anything "
        "else.\n",
        "Most commands accept:\n",
        *(_defined(both) for both in counts if both in shared),
    ]
    for name, command in group.commands.items():
        usage = [label if label[0] != "-" else f"[{label}]" for label, _ in shown[name]]
        lines += [f"## {name}\n", f"{command.help}\n", "```text"]
        lines += [" ".join(["saelens-steer", name, *usage]), "```\n"]
        lines += [_defined(both) for both in shown[name] if both not in shared]
    return "\n".join(lines)


def _defined(term: tuple[str, str]) -> str:
    return f"`{term[0]}`\n" + (f"\n:   {term[1]}\n" if term[1] else "")


def _label(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    return ", ".join(parameter.opts) + value


def python_page() -> str:
    """The public names, grouped by package; mkdocstrings writes their entries."""
    stub = ast.parse((ROOT / "saelens_steer" / "__init__.pyi").read_text(encoding="utf-8"))
    names: dict[str, list[str]] = defaultdict(list)
    for node in stub.body:
        if isinstance(node, ast.ImportFrom) and node.module != "version":
            names[str(node.module).split(".")[0]] += [alias.name for alias in node.names]
    lines = ["# Python\n", "```python\nimport saelens_steer as ss\n```\n"]
    for package in sorted(names, key=[*GROUPS, *names].index):
        lines.append(f"## {GROUPS.get(package, package)}\n")
        lines += [_entry(package, name) for name in names[package]]
    return "\n".join(lines)


def _entry(package: str, name: str) -> str:
    """The entry of a function, class or type alias, under the module that defines it."""
    public: Any = getattr(saelens_steer, name)
    if isinstance(public, UnionType):
        return f"::: saelens_steer.{package}.{name}\n"
    entry = f"::: {public.__module__}.{public.__qualname__}\n"
    if public in spec_places():
        return f"{entry}    options: {{members: false}}\n\nFields: [Config](config.md).\n"
    return entry
