"""What decides a function's answer is in its digest: two that may differ never share rows."""

from __future__ import annotations

import functools
import importlib
import math
import os
import re
import sys
import types
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from saelens_steer.metrics import metrics_version
from saelens_steer.metrics.fingerprint import UnknownContentError, fingerprint

SCALE = 2.0
"""Read by the metrics below."""


@dataclass(frozen=True)
class Frozen:
    by: float

    def __call__(self, logits):
        return self.by * logits[:, 0]


class Mutable:
    by = 1.0

    def __call__(self, logits):
        return self.by * logits[:, 0]


def defined(source: str, name: str = "f", **known):
    """The function that a notebook cell would define, in a namespace with these values."""
    space = {"__name__": "__main__", "np": np, "torch": torch, "math": math, **known}
    exec(compile(source, "<cell>", "exec"), space)
    return space[name]


def maker(scale):
    return lambda logits: scale * logits[:, 0]


def with_default(value):
    return defined("def f(logits, by=value): return by * logits[:, 0]", value=value)


def with_keyword(value):
    return defined("def f(logits, *, by=value): return by * logits[:, 0]", value=value)


def reading(value):
    return defined("def f(logits): return (logits[:, 0] * table).sum()", table=value)


def through_helper(helper):
    return defined(f"{helper}\ndef f(logits): return g(logits)")


def through_two(inner):
    return defined(f"{inner}\ndef g(x): return h(x)\ndef f(logits): return g(logits)")


def with_column(name):
    function = defined("def f(text): return {'a': 1.0}")
    function.columns = (name,)
    return function


def nested(body):
    return defined(f"def f(logits):\n    pick = lambda x: {body}\n    return pick(logits)")


def bound(value):
    return functools.partial(defined("def f(logits, by): return by * logits[:, 0]"), by=value)


def decorated(body):
    return torch.no_grad()(defined(f"def f(logits): return {body}"))


def cached(body):
    source = f"@cache\ndef g(): return {body}\ndef f(logits): return g() + logits[:, 0]"
    return defined(source, cache=functools.cache)


def of_class(body):
    source = f"class A:\n    def g(self): return {body}\ndef f(logits): return A().g()"
    return defined(source)


def of_enum(body, mixin=""):
    source = f"class A({mixin}Enum):\n    ONE = 1\n    def g(self): return {body}\n"
    return defined(f"{source}def f(text): return A.ONE.g()", Enum=Enum)


def inheriting_enum(body):
    source = f"class B(Enum):\n    def g(self): return {body}\nclass A(B):\n    ONE = 1\n"
    return defined(f"{source}def f(text): return A.ONE.g()", Enum=Enum)


def computed(table):
    """A frozen object that holds more than its fields."""
    held = Frozen(1.0)
    object.__setattr__(held, "table", table)
    return held


def fields(first, second):
    return np.zeros(1, dtype=[(first, "f4"), (second, "f4")])


PAIRS = {
    "a closure": (maker(1.0), maker(2.0)),
    "a closure's type": (maker(1), maker(True)),
    "an array in a closure": (maker(np.ones(2)), maker(np.zeros(2))),
    "a tensor's dtype": (maker(torch.ones(2)), maker(torch.ones(2).double())),
    "a tensor's shape": (maker(torch.ones(2, 1)), maker(torch.ones(1, 2))),
    "a default": (with_default(1.0), with_default(2.0)),
    "a keyword's default": (with_keyword(1.0), with_keyword(2.0)),
    "a global list": (reading([1, 2]), reading([2, 1])),
    "a global mapping": (reading({"a": 1}), reading({"a": 2})),
    "a nested global": (reading({"a": [1, (2, {3})]}), reading({"a": [1, (2, {4})]})),
    "a pattern's flags": (reading(re.compile("a")), reading(re.compile("a", re.I))),
    "a frozen dataclass": (reading(Frozen(1.0)), reading(Frozen(2.0))),
    "an object that is called": (Frozen(1.0), Frozen(2.0)),
    "a constant": (nested("x[:, 0]"), nested("x[:, 1]")),
    "an operator": (nested("x[:, 0] + 1"), nested("x[:, 0] - 1")),
    "an attribute's name": (nested("x.amax(1)"), nested("x.amin(1)")),
    "a helper": (
        through_helper("def g(x): return x[:, 0]"),
        through_helper("def g(x): return x[:, 1]"),
    ),
    "a helper's helper": (
        through_two("def h(x): return x[:, 0]"),
        through_two("def h(x): return -x[:, 0]"),
    ),
    "a partial's argument": (bound(1.0), bound(2.0)),
    "under a decorator": (decorated("logits[:, 0]"), decorated("logits[:, 1]")),
    "in a cached function": (cached("1.0"), cached("2.0")),
    "a class's method": (of_class("1.0"), of_class("2.0")),
    "a function of a package": (reading(np.mean), reading(np.median)),
    "a builtin": (reading(math.sin), reading(math.cos)),
    "a method of an Enum": (of_enum("1.0"), of_enum("2.0")),
    "a member of an Enum": (of_enum("1.0"), of_enum("1.0", "int, ")),
    "an inherited method of an Enum": (inheriting_enum("1.0"), inheriting_enum("2.0")),
    "what a frozen object computed": (reading(computed([1])), reading(computed([2]))),
    "a conjugate": (maker(torch.tensor([1j])), maker(torch.tensor([1j]).conj())),
    "a negated view": (maker(torch.tensor([1j]).imag), maker(torch.tensor([1j]).conj().imag)),
    "the fields of an array": (maker(fields("a", "b")), maker(fields("b", "a"))),
    "its columns": (with_column("a"), with_column("b")),
}


