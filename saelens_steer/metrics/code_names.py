"""What the code of a function names, and which names stand for something outside the program."""

from __future__ import annotations

import dis
import types

HIDDEN = frozenset({"globals", "eval", "exec", "compile", "open", "input", "__import__"})
"""Builtins that read what the code does not name."""
OUTSIDE = frozenset({
    "open", "read_text", "read_bytes", "iterdir", "listdir", "environ", "getenv", "urlopen",
    "load", "load_file", "safe_open", "from_pretrained", "load_dataset", "import_module",
    "fromfile", "loadtxt", "genfromtxt", "memmap",
    "read_csv", "read_json", "read_parquet", "read_table", "read_excel", "read_pickle",
})  # fmt: skip
"""Functions and methods of packages that read files, the environment or the network."""


class CodeNames:
    """The names that code reads, that of nested functions included."""

    def __init__(self, code: types.CodeType) -> None:
        self.globals, self.attributes, self.imports = set[str](), set[str](), set[str]()
        self._add(code)

    def _add(self, code: types.CodeType) -> None:
        instructions = list(dis.get_instructions(code))
        for place, one in enumerate(instructions):
            if one.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                self.globals.add(one.argval)
            elif one.opname == "IMPORT_NAME":
                level = instructions[place - 2].argval  # 0: absolute; then the list of names
                self.imports.add("." * level + one.argval)
            elif "ATTR" in one.opname or one.opname in ("LOAD_METHOD", "IMPORT_FROM"):
                self.attributes.add(one.argval)
        for inner in (one for one in code.co_consts if isinstance(one, types.CodeType)):
            self._add(inner)


def is_loaded(code: types.CodeType, place: int) -> bool:
    """Whether an instruction loads the constant at that place; none loads a docstring."""
    found = dis.get_instructions(code)
    return any(one.opcode in dis.hasconst and one.arg == place for one in found)
