"""Laws of the public API: its arguments are the specs' fields, and its types are all named."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from saes import random_sae

import saelens_steer as ss
from saelens_steer.config import (
    CompareEditsSettings,
    FeaturesSpec,
    LabelSpec,
    SelectSpec,
    SweepSpec,
)
from saelens_steer.config.inputs import ActivationSpec, TemplateSpec
from saelens_steer.data import PromptLike
from saelens_steer.tensors import as_vectors

HELD = {
    # executor, cache_logits and top are about runs; directions are given as vectors
    "sweep": (SweepSpec, {"executor", "cache_logits", "directions", "top"}),
    "compare_edits": (CompareEditsSettings, set()),
    # the function's own prompts are the steered ones
    "label_features": (LabelSpec, {"prompts"}),
    # features names all that are shown; topic is given as activations
    "feature_pages": (FeaturesSpec, {"also", "topic"}),
    # the selection says how it was made
    "rank_features": (
        SelectSpec,
        {"prompts", "positive", "negative", "reference", "at", "pool", "answer_tokens", "chat"},
    ),
    # from activations that are there
    "select_features": (
        SelectSpec,
        {"prompts", "shortlist", "push", "push_prompts", "answer_tokens", "chat"},
    ),
    "cache_activations": (ActivationSpec, set()),
}
OTHER_DEFAULT = {
    ("sweep", "features"),  # None instead of "candidates": a call has none
    ("sweep", "edit"),  # the name of the default edit
    ("rank_features", "score"),  # causal scores alone
    ("select_features", "positive"),  # required in a call
    ("select_features", "negative"),
}
OTHER_TYPE = {
    ("sweep", "features"),
    ("sweep", "edit"),  # a name, checked by the spec
    ("rank_features", "score"),
    ("select_features", "score"),
}
FUNCTIONS = [name for name in ss.__all__ if inspect.isfunction(getattr(ss, name))]


def plain(annotation: Any) -> frozenset[str]:
    """The members of a type as a set of texts; a tuple counts as a sequence, a dict as a
    mapping, an int as a float."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return plain(inner[0])
    if origin in (typing.Union, types.UnionType):
        members = frozenset().union(*map(plain, inner))
        members -= {"collections.abc.Mapping[str, object]"}  # a spec may be given as one
        return members - {"<class 'int'>"} if "<class 'float'>" in members else members
    if origin is Literal:
        return frozenset(map(repr, inner))
    if origin in (tuple, Sequence):
        return frozenset({f"list of {sorted(plain(inner[0]))}"})
    if origin is dict:
        return frozenset({str(Mapping[inner])})
    return frozenset({str(annotation)})


@pytest.mark.parametrize("name", HELD)
def test_arguments_are_the_fields_of_the_spec(name):
    spec, left_out = HELD[name]
    arguments = inspect.signature(getattr(ss, name)).parameters
    hints = typing.get_type_hints(getattr(ss, name))
    assert set(spec.model_fields) - set(arguments) == left_out - set(arguments)
    for field, about in spec.model_fields.items():
        if field in left_out:
            continue
        if (name, field) not in OTHER_DEFAULT:
            assert arguments[field].default == about.get_default(), field
        if (name, field) not in OTHER_TYPE:
            wanted = typing.get_type_hints(spec)[field]
            assert plain(hints[field]) == plain(wanted), field


READING = (
    *("sweep", "compare_edits", "generate", "suggest_alpha"),
    *("label_features", "rank_features", "cache_activations"),
)


@pytest.mark.parametrize("name", READING)
def test_how_prompts_are_read_has_the_names_types_and_defaults_of_the_config(name):
    arguments = inspect.signature(getattr(ss, name)).parameters
    hints, fields = typing.get_type_hints(getattr(ss, name)), TemplateSpec.model_fields
    wanted = typing.get_type_hints(TemplateSpec)
    for key, about in fields.items():
        assert arguments[key].default == about.get_default()
        assert hints[key] == wanted[key]
    assert hints["prompts"] == Sequence[PromptLike]


def test_no_public_function_collects_arguments_it_does_not_name():
    for name in FUNCTIONS:
        kinds = {p.kind for p in inspect.signature(getattr(ss, name)).parameters.values()}
        assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}, name


@pytest.mark.slow
def test_pyright_finds_no_any_among_the_arguments_of_a_public_call(tmp_path):
    calls = [name for name in ss.__all__ if callable(getattr(ss, name))]
    script = tmp_path / "script.py"
    lines = ["import saelens_steer as ss", *(f"reveal_type(ss.{name})" for name in calls)]
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    package = str(Path(ss.__file__).parents[1])
    config = {"include": ["script.py"], "extraPaths": [package], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    command = ["pyright", "--outputjson", "--pythonpath", sys.executable]
    command = [sys.executable, "-m", *command, "--project", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    said = [d["message"] for d in json.loads(done.stdout)["generalDiagnostics"]]
    assert len(said) == len(calls)
    for line in said:
        arguments, _, _ = line.rpartition(" -> ")
        for theirs in ("SAE[Any]", "ndarray[tuple[Any, ...], dtype[Any]]"):  # others' generics
            arguments = arguments.replace(theirs, "")
        assert "Any" not in arguments and "Unknown" not in arguments, line


def test_every_public_function_says_what_each_argument_is():
    for name in FUNCTIONS:
        for key, declared in inspect.signature(getattr(ss, name)).parameters.items():
            assert declared.annotation is not inspect.Parameter.empty, (name, key)


ENTRIES = ("margin", "log_prob")
"""Their results are entries for metrics=[…], which no user names by type."""


def test_help_on_a_spec_says_what_its_fields_mean():
    about, _, fields = (inspect.getdoc(ss.SweepSpec) or "").partition("Fields:")
    assert about.startswith("Directions × strengths")
    for name in ss.SweepSpec.model_fields:
        assert f"\n{name}\n" in f"{fields}\n"
    assert "\nn_controls\n    K, the number of controls per family, or a mapping" in fields


def test_own_types_that_a_user_receives_are_public():
    source = Path(ss.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    names = {
        a.name
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.ImportFrom)
        for a in n.names
    }
    for name in FUNCTIONS:
        returned = typing.get_type_hints(getattr(ss, name))["return"]
        for one in (returned, *get_args(returned)):
            home = getattr(one, "__module__", "")
            if home.startswith("saelens_steer") and name not in ENTRIES:
                assert one.__name__ in names, name


# --- at the door


TYPES = ["float64", "bfloat16", "float16", "float32", "float8_e4m3fn", "int64", "int8", "uint8"]


@pytest.mark.parametrize("dtype", TYPES)
def test_vectors_of_any_real_type_become_float32(dtype):
    given = torch.tensor([1, 2, 8]).to(getattr(torch, dtype))
    assert torch.equal(as_vectors("v", given, 3), torch.tensor([[1.0, 2.0, 8.0]]))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "g", "i8", "u1"])
