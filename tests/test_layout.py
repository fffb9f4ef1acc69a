"""Laws of the layout: names mean one thing, and no file is too long to read."""

import ast
import re
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "saelens_steer"
LONGEST = 300


def types_in(path: Path) -> list[str]:
    """Classes and capitalised type aliases at the top of a module."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
    targets = [node.targets[0] for node in body if isinstance(node, ast.Assign)]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    named = [target.id for target in targets if isinstance(target, ast.Name)]
    return classes + [name for name in named if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name)]


def test_no_class_or_type_has_the_name_of_another():
    homes = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for name in types_in(path):
            homes[name].add(path.name)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_no_file_is_longer_than_a_reader_holds_in_the_head():
    long = [p for p in PACKAGE.rglob("*.py") if len(p.read_text("utf-8").splitlines()) > LONGEST]
    assert long == []


def test_the_map_names_every_module():
    """CONTRIBUTING's table has each package and, by name or by `*`, most of what is in it."""
    table = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert {name for name in packages if f"`{name}/`" not in table} == set()
