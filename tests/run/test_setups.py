"""The well-known set-ups: configs on random models under their real ids, and small counterparts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from checkpoints import put_in_hub_cache, random_gemma3, random_llama, random_qwen2
from processes import ran
from saes import random_sae

pytestmark = pytest.mark.slow

TEXTS = "configs/tiny/requests.txt"
SMALL = {
    "model.dtype": "float32",
    "select.k": 1,
    "select.answer_tokens": 6,
    "sweep.n_controls": 4,
    "sweep.batch_tokens": 2048,
    "sweep.completions.max_new_tokens": 6,
    "label.max_new_tokens": 4,
}
TRAINED = {
    "sae.train.corpus": TEXTS,
    "sae.train.d_sae": 64,
    "sae.train.training_tokens": 6000,
    "sae.train.batch_tokens": 256,
    "sae.train.context_size": 32,
    "compare_edits.max_new_tokens": 6,
}
SAMPLED = {"prompts.source": TEXTS, "prompts.sample": "{n: 4, max_chars: 60}"}


def under(repo_id: str, write, folder: Path, n_layers: int) -> dict[str, str]:
    """A random model of so many layers under this id; the variables that find it."""
    put_in_hub_cache(folder / "hub", repo_id, write(folder / "model", num_hidden_layers=n_layers))
    return {"HF_HUB_CACHE": str(folder / "hub"), "XDG_CACHE_HOME": str(folder / "cache")}


def side_by_side(out: Path) -> list[list[str]]:
    """For each prompt of compare_edits.json, what its outputs are called."""
    prompts = json.loads((out / "compare_edits.json").read_text())
    assert all(prompt["original"]["completion"] is not None for prompt in prompts)
    return [["original", *prompt["variants"]] for prompt in prompts]


@pytest.mark.nightly
def test_multiples_of_the_largest_activation_on_llama(tmp_path):
    env = under("meta-llama/Llama-3.1-8B-Instruct", random_llama, tmp_path, 21)
    sae = random_sae(32, "blocks.19.hook_resid_post")
    sae.save_model(str(tmp_path / "sae"))
    load = {"sae.load": f"{{source: {tmp_path / 'sae'}}}", "activations.max_norm": "null"}
    overrides = SMALL | SAMPLED | load
    out = ran("configs/llama31_8b_maxact.yaml", tmp_path / "run", overrides, **env)
    found = json.loads((out / "features.json").read_text())
    features = [*found["code_candidates"], *found["math_candidates"]]
    files = {path.name for path in (out / "generated_texts").iterdir()}
    assert files == {
        f"generated_texts_layer_19_feature_{f}_4_prompt_{p}.json"
        for f in features
        for p in range(4)
    }
    held = json.loads((out / "generated_texts" / sorted(files)[0]).read_text())["19"]
    (by_prompt,) = held.values()
    (texts,) = by_prompt.values()
    assert list(texts) == ["original", "-2", "-1", "1", "2"]
    rows = pd.read_parquet(out / "sweep")
    own = rows[(rows["feature"] == features[0]) & (rows["alpha"] == 2)]
    size = found["max_act"][str(features[0])] * float(sae.W_dec[features[0]].norm())
    assert own["receipt_push"].to_numpy() == pytest.approx(2 * size, rel=1e-4)


@pytest.mark.nightly
def test_the_output_of_an_mlp_of_gemma(tmp_path):
    kinds = [("full" if i % 3 == 2 else "sliding") + "_attention" for i in range(15)]
    write = partial(random_gemma3, layer_types=kinds)
    env = under("google/gemma-3-1b-it", write, tmp_path, 15)
    own = {"sae.train.cached_tokens": 1500, "sae.train.lr_warm_up_steps": 2, "select.at": "answer"}
    overrides = SMALL | SAMPLED | TRAINED | own
    out = ran("configs/gemma3_1b_mlp_out.yaml", tmp_path / "run", overrides, **env)
    assert (
        side_by_side(out)
        == [["original", "through the SAE", "code ablated", "code × 10", "code set to A_max"]] * 4
    )
    assert json.loads((out / "sae/quality.json").read_text())["epochs"] > 1
    assert json.loads((out / "features.json").read_text())["hook_name"] == "blocks.13.mlp.hook_out"


def test_a_car_or_a_bus_on_qwen25(tmp_path):
    env = under("Qwen/Qwen2.5-0.5B", random_qwen2, tmp_path, 18)
    words = (
        "[{margin: {name: m, target: {ids: [40]}, other: {ids: [41]}}}, kl,"
        " {mentions: {name: says_car, words: [car]}}]"
    )
    own = {"prompts.limit": 3, "metrics": words, "select.prompts": "tiny-transport-topic"}
    own["select.chat"] = True  # they are conversations
    overrides = SMALL | TRAINED | own
    out = ran("configs/qwen25_05b_transport.yaml", tmp_path / "run", overrides, **env)
    assert side_by_side(out) == [["original", "through the SAE", "car boosted", "bus boosted"]] * 3
    first = json.loads((out / "compare_edits.json").read_text())[0]
    assert first["prompt"] == "Generally, which is bigger, a car or a bus?"
    page = (out / "report.html").read_text()
    assert "Edited outputs" in page
    assert "Generally, which is bigger, a car or a bus?" in page


@pytest.mark.nightly
@pytest.mark.parametrize("counterpart", ["maxact", "mlp_out", "transport"])
def test_each_counterpart_runs_offline_in_small(tmp_path, counterpart):
    small = {"sae.train.training_tokens": 20000, "sae.train.d_sae": 256, "sweep.n_controls": 4}
    small |= {"sweep.completions.max_new_tokens": 8, "select.answer_tokens": 12}
    small["label.max_new_tokens"] = 4
    if counterpart == "maxact":
        small |= {"prompts.sample.n": 5}
    else:
        small |= {"prompts.limit": 3, "compare_edits.max_new_tokens": 8}
    if counterpart == "mlp_out":
        small |= {"sae.train.cached_tokens": 5000}
    out = ran(f"configs/tiny/{counterpart}.yaml", tmp_path / "run", small)
    claims = pd.read_csv(out / "claims.csv")
    assert claims["verdict"].str.startswith(("not testable", "not measured")).all()
    if counterpart == "maxact":
        assert len(list((out / "generated_texts").iterdir())) == 5 * claims["direction"].nunique()
    else:
        assert len(side_by_side(out)) == 3