def test_numpy_vectors_become_float32_however_they_lie_in_memory(dtype):
    given = np.array([1, 2, 8], dtype=dtype)[::-1]
    assert torch.equal(as_vectors("v", given, 3), torch.tensor([[8.0, 2.0, 1.0]]))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (
            {"directions": torch.ones(2, 7)},
            r"directions has shape \[2, 7\]: it should be \[n, 32\]",
        ),
        ({"directions": torch.ones(1, 2, 32)}, r"directions has shape \[1, 2, 32\]"),
        ({"directions": torch.ones(2, 32) > 0}, "directions has dtype torch.bool"),
        ({"directions": np.ones((2, 32), dtype="U1")}, "directions has dtype <U1"),
        ({"directions": np.ones((2, 32)) * 1j}, "directions has dtype complex128"),
        ({"directions": [[1.0] * 32]}, "torch tensor or a numpy array, not list"),
        ({"features": [True]}, "a feature should be a whole number, not True"),
        ({"features": [1.5]}, "a feature should be a whole number, not 1.5"),
        ({"features": [32]}, "feature 32 is out of range"),
        ({"features": [3], "prompts": []}, "prompts is empty"),
        ({"features": [3], "prompts": ["a", " "]}, r"prompts\[1\] has no text"),
        ({"features": [3], "prompts": ["a", 5]}, r"prompts\[1\] is a int"),
        ({"features": [3], "alphas": [float("nan")]}, "alphas"),
        ({"features": [3], "positions": "first"}, "positions"),
        ({"features": [3], "metrics": "kl"}, r"write metrics=\['kl'\]"),
        ({"features": [3], "sae": (1, 2, 3)}, "sae should be a SAELens SAE, not tuple"),
        ({"features": [3], "sae": random_sae(16)}, "16 dimensions"),
    ],
)
def test_a_sweep_refuses_what_does_not_fit(random_model, unchecked, change, hint):
    given = {"sae": random_sae(32), "prompts": ["one", "two"]} | change
    with pytest.raises(ss.InputError, match=hint):
        ss.sweep(random_model, **given)


def test_one_direction_of_numpy_is_swept_like_a_tensor(random_model):
    vector = np.linspace(-1, 1, 32)
    same = {"alphas": [2], "n_controls": 2, "controls": "isotropic"}
    sae, texts = random_sae(32), ["one", "two"]
    rows = [
        ss.sweep(random_model, sae, texts, directions=given, **same).rows
        for given in (vector, torch.tensor(vector)[None])
    ]
    assert rows[0].equals(rows[1])


def test_a_margin_is_a_metric_beside_names(random_model, unchecked):
    metric = ss.margin(target=[40], other=[41, 42], name="mine")
    found = ss.sweep(
        random_model, random_sae(32), ["one"], features=[np.int64(3)], alphas=[1],
        n_controls=2, metrics=["kl", metric],
    )  # fmt: skip
    assert found.metrics == ("kl", "mine")
    table = ss.claims(found.rows, ["mine"])
    assert table["metric"].tolist() == ["mine"]
    with pytest.raises(ss.InputError, match="margin: target"):
        ss.margin(target=[], other=[41])


def test_kl_cannot_be_given_its_two_distributions_the_wrong_way_round():
    with pytest.raises(TypeError):
        ss.kl(torch.zeros(1, 3), torch.zeros(1, 3))  # type: ignore[misc]


def own_types() -> set[str]:
    """CamelCase names of classes and aliases that a module of the package defines."""
    found = set()
    for path in Path(ss.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            name = getattr(node, "name", None) or getattr(target, "id", "")
            if re.fullmatch(r"[A-Z]+[a-z]\w*[A-Z]\w*", name):
                found.add(name)
    return found


def test_every_type_of_ours_that_a_public_docstring_mentions_is_public():
    ours, mentioned = own_types(), {}
    assert {"SweepSpec", "MetricsLike", "SteeringVectors"} <= ours
    for name in ss.__all__:
        value = getattr(ss, name)
        members = (
            [m for key, m in vars(value).items() if key[0] != "_"]
            if isinstance(value, type)
            else []
        )
        for about in (value, *members):
            for word in re.findall(r"\w+", inspect.getdoc(about) or ""):
                mentioned.setdefault(word, name)
    hidden = {word: name for word, name in mentioned.items() if word in ours - set(ss.__all__)}
    assert not hidden
