"""The names that TransformerLens and SAELens know, read without importing them.

Importing either takes more than five seconds, and a wrong name should be refused at once.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import yaml

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
"""Matches `owner/name`, a repository on the hub."""


class Release(NamedTuple):
    """A release of SAELens's directory: its repository on the hub, and its SAEs."""

    repository: str
    saes: Mapping[str, str]
    """sae_id → its folder in the repository."""


def _folder(package: str) -> Path:
    """Where a package is installed."""
    found = find_spec(package)
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


@cache
def model_names() -> dict[str, str]:
    """Every name of a model in lower case → its id on the hub, as TransformerLens maps them."""
    text = (_folder("transformer_lens") / "supported_models.py").read_text(encoding="utf-8")
    tables: dict[str, object] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.List | ast.Dict):
            tables[ast.unparse(node.target)] = ast.literal_eval(node.value)
    official, aliases = tables["OFFICIAL_MODEL_NAMES"], tables["MODEL_ALIASES"]
    assert isinstance(official, list) and isinstance(aliases, dict)
    names = {alias.lower(): name for name in official for alias in aliases.get(name, [])}
    return names | {name.lower(): name for name in official}


@cache
def sae_releases() -> dict[str, Release]:
    """SAELens's directory of pretrained SAEs."""
    text = (_folder("sae_lens") / "pretrained_saes.yaml").read_text(encoding="utf-8")
    data = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        name: Release(one["repo_id"], {str(sae["id"]): str(sae["path"]) for sae in one["saes"]})
        for name, one in data.items()
    }


def training_architectures() -> dict[str, frozenset[str]]:
    """SAELens's training architectures → the fields of each one's config."""
    if registry := sys.modules.get("sae_lens.registry"):  # with those that the user has added
        known = registry.SAE_TRAINING_CLASS_REGISTRY
        return {name: frozenset(one[1].__dataclass_fields__) for name, one in known.items()}
    return _written_architectures()


@cache
def _written_architectures() -> dict[str, frozenset[str]]:
    """`training_architectures` from SAELens's source code."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in _sources()]
    classes = {n.name: n for tree in trees for n in tree.body if isinstance(n, ast.ClassDef)}
    calls = [n.value for tree in trees for n in tree.body if isinstance(n, ast.Expr)]
    return {
        ast.literal_eval(call.args[0]): frozenset(_fields(call.args[2].id, classes))
        for call in calls
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") == "register_sae_training_class"
        and isinstance(call.args[2], ast.Name)
    }


def _sources() -> list[Path]:
    folder = _folder("sae_lens")
    return [folder / "__init__.py", *sorted((folder / "saes").glob("*.py"))]


def _fields(name: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    """The annotated fields of a dataclass and its bases."""
    if (found := classes.get(name)) is None:
        return
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
    for base in found.bases:
        yield from _fields(getattr(base, "id", ""), classes)
