"""Laws of the config: YAML in, YAML out; what is wrong is said in one sentence."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from saelens_steer.config import (
    DEFAULT_METRICS,
    DEMO,
    CompletionSpec,
    MarginMetric,
    PromptSpec,
    RunSpec,
    SweepSpec,
    TokenSetSpec,
    TrainSpec,
    as_config,
    checked,
    draft_config,
    dump_config,
    load_config,
    parse_config,
    parse_yaml,
)
from saelens_steer.errors import InputError
from saelens_steer.evidence import least_controls

ROOT = Path(__file__).parents[1]

REAL: dict[str, Any] = {
    "model": {"name": "Qwen/Qwen3-4B-Instruct-2507", "dtype": "bfloat16"},
    "hook_name": "blocks.18.hook_resid_pre",
    "prompts": {"source": "code-math-mixed", "limit": None},
    "sae": {"load": {"source": "some-release", "sae_id": "layer-18"}},
    "select": {"prompts": "code-math-domains"},
    "metrics": ["kl"],
}
MARGIN = {"margin": {"name": "m", "target": {"regex": r"\s*\$+"}, "other": ["The", "In"]}}


def refusal(data: Any, overrides: tuple[str, ...] = ()) -> str:
    """The sentence with which a config is refused."""
    with pytest.raises(InputError) as refused:
        parse_config(data, overrides)
    sentence = str(refused.value)
    assert "\n" not in sentence and sentence.startswith("config: ")
    return sentence


# --- the defaults, and YAML both ways


def test_the_defaults_describe_the_tiny_run():
    spec = parse_config({})
    assert spec == RunSpec()
    assert spec.model.name == "tiny-qwen3" and spec.hook_name is None
    assert spec.prompts == PromptSpec(source="tiny-code-math-mixed", limit=24)
    assert spec.sae.train is not None and spec.sae.load is None
    assert (spec.sae.train.d_sae, spec.sae.train.options["k"]) == (1024, 20)
    assert spec.sweep.alphas == (-4, -2, 0, 2, 4) and spec.sweep.n_controls == 512
    assert isinstance(spec.metrics[0], MarginMetric)
    assert spec.metrics[1:] == ("kl", "latex_first")


def test_the_demo_is_the_first_example():
    """Its texts of controls suffice for a claim about the two features that get completions."""
    demo = parse_config(DEMO)
    assert demo == load_config(ROOT / "configs/tiny/code_vs_math.yaml")
    completions = demo.sweep.completions
    assert completions.n_controls == least_controls(2 * completions.top)


@pytest.mark.parametrize(
    "data",
    [
        {},
        REAL,
        {"sweep": {"features": [3, 1], "alphas": [1e-7, -2], "completions": {"top": 0}}},
        {"sweep": {"controls": ["covariance", "token_difference"], "match": "kl"}},
        {"metrics": [MARGIN, "kl", "some.module:function"]},
        {"metrics": [{"margin": {"target": {"strings": ["1e5", "yes", "=", "é\n"]}}}]},
        {"sae": {"train": {"architecture": "standard", "options": {"l1_coefficient": 1e-3}}}},
        {"activations": {"max_norm": None}, "prompts": {"system": "Be brief: no.", "chat": True}},
        {"model": {"class": "TransformerBridge"}},
    ],
)
def test_what_is_dumped_is_loaded_back_equal(data, tmp_path):
    spec = parse_config(data)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(spec), encoding="utf-8")
    assert load_config(path) == spec
    assert dump_config(load_config(path)) == dump_config(spec)


def test_an_empty_file_is_the_tiny_run(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert load_config(tmp_path / "c.yaml") == RunSpec()


def test_a_number_in_exponent_form_is_a_number(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("sae: {train: {architecture: standard, options: {l1_coefficient: 5e-3}}}")
    loaded = load_config(path, ["sae.train.lr=1e-4", "sae.train.options.x=-2E+3"]).sae.train
    assert loaded is not None and loaded.lr == 1e-4
    assert loaded.options == {"l1_coefficient": 5e-3, "x": -2000.0}


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("sweep: {seed: 1}\nmetrics: [kl]\nsweep: {seed: 2}\n")
    with pytest.raises(InputError, match=r"duplicate key 'sweep'.*line 3"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sweep: [", "not valid YAML"),
        ("- a list", "must be a mapping"),
        ("just a word", "must be a mapping"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused(text, hint, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=hint) as refused:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*no\.yaml"):
        load_config(tmp_path / "no.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"hook_name: caf\xe9")
    with pytest.raises(InputError, match="not UTF-8: save it as UTF-8"):
        load_config(tmp_path / "latin.yaml")


# --- what is refused, and what is named instead


@pytest.mark.parametrize(
    ("data", "key", "near"),
    [
        ({"swep": {}}, "swep", "sweep"),
        ({"sweep": {"alpha": [1]}}, "sweep.alpha", "alphas"),
        (
            {"sweep": {"completions": {"tempratur": 1}}},
            "sweep.completions.tempratur",
            "temperature",
        ),
        ({"sae": {"trian": {}}}, "sae.trian", "train"),
        ({"sae": {"train": {"batch_size": 1}}}, "sae.train.batch_size", "batch_tokens"),
        ({"sae": {"load": {"sorce": "x"}}}, "sae.load.sorce", "source"),
        ({"model": {"clas": "x"}}, "model.clas", "class"),
        ({"metrics": [{"margn": {"target": [4]}}]}, "metrics.0.margn", "margin"),
        ({"metrics": ["kl", {"margin": {"targt": "x"}}]}, "metrics.1.margin.targt", "target"),
        (
            {"metrics": [{"margin": {"target": {"string": ["a"]}}}]},
            "metrics.0.margin.target.string",
            "strings",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_key_of_its_own_section(data, key, near):
    assert refusal(data) == f"config: unknown key '{key}'; did you mean '{near}'?"


@pytest.mark.parametrize("key", ["system", "seed", "d_sae", "xyz"])
def test_a_key_of_another_section_is_answered_with_the_keys_of_this_one(key):
    sentence = refusal({"model": {key: 1}})
    assert (
        sentence
        == f"config: unknown key 'model.{key}'; known: name, fetch_with, class, dtype, device"
    )


def test_a_key_of_a_step_called_from_python_is_judged_by_that_steps_spec():
    with pytest.raises(InputError, match="sweep: unknown key 'alpa'; did you mean 'alphas'"):
        checked(SweepSpec, {"alpa": 1}, "sweep")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"sweep": {"alphas": [0]}}, "sweep.alphas: needs at least one strength other than 0"),
        ({"sweep": {"alphas": []}}, "sweep.alphas: needs at least one strength other than 0"),
        ({"sweep": {"alphas": 3}}, "sweep.alphas: should be a list"),
        ({"sweep": {"alphas": [float("nan")]}}, "sweep.alphas.0: should be a finite number"),
        ({"sweep": {"alphas": [float("inf")]}}, "sweep.alphas.0: should be a finite number"),
        ({"sweep": {"features": [1, 1]}}, "sweep.features: lists a feature twice"),
        ({"sae": None}, "sae: should be a mapping of keys"),
        ({"sae": {}}, "sae: give exactly one of train and load"),
        (
            {"sae": {"train": {}, "load": {"source": "x"}}},
            "sae: give exactly one of train and load",
        ),
        ({"sae": {"load": {}}}, "sae.load.source: is missing"),
        ({"metrics": []}, "metrics: should not be empty"),
        ({"metrics": "kl"}, "metrics: should be a list"),
        ({"model": {"class": "X"}}, "'HookedTransformer' or 'TransformerBridge'"),
        ({"prompts": {"limit": 0}}, "prompts.limit: should be greater than 0, not 0"),
        (
            {"select": {"positive": "math"}},
            "select: positive and negative are both 'math': name two domains",
        ),
        (
            {"sweep": {"completions": {"samples": 2}}},
            "sweep.completions: samples > 1 needs a temperature above 0",
        ),
    ],
)
def test_a_bad_value_is_refused_with_its_key_in_one_sentence(data, sentence):
    assert sentence in refusal(data)


@pytest.mark.parametrize("features", ["candidate", 3, ["a"], [1, "a"], [1.5], None])
def test_bad_features_are_told_both_right_forms(features):
    sentence = refusal({"sweep": {"features": features}})
    assert sentence == (
        "config: sweep.features: should be 'candidates' or a list of feature indices"
    )


def test_a_config_that_is_no_mapping_is_refused():
    with pytest.raises(InputError, match="must be a mapping of sections"):
        parse_config([1])


# --- what a real model must state


@pytest.mark.parametrize("left_out", ["hook_name", "sae", "prompts", "select", "metrics"])
def test_a_config_for_another_model_must_state_what_tiny_defaults_do_not_fit(left_out):
    stated = {key: value for key, value in REAL.items() if key != left_out}
    sentence = refusal(stated)
    assert f"the config must state {left_out}: the defaults are for tiny-qwen3" in sentence


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("hook_name", {"hook_name": None}),
        ("prompts.source", {"prompts": {"limit": 5}}),
        ("select.prompts", {"select": {"k": 5}}),
        ("sae.train.corpus", {"sae": {"train": {"d_sae": 64}}}),
    ],
)
def test_a_section_that_is_there_but_leaves_the_tiny_default_does_not_count(key, part):
    assert f"must state {key}: the defaults" in refusal(REAL | part)


def test_all_that_is_missing_is_named_at_once():
    assert "must state hook_name, metrics, prompts, sae, select:" in refusal(
        {"model": {"name": "x/y"}}
    )


def test_metrics_of_another_model_come_with_the_line_to_write():
    stated = {key: value for key, value in REAL.items() if key != "metrics"}
    assert "write metrics: [kl]" in refusal(stated)
    assert RunSpec().metrics == DEFAULT_METRICS


def test_a_run_can_be_given_as_a_spec_a_mapping_or_a_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("sweep: {n_controls: 64}\n")
    spec = RunSpec(sweep=SweepSpec(n_controls=64))
    for given in (spec, {"sweep": {"n_controls": 64}}, path, str(path)):
        assert as_config(given) == spec
        changed = as_config(given, ["sweep.seed=3"]).sweep
        assert (changed.n_controls, changed.seed) == (64, 3)
    mixed = as_config({"sweep": SweepSpec(n_controls=64)}, ["sweep.seed=3"])
    assert (mixed.sweep.n_controls, mixed.sweep.seed) == (64, 3)


def test_an_override_of_a_spec_decides_anew_what_was_left_to_defaults():
    assert parse_config(REAL).sweep.n_controls == 1000
    other = as_config(RunSpec(), ["sae.train.architecture=topk"]).sae.train
    assert other is not None and other.options == {}


def test_overrides_that_are_no_list_are_refused():
    with pytest.raises(InputError, match=r"write overrides=\['sweep.seed=3'\]"):
        as_config({}, "sweep.seed=3")


def test_a_config_for_another_model_that_states_all_is_taken():
    assert parse_config(REAL).hook_name == "blocks.18.hook_resid_pre"


# --- --set


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("sweep.alphas=[3, -3]", lambda s: s.sweep.alphas == (-3, 0, 3)),
        ("sweep.features=[7, 2]", lambda s: s.sweep.features == (7, 2)),
        ("prompts.limit=null", lambda s: s.prompts.limit is None),
        ("sae.train.options.k=8", lambda s: s.sae.train.options == {"k": 8}),
        ("sweep.completions.max_new_tokens=5", lambda s: s.sweep.completions.max_new_tokens == 5),
        ("prompts.system='a=b: c'", lambda s: s.prompts.system == "a=b: c"),
        ("metrics=[kl]", lambda s: s.metrics == ("kl",)),
        ("model.class=TransformerBridge", lambda s: s.model.class_ == "TransformerBridge"),
    ],
)
def test_an_override_is_read_as_yaml_at_its_dotted_key(override, read):
    assert read(parse_config({}, [override]))


def test_overrides_keep_the_other_keys_of_their_section_and_the_last_one_wins():
    data = {"sweep": {"seed": 3, "n_controls": 9}}
    spec = parse_config(data, ["sweep.seed=4", "sweep.seed=5"])
    assert (spec.sweep.seed, spec.sweep.n_controls) == (5, 9)
    assert data == {"sweep": {"seed": 3, "n_controls": 9}}


def test_an_sae_to_train_is_exchanged_for_one_to_load_by_setting_it_to_null():
    data = {"sae": {"train": {"d_sae": 64}}}
    spec = parse_config(data, ["sae.load.source=x", "sae.train=null"])
    assert spec.sae.train is None and spec.sae.load is not None
    assert "exactly one of train and load" in refusal(data, ("sae.load.source=x",))


@pytest.mark.parametrize("override", ["sweep.seed", "=3", "a..b=3", ".a=3", ""])
def test_an_override_without_key_or_value_is_refused(override):
    with pytest.raises(InputError, match=r"an override is written dotted\.key=value"):
        parse_config({}, [override])


def test_an_override_that_is_no_yaml_or_names_no_key_is_refused():
    with pytest.raises(InputError, match=r"the value of override .* is not valid YAML"):
        parse_config({}, ["sweep.alphas=[1"])
    assert "unknown key 'sweep.sed'; did you mean 'seed'" in refusal({}, ("sweep.sed=1",))


# --- metrics


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("latex_delimiters", {"name": "latex_delimiters"}),
        (["a", "b"], {"strings": ("a", "b")}),
        ([4, 5], {"ids": (4, 5)}),
        ({"regex": "a+"}, {"regex": "a+"}),
        ({"strings": ["a"]}, {"strings": ("a",)}),
    ],
)
def test_a_token_set_has_short_forms(short, long):
    metric = parse_config({"metrics": [{"margin": {"target": short}}]}).metrics[0]
    assert isinstance(metric, MarginMetric)
    assert metric.margin.target == TokenSetSpec(**long)


@pytest.mark.parametrize("target", [{"ids": [1], "regex": "a"}, {}, [], {"strings": []}, ""])
def test_a_token_set_is_given_in_exactly_one_way(target):
    sentence = refusal({"metrics": [{"margin": {"target": target}}]})
    assert "metrics.0.margin.target: give a token set by exactly one of" in sentence


@pytest.mark.parametrize("metric", [3, None, ["kl"], 1.5])
def test_a_metric_of_no_known_form_is_told_all(metric):
    sentence = refusal({"metrics": ["kl", metric]})
    assert sentence == (
        "config: metrics.1: a metric is the name of a built-in one, {margin: …}, {log_prob: …}, "
        "{mentions: …} or package.module:function"
    )


# --- what specs promise


def test_alphas_are_sorted_distinct_and_hold_zero():
    assert SweepSpec(alphas=(4, -1, 4, -0.0)).alphas == (-1, 0, 4)
    assert SweepSpec(alphas=(2,)).alphas == (0, 2)


def test_one_family_of_controls_is_written_as_its_name_and_several_as_a_list():
    one = parse_config({"sweep": {"controls": ["isotropic"]}})
    assert one == parse_config({"sweep": {"controls": "isotropic"}})
    assert "controls: isotropic\n" in dump_config(one)
    assert one.sweep.families == ("isotropic",)
    both = parse_config({}, ["sweep.controls=[feature, permuted]"])
    assert both.sweep.families == ("feature", "permuted")
    assert "controls:\n  - feature\n  - permuted\n" in dump_config(both)
    assert parse_config({}, ["sweep.n_controls=0"]).sweep.families == ()


@pytest.mark.parametrize("base", [{}, REAL], ids=["tiny", "real"])
def test_a_mapping_gives_each_family_its_number(base):
    families = "sweep.controls=[isotropic, covariance]"
    spec = parse_config(base, [families, "sweep.n_controls={covariance: 199, isotropic: 39}"])
    assert spec.sweep.controls_by_family == {"isotropic": 39, "covariance": 199}
    assert spec.sweep.families == ("isotropic", "covariance")
    of_texts = {"top": 1, "n_controls": 99}
    few = spec.sweep.model_copy(update={"completions": CompletionSpec(**of_texts)})
    assert few.work(tested=1) == (238, 1 + 39)
    assert parse_config(yaml.safe_load(dump_config(spec))) == spec


@pytest.mark.parametrize("numbers", [{"covariance": 9}, {"covariance": 9, "feature": 9}])
def test_a_mapping_names_the_families_of_controls_and_no_others(numbers):
    sweep = {"controls": ["covariance", "isotropic"], "n_controls": numbers}
    assert "each family in controls and to no other: covariance, isotropic" in refusal(
        {"sweep": sweep}
    )
    assert "sweep.n_controls" in refusal({"sweep": {"n_controls": {"covariance": 0}}})


@pytest.mark.parametrize(
    ("controls", "sentence"),
    [
        ("covarience", "should be one of covariance, isotropic, feature, permuted, token_differ"),
        (["covariance", 3], "or a list of them"),
        ([], "lists no family"),
        (["isotropic", "isotropic"], "lists a family twice"),
    ],
)
def test_bad_controls_are_told_what_there_is(controls, sentence):
    assert refusal({"sweep": {"controls": controls}}).startswith("config: sweep.controls: ")
    assert sentence in refusal({"sweep": {"controls": controls}})


@pytest.mark.parametrize(
    ("unit", "match", "by", "own"),
    [
        ("raw", None, "norm", False),
        ("raw", "norm", "norm", False),
        ("max_act", "kl", "kl", True),
        ("kl", None, "kl", False),
        ("kl", "kl", "kl", False),
        ("kl", "norm", "norm", True),
    ],
)
def test_candidates_share_controls_unless_these_match_what_strengths_do_not_count(
    unit, match, by, own
):
    spec = SweepSpec(alpha_unit=unit, match=match)
    assert (spec.matched_by, spec.per_candidate_controls) == (by, own)
    assert spec.calibrated == ("kl" in (unit, match))


def test_specs_are_frozen_and_do_not_share_their_defaults():
    spec = RunSpec()
    with pytest.raises(ValidationError):
        spec.hook_name = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        spec.sweep.seed = 1  # type: ignore[misc]
    assert spec.sae.train is not None
    spec.sae.train.options["k"] = 3
    assert TrainSpec().options["k"] == 20 and RunSpec() != spec


def test_another_architecture_does_not_inherit_batchtopks_options():
    assert TrainSpec(architecture="standard").options == {}
    assert TrainSpec(architecture="batchtopk").options == TrainSpec().options != {}


def test_samples_may_be_many_when_they_can_differ():
    assert CompletionSpec(samples=3, temperature=0.7).samples == 3


JUNK = (None, 3, -1, 2.5, True, "x", "", [], {}, ["a"], {"a": 1}, {3: 4}, [None], float("nan"))


def spoilt(data: Any, draw: random.Random) -> Any:
    """The data with one value exchanged, or one key misspelt, somewhere inside."""
    if not isinstance(data, dict | list) or not data or draw.random() < 0.2:
        return draw.choice(JUNK)
    if isinstance(data, list):
        place = draw.randrange(len(data))
        return [*data[:place], spoilt(data[place], draw), *data[place + 1 :]]
    key = draw.choice(list(data))
    if draw.random() < 0.2:
        return {f"{name}s" if name == key else name: value for name, value in data.items()}
    return data | {key: spoilt(data[key], draw)}


def test_whatever_stands_in_a_config_all_of_it_is_judged_and_nothing_else_is_raised():
    whole = parse_yaml(dump_config(parse_config(REAL | {"tradeoffs": {"prompts": "p"}})), "dumped")
    counts = set()
    for seed in range(300):
        draw, data = random.Random(seed), whole
        for _ in range(1 + seed % 4):
            data = spoilt(data, draw)
        if not isinstance(data, dict) or 3 in data:
            continue
        mistakes = draft_config(data).mistakes
        counts.add(len(mistakes))
        assert all(mistake and "\n" not in mistake for mistake in mistakes)
        assert len({*mistakes}) == len(mistakes)
    assert {0, 1, 2, 3} <= counts