@pytest.mark.parametrize("what", PAIRS)
def test_functions_that_differ_have_different_digests(what):
    one, other = PAIRS[what]
    assert fingerprint(one) != fingerprint(other)


SAME = {
    "a closure": lambda: maker(1.0),
    "an array": lambda: maker(np.arange(5)),
    "a slice of one": lambda: maker(torch.arange(4.0)[1::4]),
    "a column": lambda: maker(torch.arange(6.0).reshape(2, 3)[:, 1]),
    "a number as a tensor": lambda: maker(torch.arange(6, dtype=torch.bfloat16)[3]),
    "an empty tensor": lambda: maker(torch.empty(0, 2)),
    "an Enum": lambda: of_enum("self.value", "str, "),
    "a default": lambda: with_default((1, "a")),
    "a global": lambda: reading({"a": [1, (2, {3, "x", None})], "b": Frozen(1.0)}),
    "a helper": lambda: through_two("def h(x): return np.log(2) + math.pi * torch.exp(x)"),
    "a nested lambda": lambda: nested("torch.nn.functional.softmax(x, -1)"),
    "a partial": lambda: bound(1.0),
    "a decorated one": lambda: decorated("logits[:, 0]"),
    "a cached one": lambda: cached("1.0"),
    "a class": lambda: of_class("1.0"),
    "one that calls itself": lambda: defined("def f(logits, n=2): return f(logits, n - 1)"),
}


@pytest.mark.parametrize("what", SAME)
def test_the_same_text_defined_twice_has_one_digest(what):
    assert fingerprint(SAME[what]()) == fingerprint(SAME[what]())


def test_a_line_above_or_another_name_changes_nothing():
    one = defined("def f(logits): return logits[:, 0]")
    lower = defined("\n\nother = 3\ndef h(logits): return logits[:, 0]", "h")
    assert fingerprint(one) == fingerprint(lower)


@pytest.mark.parametrize("table", [np.zeros(3), torch.zeros(3), [0, 0, 0], {0: 0}])
def test_a_value_edited_in_place_is_another_one(table):
    function = reading(table)
    before = fingerprint(function)
    table[0] = 1
    assert fingerprint(function) != before


DOCUMENTED = [
    "def f(text):\n    {}\n    return len(text)",
    "def f(text):\n    def g(x):\n        {}\n        return 'b'\n    return g(text)",
    "class A:\n    def g(self):\n        {}\n        return 1\ndef f(text): return A().g()",
]


@pytest.mark.parametrize("source", DOCUMENTED)
def test_a_docstring_decides_nothing_unless_the_code_returns_it(source):
    digests = {fingerprint(defined(source.format(doc))) for doc in ("", "'One.'", "'Another.'")}
    assert len(digests) == 1
    returned = [f"def f(text):\n    '{one}'\n    return '{one}'" for one in "ab"]
    assert fingerprint(defined(returned[0])) != fingerprint(defined(returned[1]))


def test_an_error_while_reading_a_closure_is_not_taken_for_an_empty_one(monkeypatch):
    def broken(*_):
        raise ValueError("broken")

    function = maker(np.ones(2))
    monkeypatch.setattr("saelens_steer.metrics.fingerprint.DESCRIBED", ((object, broken),))
    with pytest.raises(ValueError, match="broken"):
        fingerprint(function)


