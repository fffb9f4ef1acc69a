"""Sizes that no machine holds are refused from an estimate, before anything is drawn or removed."""

import json
import time
from functools import partial
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pandas as pd
import pytest
import torch
from saes import random_sae

import saelens_steer as ss
from saelens_steer.config import RunSpec, SweepSpec, TrainSpec, checked, draft_config, sizes
from saelens_steer.config.base import Spec
from saelens_steer.directions import draw_controls
from saelens_steer.errors import InputError
from saelens_steer.evidence import claims
from saelens_steer.pipeline.checks import checked_context
from saelens_steer.pipeline.rules import check_config

HOOK = "blocks.1.hook_resid_pre"
LOADED = "prompts.limit=2", "label=null", "sae={load: {source: SAE}}"
MANY_ROWS = "sweep={directions: [auroc], top: 100000000, n_controls: 0}"


def refusal(call: Any) -> str:
    began = time.monotonic()
    with pytest.raises(InputError) as refused:
        call()
    assert time.monotonic() - began < 10  # imports included
    return str(refused.value)


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("sweep.n_controls=1000000000", "GiB: lower n_controls"),
        ("sweep.n_controls=1e12", "GiB: lower n_controls"),
        ("sweep.completions={samples: 1000000000, temperature: 1}", "lower completions.samples"),
        ("sweep.seed=-1", "sweep.seed: should be greater than or equal to 0, not -1"),
        ("sweep.seed=18446744073709551616", "sweep.seed: should be less than"),
        ("sae.train.seed=9223372036854775808", "sae.train.seed: should be less than"),
        ("prompts={sample: {n: 3, seed: -4}}", "prompts.sample.seed: should be greater"),
        ("sae.train.d_sae=900000000000", "an SAE of 900,000,000,000 features would need about"),
        ("sae.train.d_sae=1e30", "sae.train.d_sae: should be"),
        ("sae.train.training_tokens=10000000000000", "should be less than or equal to 10000"),
        ("select={k: 800000000}", "lower n_controls, or give fewer directions (select.k)"),
        (MANY_ROWS, "lower n_controls, or give fewer directions"),
        ("select={k: 70000000}", "or label.max_new_tokens"),
        ("label={max_new_tokens: 900000000000}", "texts of up to 900,000,000,000 tokens"),
        (
            "label={provider: openai-compatible, server: {base_url: 'http://localhost:1/v1', "
            "model: a, max_answer_tokens: 900000000000}}",
            "lower label.server.max_answer_tokens",
        ),
        (
            "compare_edits={max_new_tokens: 900000000000, variants: {a: [reconstruct]}}",
            "(prompts × variants) would need about",
        ),
        ("tradeoffs={max_new_tokens: 900000000000}", "lower tradeoffs.top"),
        ("tradeoffs={top: 300000000}", "of tradeoffs) would need about"),
        ("compare_directions={k: 300000000}", "lower compare_directions.k"),
        (
            "label={provider: openai-compatible, server: {base_url: 'http://localhost:1/v1', "
            "model: a, timeout: 1e300}}",
            "timeout: should be less than or equal to 86400",
        ),
    ],
)
def test_a_config_of_absurd_size_is_refused_and_nothing_is_removed(override, why, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    large = [] if "d_sae" in override else ["sae.train.d_sae=900000000"]
    overrides = [*large, "metrics=[kl, latex_first]", override]
    assert why in refusal(lambda: check_config(draft_config({}, overrides), tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_sweep_of_absurd_size_in_a_notebook_is_refused_too(random_model):
    hook, vector = "blocks.1.hook_resid_pre", torch.ones(random_model.cfg.d_model)
    sweep = partial(ss.sweep, random_model, None, [[1, 2, 3]], directions=vector, hook_name=hook)
    calls: list[dict[str, Any]] = [
        {"n_controls": 10**9},
        {"n_controls": 10**5, "alphas": range(1, 10**6)},
        {"seed": 2**64},
        {"seed": -1},
    ]
    for given in calls:
        said = refusal(lambda given=given: sweep(**given))
        assert "GiB of memory" in said or "seed: should be" in said


def all_specs(spec: type[Spec]) -> set[type[Spec]]:
    """A spec and those of its fields."""
    found = {spec}
    for field in spec.model_fields.values():
        kinds = [field.annotation]
        while kinds:
            kind = kinds.pop()
            kinds += get_args(kind)
            if isinstance(kind, type) and issubclass(kind, Spec) and kind not in found:
                found |= all_specs(kind)
    return found


def test_every_count_of_a_config_and_of_a_call_has_an_upper_bound():
    specs = all_specs(RunSpec) | all_specs(ss.GenerateSettings)
    fields = [
        (spec.__name__, name, field)
        for spec in specs
        for name, field in spec.model_fields.items()
        if field.annotation is int or get_origin(field.annotation) in (Union, UnionType)
    ]
    assert len(fields) > 50
    for spec, name, field in fields:
        is_bare = int in (field.annotation, *get_args(field.annotation))
        bounded = any(hasattr(mark, "le") or hasattr(mark, "lt") for mark in field.metadata)
        assert bounded or not is_bare, f"{spec}.{name} has no upper bound: make it a Count"


@pytest.fixture
def memory(monkeypatch):
    """64 GiB, on any machine."""
    monkeypatch.setattr(sizes, "memory_of", lambda device: 64 << 30)


def test_large_studies_remain_possible(memory, tmp_path):
    train = {"d_sae": 1 << 20, "training_tokens": 10**10, "batch_tokens": 4096}
    TrainSpec.model_validate(train).check_size(d_in=1152, device="cpu")
    spec = SweepSpec.model_validate({"features": [*range(10_000)], "alphas": [*range(-4, 5)]})
    spec.check_size(112, texts=True, tested=10_000)
    ss.GenerateSettings.model_validate({"batch_size": 4096, "controls": 20}).check_size(1000, 100)
    ss.LabelSpec().check_size(10_000, 12)
    given = [f"sae.train.{key}={value}" for key, value in train.items()]
    check_config(draft_config({}, [*given, "select.k=5000", "sweep.alpha_unit=unit"]), tmp_path)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"d_sae": 10**8}, "training an SAE of 100,000,000 features would need about 95 GiB"),
        ({"d_sae": 1 << 20, "batch_tokens": 1 << 22}, "lower batch_tokens or d_sae"),
        (
            {"cached_tokens": 10**11, "training_tokens": 10**11},
            "a cache of 100,000,000,000 activations (cached_tokens × d_model)",
        ),
        ({"d_sae": 10**10, "architecture": "topk", "options": {"k": 10**10}}, "lower d_sae"),
        ({"options": {"k": 10**11}}, "k must be a number up to d_sae = 1024"),
        ({"context_size": 10**11}, "context_size 100000000000 is more than the model's n_ctx"),
    ],
)
def test_training_of_absurd_size_is_refused_before_it_begins(
    spec, why, random_model, tmp_path, memory
):
    train = partial(ss.train_sae, random_model, {"corpus": "tiny", **spec}, HOOK, tmp_path / "sae")
    assert why in refusal(lambda: train())
    assert not [*tmp_path.iterdir()]


