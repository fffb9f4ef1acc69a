"""The patch step of a run folder: outputs side by side, what is redone, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from prompt_files import small_run

from saelens_steer import cli
from saelens_steer.pipeline.outputs import write_compared_edits, write_generated_texts
from saelens_steer.run_folder import RunFolder
from saelens_steer.tables import read_csv

HOOK = "blocks.2.hook_resid_pre"
PATCH = {
    "max_new_tokens": 4,
    "limit": 2,
    "variants": {
        "without": [{"ablate": {"features": "code"}}],
        "both": [{"set_to": {"features": [3], "value": 2, "unit": "max_act"}}, "reconstruct"],
    },
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory, random_folder) -> dict[str, Any]:
    """A config for the random model, an SAE of 32 features, and prompts of two kinds."""
    home = tmp_path_factory.mktemp("parts")
    return small_run(home, random_folder, HOOK, 3) | {
        "sweep": {
            "features": [5, 7],
            "alphas": [-2, 0.5],
            "n_controls": 4,
            "completions": {"max_new_tokens": 4, "files": True},
        },
        "metrics": ["kl", "latex_first"],
        "compare_edits": PATCH,
    }


def decoder_only(parts: dict[str, Any]) -> dict[str, Any]:
    source = str(Path(parts["sae"]["load"]["source"]).with_name("decoder"))
    return {**parts, "sae": {"load": {"source": source}}}


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command on a config in this process: exit status, last line of stdout, stderr."""

    def run(name: str, config: dict[str, Any], out: Path) -> tuple[int, str, str]:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        args = ["saelens-steer", name, str(path), "--out", str(out)]
        monkeypatch.setattr(sys, "argv", args)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        last = printed.out.strip().splitlines()[-1] if printed.out else ""
        return int(stopped.value.code or 0), last, printed.err

    return run


def made_at(folder: Path, *names: str) -> list[int]:
    """When these files were written."""
    return [(folder / name).stat().st_mtime_ns for name in names]


@pytest.mark.slow
def test_a_run_with_patches_from_its_first_outputs_to_its_report(parts, command, tmp_path):
    out = tmp_path / "run"
    status, last, errors = command("compare-edits", parts, out)
    assert (status, last) == (0, str(out / "compare_edits.json")), errors
    assert not (out / "claims.csv").exists()
    _is_side_by_side(out)

    before = made_at(out, "compare_edits.csv", "compare_edits.json", "features.json")
    assert command("compare-edits", parts, out)[0] == 0
    assert made_at(out, "compare_edits.csv", "compare_edits.json", "features.json") == before

    assert command("run", parts, out)[:2] == (0, str(out / "report.html"))
    assert made_at(out, "compare_edits.csv", "compare_edits.json", "features.json") == before
    assert "<h2>Edited outputs</h2>" in (out / "report.html").read_text(encoding="utf-8")
    _has_one_file_for_each_feature_and_prompt(out)

    swept = ("features.json", "sweep/rows-00000.parquet", "completions.jsonl", "claims.csv")
    kept = made_at(out, *swept)
    other = {"boosted": [{"add": {"features": [9], "alpha": 1, "alpha_unit": "max_act"}}]}
    changed = {**parts, "compare_edits": {**PATCH, "variants": other}}
    assert command("run", changed, out)[0] == 0
    assert made_at(out, *swept) == kept
    assert set(pd.read_csv(out / "compare_edits.csv")["variant"]) == {"original", "boosted"}
    assert "boosted" in (out / "report.html").read_text(encoding="utf-8")

    without = {key: value for key, value in parts.items() if key != "compare_edits"}
    assert command("run", without, out)[0] == 0
    assert made_at(out, *swept) == kept
    assert RunFolder(out).stale() == ["compare_edits.csv", "compare_edits.json"]
    assert set(pd.read_csv(out / "compare_edits.csv")["variant"]) == {"original", "boosted"}
    assert "Edited outputs" not in (out / "report.html").read_text(encoding="utf-8")


def _is_side_by_side(out: Path) -> None:
    table = read_csv(out / "compare_edits.csv")
    assert table["prompt_id"].tolist() == ["sum0"] * 3 + ["sum1"] * 3
    assert table["variant"].tolist() == ["original", "without", "both"] * 2
    found = json.loads((out / "features.json").read_text())
    named = table.set_index("variant")["edits"]
    assert named.loc["without"].iloc[0] == f"ablate[{found['code_candidates'][0]}]:keep"
    shown = json.loads((out / "compare_edits.json").read_text(encoding="utf-8"))
    assert [p["prompt_id"] for p in shown] == ["sum0", "sum1"]
    for prompt in shown:
        assert list(prompt["variants"]) == ["without", "both"]
        rows = table[table["prompt_id"] == prompt["prompt_id"]].set_index("variant")
        beside = {"original": prompt["original"], **prompt["variants"]}
        for name, row in beside.items():
            assert row["completion"] == rows.loc[name, "completion"]
            assert row["kl"] == pytest.approx(rows.loc[name, "kl"])
        assert prompt["prompt"] == f"sum of {prompt['prompt_id'][3:]} mixed numbers"