UNKNOWN = {
    "the attribute of an object": (reading(Mutable()), "table, a Mutable"),
    "an object that is called": (Mutable(), "the metric, a Mutable"),
    "a method of one": (Mutable().__call__, "the object that __call__ belongs to, a Mutable"),
    "an iterator": (reading(iter([1])), "table, a list_iterator"),
    "a file": (defined("def f(text): return len(open('a').read())"), "the result of open"),
    "a file by its path": (
        defined("def f(text): return Path('a').read_text()", Path=Path),
        "the result of read_text",
    ),
    "a file of arrays": (defined("def f(logits): return np.load('a.npy')"), "the result of load"),
    "a file, in a cached helper": (
        defined(
            "@cache\ndef g(): return Path('a').open()\ndef f(text): return g()",
            cache=functools.cache,
            Path=Path,
        ),
        "the result of open",
    ),
    "the environment": (
        defined("def f(text):\n    import os\n    return os.environ['A']"),
        "environ",
    ),
    "a variable": (
        defined("def f(text): return getenv('A')", getenv=os.getenv),
        "the result of getenv",
    ),
    "a builtin by another name": (reading(eval), "the result of eval"),
    "a checkpoint": (
        defined("def f(text): return Model.from_pretrained('a')", Model=Frozen),
        "the result of from_pretrained",
    ),
    "a tensor without data": (maker(torch.empty(2, device="meta")), "scale in <lambda>, a Tensor"),
    "a name that is not there": (
        defined("def f(text): return missing"),
        "missing, which is not defined",
    ),
    "a random generator": (reading(np.random.default_rng(0)), "table, a Generator"),
    "through a helper": (
        defined("def g(x): return table(x)\ndef f(logits): return g(logits)", table=Mutable()),
        "table, a Mutable",
    ),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_cannot_be_compared_is_unknown_and_named(what):
    function, named = UNKNOWN[what]
    with pytest.raises(UnknownContentError, match=re.escape(named)):
        fingerprint(function)


def test_an_unknown_metric_never_shares_with_another_run(capsys):
    metric = {"of_an_object": reading(Mutable())}
    versions = [metrics_version(metric, run) for run in ("one", "two", "two")]
    assert versions[0] != versions[1]
    assert versions[1] == versions[2]
    said = capsys.readouterr().err
    assert said.count("'of_an_object' reads table, a Mutable") == 1
    assert metrics_version([Frozen(1.0)], "one") == metrics_version([Frozen(1.0)], "two")


def test_one_function_under_two_names_does_not_share_rows():
    function = maker(1.0)
    assert metrics_version({"a": function}, "run") != metrics_version({"b": function}, "run")


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Writes and imports own_helpers.py anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(source: str) -> types.ModuleType:
        (tmp_path / "own_helpers.py").write_text(source)
        sys.modules.pop("own_helpers", None)
        importlib.invalidate_caches()
        return importlib.import_module("own_helpers")

    yield written
    sys.modules.pop("own_helpers", None)


WAYS = [
    "def f(logits): return helpers.g(logits)",
    "def f(logits):\n    import own_helpers\n    return own_helpers.g(logits)",
    "def f(logits):\n    from own_helpers import g\n    return g(logits)",
    "def f(logits): return getattr(helpers, 'g')(logits)",
]


@pytest.mark.parametrize("source", WAYS)
def test_a_module_of_ones_own_counts_by_its_content(own_module, source):
    versions = []
    for factor in (1, 2, 1):
        helpers = own_module(f"TABLE = [1]\ndef g(x): return {factor} * x[:, 0] * TABLE[0]\n")
        versions.append(fingerprint(defined(source, helpers=helpers)))
    assert versions[0] == versions[2] != versions[1]


def test_a_value_of_ones_own_module_counts_as_it_is_now(own_module):
    helpers = own_module("TABLE = [1]\ndef g(x): return x[:, 0] * TABLE[0]\n")
    function = defined("def f(logits): return helpers.g(logits)", helpers=helpers)
    before = fingerprint(function)
    helpers.TABLE[0] = 2
    assert fingerprint(function) != before


def test_two_functions_that_read_different_values_of_one_module_are_both_followed(own_module):
    source = "def g(x): return helpers.A * x\ndef f(logits): return g(logits) * helpers.B"
    helpers = own_module("A = [1]\nB = [1]\n")
    function = defined(source, helpers=helpers)
    found = [fingerprint(function)]
    for table in (helpers.A, helpers.B):
        table[0] = 2
        found.append(fingerprint(function))
    assert len(set(found)) == 3


def test_a_module_put_among_the_packages_by_hand_counts_by_its_content(tmp_path, monkeypatch):
    place = tmp_path / "site-packages"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    digests = []
    for number in (1, 2):
        (place / "put_by_hand.py").write_text(f"def g(x): return {number}\n" + "#" * number)
        monkeypatch.delitem(sys.modules, "put_by_hand", raising=False)
        importlib.invalidate_caches()
        helpers = importlib.import_module("put_by_hand")
        digests.append(fingerprint(defined("def f(text): return helpers.g(text)", helpers=helpers)))
    monkeypatch.delitem(sys.modules, "put_by_hand")
    assert digests[0] != digests[1]
