"""From what a config names to functions: shipped metrics, margins and their provenance."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from checkpoints import small_tokenizer

from saelens_steer.config import (
    DEFAULT_METRICS,
    METRICS,
    MarginMetric,
    MarginSpec,
    TokenSetSpec,
)
from saelens_steer.errors import InputError
from saelens_steer.metrics import LogitMetric, TextMetric, kl, metric_provenance, resolve_metrics
from saelens_steer.metrics.metric import logit_margin
from saelens_steer.metrics.registry import SHIPPED

TOKENIZER = small_tokenizer()
D_VOCAB = len(TOKENIZER) + 8


def resolve(*specs):
    return resolve_metrics(specs, TOKENIZER, D_VOCAB)


def refused(*specs, match: str) -> None:
    with pytest.raises(InputError, match=match):
        resolve(*specs)


def noise(seed: int, rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, D_VOCAB, generator=torch.Generator().manual_seed(seed))


def test_the_default_metrics_resolve_in_order():
    metrics = resolve_metrics(DEFAULT_METRICS, TOKENIZER, D_VOCAB)
    assert [c for m in metrics for c in m.columns] == ["math_margin", "kl", "latex_first"]
    kinds = [type(m) for m in metrics]
    assert kinds == [LogitMetric, LogitMetric, TextMetric]


def test_kl_is_taken_from_the_baseline_to_the_steered():
    (metric,) = resolve("kl")
    steered, baseline = noise(0), noise(1)
    assert torch.equal(metric.fn(steered, baseline=baseline), kl(steered, baseline=baseline))


@pytest.mark.parametrize(
    ("completion", "truncated", "valid", "present"),
    [
        ("```python\nx = 1\n```", False, 1.0, 1.0),
        ("```python\nx = (\n```", False, 0.0, 0.0),
        ("no code", False, 0.0, math.nan),
        ("```python\nx = 1", True, 0.0, math.nan),
    ],
)
def test_rates_count_over_all_and_over_present_and_complete(completion, truncated, valid, present):
    (metric,) = resolve("code_validity")
    values = metric.fn(completion, truncated)
    assert tuple(values) == metric.columns
    assert values["code_valid"] == valid
    assert values["code_valid_present"] == pytest.approx(present, nan_ok=True)


def test_latex_metrics_give_their_columns():
    validity, first = resolve("latex_validity", "latex_first")
    assert validity.fn("$x$", False) == {"latex_valid": 1.0, "latex_valid_present": 1.0}
    assert math.isnan(validity.fn("$x", True)["latex_valid_present"])
    assert first.fn("$x$", False) == {"latex_first": 1.0}


def test_a_margin_is_taken_between_its_sets():
    spec = MarginSpec(name="m", target=TokenSetSpec(ids=(70, 71)), other=TokenSetSpec(ids=(80,)))
    (metric,) = resolve(MarginMetric(margin=spec))
    assert metric.name == "m"
    expected = logit_margin(noise(0), [70, 71], [80])
    assert torch.equal(metric.of(noise(0), baseline=noise(1)), expected)
    assert sorted(metric.reads.tolist()) == [70, 71, 80]
    few = torch.tensor([2, 70, 71, 80, 90])  # all that was computed
    assert torch.equal(
        metric.of(noise(0)[:, few], baseline=noise(1)[:, few], columns=few), expected
    )


def test_without_other_the_margin_is_against_every_ordinary_entry():
    spec = {"margin": {"name": "m", "target": [70]}}
    (metric,) = resolve(spec)
    logits = noise(0)
    logits[:, TOKENIZER.all_special_ids] = 50.0
    logits[:, len(TOKENIZER) :] = 50.0
    others = [i for i in range(len(TOKENIZER)) if i not in (70, *TOKENIZER.all_special_ids)]
    assert torch.equal(metric.fn(logits, baseline=logits), logit_margin(logits, [70], others))


def test_target_and_other_may_not_overlap_nor_target_be_everything():
    refused(
        {"margin": {"target": [70, 71], "other": [71]}}, match="'margin': target and other share"
    )
    everything = [i for i in range(len(TOKENIZER)) if i not in TOKENIZER.all_special_ids]
    refused({"margin": {"target": everything}}, match="the target is the whole vocabulary")


def test_margins_can_be_sent_to_other_processes():
    metrics = resolve({"margin": {"target": [70]}}, "kl")
    for metric in metrics:
        again = pickle.loads(pickle.dumps(metric))
        assert torch.equal(
            again.fn(noise(0), baseline=noise(1)), metric.fn(noise(0), baseline=noise(1))
        )


def test_the_provenance_describes_each_margins_sets():
    target = TokenSetSpec(strings=("$",))
    found = metric_provenance(
        [
            "kl",
            MarginMetric(margin=MarginSpec(name="a", target=target)),
            MarginMetric(margin=MarginSpec(name="b", target=target, other=TokenSetSpec(ids=(80,)))),
        ],
        TOKENIZER,
        D_VOCAB,
    )
    ordinary = len(TOKENIZER) - len(TOKENIZER.all_special_ids)
    assert set(found) == {"a", "b"}
    assert "$" in found["a"]["target"]
    assert found["a"]["n_target"] + found["a"]["n_other"] == ordinary
    assert "other" not in found["a"]
    assert len(found["b"]["other"]) == found["b"]["n_other"] == 1


def test_an_unknown_name_is_told_with_the_nearest():
    refused("margin", match=r"the metric 'margin' needs its settings: write {margin: {…}}")
    refused("code_validty", match="unknown metric 'code_validty'; did you mean 'code_validity'")
    refused("zzz", match=r"known: code_validity, distinct_words, kl, .*package\.module:function")


def test_words_are_mentioned_whole_and_in_any_case():
    tokenizer = small_tokenizer()
    spec = {"mentions": {"name": "says_car", "words": ["car", "C++"]}}
    (metric,) = resolve_metrics([spec], tokenizer, len(tokenizer))
    said = {text: metric.fn(text, False)["says_car"] for text in (
        "The Car, red.", "a cart", "oscar", "in C++", "C", "", "car")}  # fmt: skip
    assert list(said.values()) == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]


def test_distinct_words_fall_where_a_text_repeats_itself():
    tokenizer = small_tokenizer()
    (metric,) = resolve_metrics(["distinct_words"], tokenizer, len(tokenizer))
    assert metric.fn("one two three", False) == {"distinct_words": 1.0}
    assert metric.fn("go go go go", True) == {"distinct_words": 0.25}
    for loop in ("-" * 80, "=-" * 40, "这样的" * 40, "ab_" * 50 + " end", "\\quad" * 30):
        assert metric.fn(loop, True)["distinct_words"] < 0.25, loop
    for text in ("internationalization-of-names_and_paths", "https://example.org/a/long/path?x=1"):
        assert metric.fn(text, False)["distinct_words"] > 0.85
    assert metric.fn(" ", True)["distinct_words"] != metric.fn(" ", True)["distinct_words"]


def test_what_is_no_spec_at_all_is_refused():
    refused({"margn": {"target": [70]}}, match="unknown key 'margn'; did you mean 'margin'")
    refused({}, match="margin: is missing")


def test_a_config_knows_the_shipped_metrics_and_their_columns():
    kinds = {name: "text" if isinstance(m, TextMetric) else "logits" for name, m in SHIPPED.items()}
    assert {name: facts.of for name, facts in METRICS.items()} == kinds
    assert {name: facts.columns for name, facts in METRICS.items()} == {
        name: metric.columns for name, metric in SHIPPED.items()
    }


def test_two_metrics_may_not_write_one_column():
    refused("kl", "kl", match="two metrics write the column 'kl'")
    refused(
        {"margin": {"name": "latex_first", "target": [70]}}, "latex_first", match="'latex_first'"
    )


def test_no_metric_may_take_a_column_of_the_tables():
    for name in ("alpha", "prompt_id", "n", "truncated"):
        refused({"margin": {"name": name, "target": [70]}}, match=f"cannot be called '{name}'")
    refused("kl", {"margin": {"name": "kl_delta", "target": [70]}}, match="'kl_delta'")
    refused({"margin": {"name": "", "target": [70]}}, match="name must not be empty")