def test_the_features_of_a_loaded_sae_are_estimated_before_the_weights_are_read(
    tiny_model, tmp_path, monkeypatch
):
    random_sae(tiny_model.cfg.d_model, "blocks.4.hook_resid_pre").save_model(str(tmp_path / "sae"))
    overrides = [*LOADED[:-1], LOADED[-1].replace("SAE", str(tmp_path / "sae")), MANY_ROWS]
    draft = draft_config({}, overrides)
    prompts = check_config(draft, tmp_path / "out")
    monkeypatch.setattr(sizes, "memory_of", lambda device: 10_000)
    said = refusal(lambda: checked_context(draft.spec, tmp_path / "out", prompts))
    assert "directions and controls × alphas × prompts" in said
    assert not (tmp_path / "out").exists()


def test_answers_longer_than_the_context_are_refused_before_the_weights_are_read(tmp_path):
    topic = "prompts: tiny-transport-topic, positive: car, negative: ferry"
    draft = draft_config({}, [f"select={{{topic}, at: answer, answer_tokens: 100000000000}}"])
    said = refusal(lambda: checked_context(draft.spec, tmp_path / "out"))
    assert "and select.answer_tokens (100000000000) more would exceed the model's n_ctx" in said
    assert not (tmp_path / "out").exists()


def test_texts_of_variants_in_a_notebook_are_estimated_before_any_is_written(random_model, memory):
    prompts, vector = [[1, 2, 3]], torch.ones(random_model.cfg.d_model)
    treat = partial(ss.generate, random_model, prompts, {"a": vector}, hook_name=HOOK)
    assert "lower controls, samples" in refusal(lambda: treat(controls=10**9))
    assert "lower controls" in refusal(lambda: treat(samples=10**9, temperature=1.0))
    assert "controls: should be less than" in refusal(lambda: treat(controls=10**13))
    assert "n_ctx" in refusal(lambda: treat(max_new_tokens=10**11))
    assert "batch_size: should be less" in refusal(lambda: treat(batch_size=10**13))


def test_resamples_and_limits_are_estimated_or_bounded(memory):
    about = {"direction": "a", "family": "candidate", "feature": 1, "alpha_unit": "raw"}
    about |= {"prompt_id": "1", "domain": "", "kl": 1.0}
    rows = pd.DataFrame([about | {"alpha": alpha} for alpha in (0.0, 1.0)])
    assert "lower n_resamples" in refusal(lambda: claims(rows, ["kl"], n_resamples=10**11))
    for wrong in (0, -1, 10**13):
        said = refusal(lambda wrong=wrong: claims(rows, ["kl"], n_resamples=wrong))
        assert said.startswith("n_resamples should be at ")
        said = refusal(lambda wrong=wrong: ss.load_prompts("tiny-domains", limit=wrong))
        assert said.startswith("limit should be at ")


def test_more_strata_than_rows_are_as_many_as_rows(tmp_path):
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(1, 8)))
    sample = {"n": 3, "strata": 10**11}
    draft = draft_config({"prompts": {"source": str(source), "sample": sample}})
    found = check_config(draft, tmp_path / "out").steered
    assert len(found) == 3 and {p.domain[-3:] for p in found} == {"of7"}


def test_controls_are_estimated_before_they_are_drawn():
    said = refusal(lambda: draw_controls("isotropic", 10**12, d_model=64, seed=0))
    assert said.startswith("1,000,000,000,000 isotropic controls would need about 953,674 GiB")
    for seed in (-1, 2**63, 2**200):
        what = lambda seed=seed: draw_controls("isotropic", 3, d_model=4, seed=seed)  # noqa: E731
        assert "seed should be from 0 to" in refusal(what)


def test_a_usual_size_passes_and_texts_count_only_if_they_are_written():
    spec = checked(SweepSpec, {"completions": {"samples": 10**9, "temperature": 1}}, "sweep")
    spec.check_size(1000, texts=False)
    with pytest.raises(InputError, match="completions"):
        spec.check_size(1000, texts=True)
