"""Names that differ stay different: as files, ids, labels and keys."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path

import pandas as pd
import pytest

from saelens_steer.config import parse_config
from saelens_steer.file_names import file_name
from saelens_steer.pipeline.outputs import write_generated_texts
from saelens_steer.report.theme import name_label
from saelens_steer.steering import direction_label

ODD = [
    *("a b", "a-b", "a_b", "a.b", "a/b", "a\\b", "A b", "A-B", "a  b", " a b", "a b ", "a\tb"),
    *("", " ", ".", "..", "...", "/", "-", "_", "~", "x", "X", "*", "?", "a:b", "a\0b", "a\nb"),
    *("NaN", "nan", "null", "None", "007", "7", "1e3", "True", "true", "CON", "con", "aux.txt"),
    *("COM1", "nul", "lpt9.json", ".hidden", "trailing.", "../up", "/etc/passwd", "C:\\x"),
    *(
        "é",
        "e\u0301",
        "É",
        "ß",
        "SS",
        "ﬁ",
        "数学",
        "数学2",
        "😀",
        "😀😀",
        "שלום",
        "مرحبا",
        "\u202eabc",
    ),
    *("kl", "KL", "Kl", "kL", "K\u212a", "a" * 100, "a" * 101, "a" * 300, "a" * 299 + "b"),
    *("é" * 200, "é" * 201, "数" * 500, "\ud800", "<b>", "&amp;", "'", '"', "a%20b", "%"),
]
ODD += [file_name(name) for name in ODD if file_name(name) != name]
"""Also names that are the file names of others."""


def test_names_that_differ_have_file_names_that_differ_in_any_case():
    assert len(set(ODD)) == len(ODD)
    found = [file_name(name) for name in ODD]
    assert len({name.lower() for name in found}) == len(ODD)


def test_names_drawn_at_random_stay_different_too():
    draw = random.Random(0)
    letters = "aA-_. /bé\u0301"
    names = {"".join(draw.choices(letters, k=draw.randint(0, 6))) for _ in range(5000)}
    assert len({file_name(name).lower() for name in names}) == len(names)


@pytest.mark.parametrize("name", ODD)
def test_a_file_name_is_one_plain_part_of_a_path_on_every_system(name, tmp_path):
    found = file_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_-]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?", found)
    assert len(found.encode()) <= 100 and Path(found).name == found
    assert not re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", found)
    assert (tmp_path / f"interference_{found}.html").write_text("x") == 1
    assert file_name(name) == found


@pytest.mark.parametrize(
    "name", ["kl", "code_margin", "latex_valid_present", "batchtopk-k8", "v1.5"]
)
def test_ordinary_names_are_kept(name):
    assert file_name(name) == name


LABELS = [
    *("latex_valid", "LaTeX valid", "latex valid", "latex-valid", "LaTeX_valid", "“LaTeX valid”"),
    *("x_present", "X (where present)", "x", "X", "kl", "KL", "Kl", "a__b", "a_b", "A b", "a b"),
    *("feature_12", "feature 12", "Feature 12", "", " ", "007", "7", "NaN", "null"),
]


def test_names_that_differ_have_labels_that_differ():
    for label in (name_label, direction_label):
        assert len({label(name) for name in LABELS}) == len(LABELS)
    assert name_label("latex_valid_present") == "LaTeX valid (where present)"
    assert direction_label("feature_12") == "feature 12"


def grid(*entries: dict) -> list[str]:
    spec = parse_config({"sae": {"train": {"d_sae": 32}, "grid": list(entries)}})
    return list(spec.sae.grid_specs)


def test_the_saes_of_a_grid_keep_their_names_and_have_folders_of_their_own():
    names = ["a b", "a_b", "A b", "a/b", "é", "CON", "x" * 300]
    found = grid(*({"name": name, "vary": {"k": [4, 8]}} for name in names))
    assert found == [f"{name}-k{k}" for name in names for k in (4, 8)]
    assert len({file_name(name).lower() for name in found}) == len(found)


def test_prompts_and_strengths_that_differ_have_texts_of_their_own(tmp_path):
    prompts = dict.fromkeys(["NaN", "007", "7", "a/b", "..", " x", "x", "X", "é", "😀", ""], "")
    prompts = {name: f"text of {name!r}" for name in prompts}
    alphas = [0.0, 1.0, 1.0000001, -1.0, 1e-9]
    rows = [
        {"feature": 1, "prompt_id": name, "alpha": alpha, "completion": f"{name} {alpha!r}"}
        for name, alpha in itertools.product(prompts, alphas)
    ]
    write_generated_texts(tmp_path / "texts", pd.DataFrame(rows), prompts, 3)
    files = sorted((tmp_path / "texts").iterdir())
    assert len(files) == len(prompts)
    held = [json.loads(file.read_text())["3"]["1"] for file in files]
    assert {text for one in held for text in one} == set(prompts.values())
    assert all(len(set(texts.values())) == len(alphas) for one in held for texts in one.values())
