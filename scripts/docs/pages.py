"""MkDocs hook: the references of commands, config and Python, and a check of the built site."""

import ast
import inspect
import itertools
import re
from collections import defaultdict
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import yaml
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from saelens_steer.cli import app
from saelens_steer.config import RunSpec

ROOT = Path(__file__).parents[2]
PLAIN = {NoneType: "null", bool: "true or false", int: "integer", float: "number", str: "text"}
GROUPS = {
    "model": "Models", "data": "Prompts", "activations": "Activations", "sae": "SAEs",
    "features": "Features", "steering": "Steering", "sweeps": "Sweeps",
    "pipeline": "Studies and runs", "directions": "Directions", "evidence": "Evidence",
    "metrics": "Metrics", "config": "Configs", "report": "Report", "errors": "Errors",
}  # fmt: skip
"""The package a public name comes from → its heading, in the order of the page."""
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\ssrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b[^>]*?rel=["']?(?:stylesheet|preconnect|preload|icon)["']?[^>]*?"""
    r"""href=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|@import[^;]*?((?:https?:)?//[^"'\s;)]+)"""
)
"""What a browser fetches from another host when it opens a page; plain links are not."""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those in `docs/`."""
    figures = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    pages = {
        "reference/cli.md": cli_page(),
        "reference/config.md": config_page(),
        "reference/python.md": python_page(),
        "figures.md": figures,
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_post_build(config: Any) -> None:
    """Refuse a site that loads anything from another host."""
    for page in sorted(Path(config.site_dir).rglob("*")):
        if page.suffix in (".html", ".css") and (found := external(page.read_text("utf-8"))):
            raise PluginError(f"{page} loads {found[0]}: the site must work without a network")


def external(text: str) -> list[str]:
    """The addresses on other hosts that a page or style sheet loads."""
    return ["".join(groups) for groups in LOADED.findall(text)]


def cli_page() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Command line\n",
        "The last line a command prints is the path of what it made. Exit status: 0 done, "
        "2 bad input (one sentence on stderr), 1 anything else.\n",
    ]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        shown = [(_label(p), p) for p in command.params]
        usage = [label for label, p in shown if p.param_type_name == "argument"]
        lines += [f"## {name}\n", f"{command.help}\n", "```text"]
        lines += [" ".join(["saelens-steer", name, *usage, "[OPTIONS]"]), "```\n"]
        for label, p in shown:
            lines += [f"`{label}`\n", *([f":   {p.help}\n"] if p.help else [])]
    return "\n".join(lines)


def _label(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    return ", ".join(parameter.opts) + value


def config_page() -> str:
    """Every section of a config with its keys, types, defaults and meanings."""
    lines = [
        "# Config\n",
        "A config states only what differs from these defaults. They describe the tiny run: for "
        "another model, `hook_name`, `sae`, `prompts.source`, `select.prompts`, `metrics` and, if you "
        "train, `sae.train.corpus` must be stated. Unknown keys are refused.\n",
    ]
    places = _places()
    for spec in sorted(places, key=lambda s: _order(places[s])):
        if len(spec.model_fields) == 1:  # `{margin: …}`: its only key has a section
            continue
        lines += [f"## {places[spec] or 'Sections'}\n", f"{inspect.cleandoc(spec.__doc__ or '')}\n"]
        docs = _field_docs(spec)
        for name, field in spec.model_fields.items():
            head = f"`{field.alias or name}` · {_type(field.annotation, places)}{_default(field)}"
            lines += [f"{head}\n", *([f":   {docs[name]}\n"] if name in docs else [])]
    return "\n".join(lines)


def _places() -> dict[type[BaseModel], str]:
    """Each spec and the dotted key under which a config first mentions it."""
    places: dict[type[BaseModel], str] = {RunSpec: ""}
    for spec in (waiting := [RunSpec]):  # grows while it is read
        for name, field in spec.model_fields.items():
            key = f"{places[spec]}.{field.alias or name}".lstrip(".")
            new = [inner for inner in _specs_in(field.annotation) if inner not in places]
            places |= dict.fromkeys(new, key)
            waiting += new
    return places


def _order(place: str) -> tuple[int, str]:
    section = place.split(".")[0]
    known = list(RunSpec.model_fields)
    return (known.index(section) if section in known else -1), place


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs_in(part)]


def _field_docs(spec: type[BaseModel]) -> dict[str, str]:
    """Field → the string below it, of the class and of those it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(spec.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            body = ast.parse(inspect.getsource(base)).body[0].body  # pyright: ignore
            for field, below in itertools.pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    found[ast.unparse(field.target)] = inspect.cleandoc(
                        ast.literal_eval(below.value)
                    )
    return {name: text.replace("\n", "\n    ") for name, text in found.items()}


def _type(annotation: Any, places: dict[type[BaseModel], str]) -> str:
    """A type in words, with links to the sections it mentions."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in places and len(annotation.model_fields) == 1:
        ((name, field),) = annotation.model_fields.items()
        return f"`{name}:` {_type(field.annotation, places)}"
    if annotation in places:
        return f"[{places[annotation]}](#{re.sub(r'[^a-z_]', '', places[annotation])})"
    if annotation in PLAIN:
        return PLAIN[annotation]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin is Annotated:
        return _type(args[0], places)
    if origin is tuple:
        return f"list of {_type(args[0], places)}"
    if origin is dict:
        return f"mapping of names to {_type(args[1], places)}"
    return " or ".join(dict.fromkeys(_type(arg, places) for arg in args)) or "anything"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ", required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    text = yaml.safe_dump(_given(to_jsonable_python(value)), default_flow_style=True, width=9999)
    return f", default `{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def _given(value: Any) -> Any:
    """The value without keys that are null."""
    if isinstance(value, dict):
        return {k: _given(v) for k, v in value.items() if v is not None}
    return [_given(v) for v in value] if isinstance(value, list) else value


def python_page() -> str:
    """The public names, by the package they come from; mkdocstrings writes their entries."""
    stub = ast.parse((ROOT / "saelens_steer" / "__init__.pyi").read_text(encoding="utf-8"))
    names: dict[str, list[str]] = defaultdict(list)
    for node in stub.body:
        if isinstance(node, ast.ImportFrom) and node.module != "version":
            names[str(node.module).split(".")[0]] += [alias.name for alias in node.names]
    lines = ["# Python\n", "```python\nimport saelens_steer as ss\n```\n"]
    for package in sorted(names, key=[*GROUPS, *names].index):
        lines.append(f"## {GROUPS.get(package, package)}\n")
        lines += [f"::: saelens_steer.{name}\n" for name in names[package]]
    return "\n".join(lines)
