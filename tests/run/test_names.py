"""Names such as NA, 007 and true are the same in every file that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from prompt_files import small_run

from saelens_steer.files import read_jsonl
from saelens_steer.tables import read_csv, read_parquet

HOOK = "blocks.2.hook_resid_pre"
NAMES = ["null", "NA", "NaN", "007", "None", "1e5", "true"]
"""Texts that readers take for something else."""


@pytest.mark.slow
def test_names_survive_in_what_a_sweep_writes(tmp_path):
    from saelens_steer.data import Prompt
    from saelens_steer.pipeline.outputs import read_rows, write_result, write_rows
    from saelens_steer.pipeline.result import Result
    from saelens_steer.report.run_folder import read_run

    ids, alphas = ["", *NAMES], [-1.0, 0.0, 1.0]
    names = ["feature_1", "feature_2", *NAMES]
    rows = pd.DataFrame(
        [
            {
                **{"direction": name, "family": "candidate" if i < 2 else "None"},
                **{"feature": i if i < 2 else None, "alpha": alpha, "alpha_unit": "raw"},
                **{
                    "prompt_id": prompt,
                    "matched_to": None if i < 2 else ["feature_1", "007"][i % 2],
                },
                **{metric: np.sin(i + j + alpha) * 1e-20 for metric in NAMES},
            }
            for i, name in enumerate(names)
            for alpha in alphas
            for j, prompt in enumerate(ids)
        ]
    ).astype({"feature": "Int64"})
    texts = rows[["direction", "family", "feature", "alpha", "prompt_id"]].assign(completion="null")
    texts = texts[texts["direction"] == "feature_1"]
    prompts = [Prompt(name, f"say {name}", name) for name in ids]
    write_rows(tmp_path, [rows])
    result = Result(read_rows(tmp_path / "sweep", NAMES), texts, tuple(NAMES), controls="None")
    write_result(tmp_path, result, {prompt.id: prompt.text for prompt in prompts})

    pd.testing.assert_frame_equal(read_parquet(tmp_path / "sweep"), rows, check_dtype=False)
    found = read_run(tmp_path)
    for read, made in ((found.summary, result.summary), (found.claims, result.claims)):
        assert list(read) == list(made)
        pd.testing.assert_frame_equal(
            read, made.astype({"feature": read["feature"].dtype}), check_dtype=False,
            check_exact=True, check_categorical=False,
        )  # fmt: skip
    assert sorted(set(found.summary["direction"])) == sorted(names)
    assert set(found.claims["metric"]) == set(NAMES)
    assert set(found.claims["controls"]) == {"None"}
    by_alpha = json.loads((tmp_path / "interference.json").read_text())
    assert [row["NA_delta"] for row in by_alpha] == list(found.summary["NA_delta"])
    lines = [row for _, row in read_jsonl(tmp_path / "completions.jsonl")]
    assert [row["prompt_id"] for row in lines] == ids * len(alphas)
    assert {row["completion"] for row in lines} == {"null"}


def test_names_survive_in_the_labels(tmp_path):
    from saelens_steer.labels.labeller import Name
    from saelens_steer.labels.results import FeatureLabels, Label
    from saelens_steer.labels.scores import NO_LABEL
    from saelens_steer.tables import write_csv

    made = [
        Label(i, name, Name(name, name), "labelled", name, None, NO_LABEL, NO_LABEL, name, name)
        for i, name in enumerate(NAMES)
    ]
    labels = FeatureLabels(2, tuple(made), {})
    found = read_csv(write_csv(tmp_path / "labels.csv", labels.table))
    for column in ("label", "side", "detail", "analysis", "provider", "model"):
        assert found[column].tolist() == NAMES
    assert [own["interpretation"] for own in labels.to_json()["2"].values()] == NAMES


def prompt_rows(stem: str) -> list[dict[str, str]]:
    return [
        {"id": name, "text": f"{stem} of {i} numbers", "domain": ["", *NAMES[1:]][i]}
        for i, name in enumerate(NAMES)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_folder) -> Path:
    """A run whose metrics, prompts, domains and sides have such names."""
    from saelens_steer.config import load_config
    from saelens_steer.config.yaml import Dumper
    from saelens_steer.pipeline.run import run

    home = tmp_path_factory.mktemp("names")
    parts: dict[str, Any] = small_run(home, random_folder, HOOK, 2)
    for stem in ("sum", "test"):
        lines = (json.dumps(row) + "\n" for row in prompt_rows(stem))
        (home / f"{stem}.jsonl").write_text("".join(lines))
    chosen = [
        {"text": f"list {i} of them", "domain": NAMES[3 + i % 2], "id": str(i)} for i in range(8)
    ]
    (home / "chosen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    margins = [{"margin": {"name": name, "target": "latex_delimiters"}} for name in NAMES]
    parts |= {
        "prompts": {"source": str(home / "sum.jsonl"), "chat": True},
        "select": {**parts["select"], "positive": NAMES[3], "negative": NAMES[4]},
        "metrics": [*margins, "kl", "code_validity"],
        "features": {"topic": None, "contexts": 2},
        "sweep": {
            **{"alphas": [1], "n_controls": 4, "controls": ["covariance", "isotropic"]},
            "completions": {"max_new_tokens": 2, "top": 1},
        },
        "label": {"max_new_tokens": 2, "n_prompts": 7, "contexts": 1, "detection": 1},
        "tradeoffs": {
            **{"prompts": str(home / "test.jsonl"), "domain": "NA", "top": 1, "edits": ["add"]},
            **{"directions": ["difference_of_means"], "alphas": [0.5], "max_new_tokens": 2},
            "effect": None,
        },
    }
    (home / "study.yaml").write_text(yaml.dump(parts, Dumper=Dumper))
    run(load_config(home / "study.yaml"), home / "run")
    return home / "run"


@pytest.mark.slow
def test_names_survive_a_whole_run(folder):
    from saelens_steer.config import load_config
    from saelens_steer.report.run_folder import read_run

    found, domains = read_run(folder), {"", *NAMES[1:]}
    margins = load_config(folder / "config.yaml").metrics[: len(NAMES)]
    assert [spec.margin.name for spec in margins] == NAMES
    assert found.spec["select"]["positive"] == found.features["positive"] == NAMES[3]
    assert set(NAMES) <= set(found.summary) and set(NAMES) <= set(read_parquet(folder / "sweep"))
    assert set(NAMES) <= set(found.claims["metric"])
    assert set(NAMES) <= set(read_csv(folder / "controls.csv")["metric"])
    assert set(read_parquet(folder / "sweep")["prompt_id"]) == set(NAMES)
    assert {row["prompt_id"] for row in found.completions} == set(NAMES)
    assert set(read_parquet(folder / "sweep")["domain"]) == domains
    assert set(found.tradeoffs_by_domain["domain"]) == domains
    assert set(NAMES) & set(found.tradeoffs_by_domain)
    assert set(found.tradeoffs["metric"]) <= set(NAMES)
    assert len(found.tradeoffs) and found.tradeoffs["direction"].notna().all()
    assert set(read_csv(folder / "labels.csv")["side"]) <= {*NAMES[3:5]}
    assert "NA" in (folder / "report.html").read_text(encoding="utf-8")
