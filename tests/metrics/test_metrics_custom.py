"""Metrics that users write: which functions are taken, and how the others are refused."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import small_tokenizer

from saelens_steer.errors import InputError
from saelens_steer.metrics import metrics_version, resolve_metrics

TOKENIZER = small_tokenizer()
D_VOCAB = len(TOKENIZER) + 8
OWN = """
import torch

THRESHOLD = 3

def entropy(logits):
    p = logits.softmax(-1)
    return -(p * p.log()).sum(-1)

def moved(logits, baseline):
    return (logits - baseline).abs().mean(-1)

def tempered(logits, temperature=2.0):
    return (logits / temperature).amax(-1)

def as_list(logits):
    return [float(row.max()) for row in logits]

def one_number(logits):
    return logits.mean()

def a_column(logits):
    return logits[:, :1]

def not_numbers(logits):
    return ["a"] * len(logits)

def breaks(logits):
    raise KeyError("oops")

def polite(text):
    return "please" in text

def length(completion, truncated):
    return float("nan") if truncated else len(completion)

def shape(text):
    return {"words": len(text.split()), "lines": text.count("\\n")}

def first_letter(text):
    return {"vowel": text[0] in "aeiou"}
first_letter.columns = ("vowel",)

def fragile(text):
    return text[0] == "a"

def wordy(text):
    return "many"

def changing(text):
    return {"a": 1.0} if text else {"b": 2.0}

def nothing(text):
    return {}

def none_yet(text):
    return None

def kl(text):
    return 1.0

def alpha(text):
    return 1.0

def misnamed(words):
    return 1.0

def greedy(logits, baseline, more):
    return logits

def keyword(text, *, style):
    return 1.0

def no_parameters():
    return 1.0

class Scorer:
    def __call__(self, text):
        return 1.0

    @staticmethod
    def static(text):
        return 2.0

scorer = Scorer()
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """own_metrics.py in the working directory, which is not on sys.path."""
    (tmp_path / "own_metrics.py").write_text(OWN)
    (tmp_path / "broken_metrics.py").write_text("import no_such_module_here\n")
    (tmp_path / "json.py").write_text("def dumps(text):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    for name in ("own_metrics", "broken_metrics"):
        sys.modules.pop(name, None)


def resolve(*specs):
    return resolve_metrics(specs, TOKENIZER, D_VOCAB)


def own(name: str):
    return resolve(f"own_metrics:{name}")[0]


def refused(*specs, match: str) -> None:
    with pytest.raises(InputError, match=match):
        resolve(*specs)


def noise(seed: int, rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, D_VOCAB, generator=torch.Generator().manual_seed(seed))


def test_own_logit_metrics_take_logits_and_perhaps_the_baseline():
    a, b = noise(0), noise(1)
    assert own("entropy").name == "entropy"
    assert own("entropy").fn(a, baseline=b).shape == (4,)
    torch.testing.assert_close(own("moved").fn(a, baseline=b), (a - b).abs().mean(-1))
    torch.testing.assert_close(own("tempered").fn(a, baseline=b), (a / 2).amax(-1))
    torch.testing.assert_close(own("as_list").fn(a, baseline=b), a.amax(-1))


def test_own_text_metrics_return_a_number_or_a_mapping():
    polite = own("polite")
    assert (polite.name, polite.columns) == ("polite", ("polite",))
    assert polite.fn("please", False) == {"polite": 1.0}
    assert own("length").fn("abc", False) == {"length": 3.0}
    assert math.isnan(own("length").fn("abc", True)["length"])
    assert own("shape").columns == ("words", "lines")
    assert own("shape").fn("a b\nc", False) == {"words": 3.0, "lines": 1.0}
    assert math.isnan(own("none_yet").fn("x", False)["none_yet"])


def test_declared_columns_spare_the_trial():
    metric = own("first_letter")
    assert metric.columns == ("vowel",)
    assert metric.fn("apple", False) == {"vowel": 1.0}


def test_methods_and_callable_objects_are_functions_too():
    assert own("scorer").fn("x", False) == {"scorer": 1.0}
    assert own("Scorer.static").fn("x", False) == {"static": 2.0}


def test_sys_path_is_as_before_and_nothing_installed_is_shadowed(tmp_path):
    before = list(sys.path)
    own("polite")
    assert sys.path == before
    refused("json:dumps", match=r"takes \(obj, ")


def test_wrong_shapes_are_refused_before_any_work():
    refused("own_metrics:one_number", match=r"one number per row, shape \[3\], not \[\]")
    refused("own_metrics:a_column", match=r"not \[3, 1\]")
    refused("own_metrics:not_numbers", match="must return a tensor of numbers, not list")
    refused("own_metrics:wordy", match="must return numbers, not str")


def test_a_function_that_fails_its_trial_is_told_why():
    refused("own_metrics:breaks", match=r"failed on logits of shape .*: KeyError: 'oops'")
    refused("own_metrics:fragile", match="failed on an empty completion: IndexError")


def test_columns_must_be_known_and_stay_the_same():
    refused("own_metrics:nothing", match="must name its columns")
    refused("own_metrics:changing", match=r"returned the columns \['a'\], not \['b'\]")


@pytest.mark.parametrize("name", ["misnamed", "greedy", "keyword", "no_parameters"])
def test_other_signatures_are_refused_with_those_allowed(name):
    refused(f"own_metrics:{name}", match=r"must be \(logits\), \(logits, baseline\), \(text\)")


def test_what_cannot_be_imported_is_told():
    refused("no_such_module_xyz:f", match="cannot import 'no_such_module_xyz'")
    refused("broken_metrics:f", match="ModuleNotFoundError: No module named 'no_such_module_here'")
    refused("own_metrics:entropi", match="no 'entropi' there; did you mean 'entropy'")
    refused("own_metrics:THRESHOLD", match="is a int, not a function")
    refused("own_metrics:", match="no '' there")
    refused(":entropy", match="cannot import ''")


def test_own_metrics_may_not_take_a_column_that_exists():
    refused("own_metrics:kl", match="metric 'kl' has the name of a built-in one: give another name")
    refused("own_metrics:alpha", match="cannot be called 'alpha'")


def test_an_edited_metric_is_the_one_that_is_used_and_has_another_version(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "def mine(logits):\n    return logits[:, 0] * 0 + {}\n"
    seen = []
    for value in (1, 22):
        path = tmp_path / "edited_metric.py"
        path.write_text(source.format(value))
        os.utime(path, ns=(value * 10**9, value * 10**9))
        spec = "edited_metric:mine"
        (metric,) = resolve_metrics([spec], TOKENIZER, D_VOCAB)
        logits = torch.zeros(1, D_VOCAB)
        seen.append((float(metric.fn(logits, baseline=logits)), metrics_version([spec], "run")))
    assert [value for value, _ in seen] == [1, 22]
    assert seen[0][1] != seen[1][1]


@pytest.mark.parametrize(
    "metric", ["own_metrics:kl", {"margin": {"name": "latex_first", "target": "latex_delimiters"}}]
)
def test_only_a_shipped_metric_has_its_name(metric):
    with pytest.raises(InputError, match="has the name of a built-in one"):
        resolve(metric)