def _has_one_file_for_each_feature_and_prompt(out: Path) -> None:
    names = {path.name for path in (out / "generated_texts").iterdir()}
    assert names == {
        f"generated_texts_layer_2_feature_{feature}_2_prompt_{prompt}.json"
        for feature in (5, 7)
        for prompt in range(3)
    }
    lines = (out / "completions.jsonl").read_text(encoding="utf-8").splitlines()
    texts = {
        (t["direction"], t["alpha"], t["prompt_id"]): t["completion"]
        for t in map(json.loads, lines)
    }
    one = out / "generated_texts/generated_texts_layer_2_feature_7_2_prompt_1.json"
    by_strength = {"original": 0.0, "-2": -2.0, "0.5": 0.5}
    expected = {k: texts["feature_7", alpha, "sum1"] for k, alpha in by_strength.items()}
    assert json.loads(one.read_text()) == {"2": {"7": {"sum of 1 mixed numbers": expected}}}


REFUSED = {
    "no section": ({"compare_edits": None}, "no section compare_edits"),
    "a feature out of range": (
        {"compare_edits": {"variants": {"v": [{"add": {"features": [32]}}]}}},
        "feature 32 is out of range: the SAE has features 0 to 31",
    ),
    "a domain that is not selected": (
        {"compare_edits": {"variants": {"v": [{"ablate": {"features": "cod"}}]}}},
        "no candidates are chosen for 'cod'; did you mean 'code'",
    ),
    "an unknown hook": (
        {
            "compare_edits": {
                "variants": {"v": [{"reconstruct": {"hook_name": "blocks.8.hook_resid_pre"}}]}
            }
        },
        "layers 0 to 3",
    ),
    "an SAE where it was not made for": (
        {
            "compare_edits": {
                "variants": {"v": [{"reconstruct": {"hook_name": "blocks.1.hook_resid_pre"}}]}
            }
        },
        "the SAE was made for blocks.2.hook_resid_pre, not for blocks.1.hook_resid_pre",
    ),
    "texts longer than the model": (
        {"compare_edits": {**PATCH, "max_new_tokens": 500}},
        r"max_new_tokens (500) more would exceed the model's n_ctx (512)",
    ),
    "files of texts that nothing reads": ({"metrics": ["kl"]}, "sweep.completions.files"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_patched_is_one_sentence_and_leaves_nothing(parts, command, tmp_path, case):
    change, hint = REFUSED[case]
    status, last, errors = command("compare-edits", {**parts, **change}, tmp_path / "run")
    assert (status, last) == (2, "")
    assert hint in errors and len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_sae_still_to_be_trained_is_refused_at_another_hook(parts, command, tmp_path):
    train = {"d_sae": 64, "corpus": str(tmp_path / "corpus.txt")}
    (tmp_path / "corpus.txt").write_text("some text of a few words")
    edit = {"ablate": {"features": [3], "hook_name": "blocks.1.hook_resid_pre"}}
    patch = {"variants": {"v": [edit]}}
    small = {**parts, "sae": {"train": train}, "compare_edits": patch}
    status, _, errors = command("compare-edits", small, tmp_path / "run")
    assert status == 2
    assert "will be trained at blocks.2.hook_resid_pre" in errors


NEED_AN_ENCODER = {
    "an edit of activations": {"ablate": {"features": [3]}},
    "a domain": {"add": {"features": "code"}},
    "strength in A_max": {"add": {"features": [3], "alpha_unit": "max_act"}},
}


@pytest.mark.parametrize("case", NEED_AN_ENCODER)
def test_what_takes_an_encoder_is_refused_where_there_is_none(parts, command, tmp_path, case):
    config = {**decoder_only(parts), "compare_edits": {"variants": {"v": [NEED_AN_ENCODER[case]]}}}
    status, _, errors = command("compare-edits", config, tmp_path / "run")
    assert status == 2
    assert "only a decoder" in errors and len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_sweep_of_candidates_or_in_a_max_takes_an_encoder(parts, command, tmp_path):
    for change in ({"features": "candidates"}, {"alpha_unit": "max_act"}):
        config = {
            **decoder_only(parts),
            "sweep": {**parts["sweep"], **change},
            "compare_edits": None,
        }
        status, _, errors = command("run", config, tmp_path / "run")
        assert (status, "only a decoder" in errors) == (2, True)


@pytest.mark.slow
def test_a_decoder_alone_runs_through_where_features_are_named(parts, command, tmp_path):
    out = tmp_path / "run"
    edits = [
        {"add": {"features": [3], "alpha": 1, "alpha_unit": "resid_norm"}},
        {"project_out": {"features": [4], "hook_name": "blocks.1.hook_mlp_out"}},
    ]
    config = {**decoder_only(parts), "compare_edits": {**PATCH, "variants": {"v": edits}}}
    status, last, errors = command("run", config, out)
    assert (status, last) == (0, str(out / "report.html")), errors
    found = json.loads((out / "features.json").read_text())
    assert found["code_candidates"] == [] == found["math_candidates"]
    assert found["max_act"] == {} and found["resid_norm"] > 0
    rows = pd.read_parquet(out / "sweep/rows-00000.parquet")
    assert rows["receipt_feature_act"].isna().all()
    assert set(pd.read_csv(out / "claims.csv")["direction"]) == {"feature_5", "feature_7"}
    patched = pd.read_csv(out / "compare_edits.csv").query("variant == 'v'")
    assert patched["receipt_act"].isna().all() and (patched["receipt_changed"] > 0).all()
    assert set(patched["hook_name"]) == {"blocks.1.hook_mlp_out, blocks.2.hook_resid_pre"}
    assert "Edited outputs" in (out / "report.html").read_text(encoding="utf-8")


def texts_of(feature: int | None, alphas: list[float], samples: int = 1) -> pd.DataFrame:
    rows = [
        {"feature": feature, "alpha": alpha, "prompt_id": prompt, "completion": f"{alpha}{s}"}
        for alpha in alphas
        for prompt in ("b", "a")
        for s in range(samples)
    ]
    return pd.DataFrame(rows).astype({"feature": "Int64"})


def test_generated_texts_list_their_samples_and_leave_controls_out(tmp_path):
    table = pd.concat([texts_of(3, [0.0, -1.5, 4.0], samples=2), texts_of(None, [0.0, 4.0])])
    write_generated_texts(tmp_path / "texts", table, {"a": "Text A?", "b": "Text B?"}, 7)
    names = sorted(path.name for path in (tmp_path / "texts").iterdir())
    assert names == [f"generated_texts_layer_7_feature_3_2_prompt_{p}.json" for p in (0, 1)]
    first = json.loads((tmp_path / "texts" / names[0]).read_text())
    expected = {"original": ["0.00", "0.01"], "-1.5": ["-1.50", "-1.51"], "4": ["4.00", "4.01"]}
    assert first == {"7": {"3": {"Text A?": expected}}}
    assert list(first["7"]["3"]["Text A?"]) == ["original", "-1.5", "4"]


@pytest.mark.parametrize("texts", (pd.DataFrame(), texts_of(None, [0.0, 4.0])))
def test_where_no_feature_has_texts_their_folder_is_empty_and_there(tmp_path, texts):
    write_generated_texts(tmp_path / "texts", texts, {"a": "A", "b": "B"}, 7)
    assert list((tmp_path / "texts").iterdir()) == []


def test_every_text_comes_back_from_the_table_as_it_was(tmp_path):
    odd = ["None", "a\rb", "\r\n", "", "007", '"quoted", <b>', "n/a", "naïve 数学\u2028"]
    rows = [
        {
            "prompt_id": f"{i:03d}",
            "domain": "d",
            "prompt": text,
            "variant": name,
            "edits": "",
            "hook_name": "",
            "completion": text,
            "truncated": False,
            "n_tokens": 3,
            "kl": float("nan"),
            "receipt_act": 1.5,
        }
        for i, text in enumerate(odd)
        for name in ("original", "null")
    ]
    table = pd.DataFrame(rows)
    write_compared_edits(tmp_path, table)
    read = read_csv(tmp_path / "compare_edits.csv")
    for column in ("prompt_id", "variant", "completion", "prompt"):
        assert read[column].tolist() == table[column].tolist()
    assert read["truncated"].dtype == bool and read["n_tokens"].tolist() == [3] * len(rows)
    assert read["kl"].isna().all() and (read["receipt_act"] == 1.5).all()
    shown = json.loads((tmp_path / "compare_edits.json").read_text(encoding="utf-8"))
    assert [p["original"]["completion"] for p in shown] == odd
    assert all(p["variants"]["null"]["kl"] is None for p in shown)
