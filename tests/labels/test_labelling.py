"""The evidence that features are named from, and the examples that test the names."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from saes import random_sae

HOOK = "blocks.2.hook_resid_pre"
FEATURES = [3, 5, 8, 13]


@pytest.fixture(scope="module")
def cached(random_model):
    import saelens_steer as ss

    prompts = [ss.Prompt(f"p{i}", f"number {i} of {i * i} things", "ab"[i % 2]) for i in range(40)]
    return ss.cache_activations(random_model, prompts, hook_name=HOOK, chat=True)


@pytest.fixture(scope="module")
def sae():
    """An SAE whose features fire on a minority of tokens."""
    sparse = random_sae(32)
    sparse.b_enc.data -= 1.0
    return sparse


@pytest.fixture(scope="module")
def job(random_model, sae, cached) -> Any:
    import saelens_steer as ss
    from saelens_steer.config import LabelSpec, SweepSpec, TemplateSpec
    from saelens_steer.features import measured_scale
    from saelens_steer.labels import EvidenceCollector

    prompts = [ss.Prompt(f"s{i}", f"sum {i} now", "ab"[i % 2]) for i in range(8)]
    spec = LabelSpec(contexts=2, detection=3, max_new_tokens=4, alphas=(-1, 1, 3))
    scale = measured_scale(cached, sae, FEATURES)
    where = random_model, sae, HOOK, cached, prompts, spec
    return EvidenceCollector(
        *where, FEATURES, {3: "a"}, scale, SweepSpec(), TemplateSpec(chat=True)
    )


@pytest.fixture(scope="module")
def cases(job) -> Any:
    from saelens_steer.labels.collect import LabelTexts

    def write(measurement, directions) -> pd.DataFrame:
        return measurement.completion_rows(directions, range(len(directions)))

    texts = job.texts(write)
    assert isinstance(texts, LabelTexts)
    return texts, job.collect(texts).cases


def fires(sae, cached, prompt: str, positions, feature: int) -> torch.Tensor:
    """Activations of a feature at some positions of a prompt, computed from the cache."""
    index = cached.index.reset_index(drop=True)
    own = index[index["prompt_id"] == prompt].set_index("position")
    rows = [own.index.get_loc(position) for position in positions]
    first = int(index.index[index["prompt_id"] == prompt][0])
    x = cached.take(torch.tensor([first + row for row in rows]))
    return sae.encode(x)[:, feature]


def test_firing_contexts_peak_at_their_peak_and_silent_ones_never_fire(cases, sae, cached):
    for case in cases[1]:
        feature, trials = case.evidence.feature, case.trials
        assert len(trials.firing) == 3
        for context in (*case.evidence.contexts, *trials.firing):
            z = fires(sae, cached, context.prompt_id, context.positions, feature)
            assert z[context.peak] == z.max() > 0
        for context in trials.silent:
            z = fires(sae, cached, context.prompt_id, context.positions, feature)
            assert not bool((z > 0).any())


def test_shown_contexts_are_never_held_out_ones(cases):
    for case in cases[1]:
        kinds = (case.evidence.contexts, case.trials.firing, case.trials.silent)
        prompts = [context.prompt_id for contexts in kinds for context in contexts]
        assert len(prompts) == len(set(prompts))


def test_shown_prompts_are_in_no_pair(cases, job):
    for case in cases[1]:
        shown = {texts.prompt for texts in case.evidence.texts}
        assert len(shown) == job.spec.examples
        assert {text.split()[1] for text in shown} & {"0", "2", "4", "6"}  # one of each domain
        assert {text.split()[1] for text in shown} & {"1", "3", "5", "7"}
        tested = {pair.prompt for pair in case.trials.pairs}
        assert not shown & tested
        assert len(shown | tested) == len(job.prompts)


def test_a_pair_is_at_the_largest_strength_and_both_pushes_have_one_norm(cases, job, sae):
    texts, found = cases
    rows = texts.controls
    assert set(rows["alpha"]) == {0.0, 3.0}
    for case in found:
        feature = case.evidence.feature
        own = rows[rows["matched_to"] == f"feature_{feature}"]
        steered = own[own["alpha"] != 0]
        assert len(steered) == len(job.prompts) - job.spec.examples
        norm = job.scale.a_max(feature) * float(sae.W_dec[feature].norm())
        assert own["matched_norm"].iloc[0] == pytest.approx(norm, rel=1e-5)
        table = texts.features
        mine = table[(table["feature"] == feature) & (table["alpha"] == 3)]
        by_prompt = dict(zip(mine["prompt_id"], mine["completion"], strict=True))
        asked = {p.text: p.id for p in job.prompts}
        assert all(pair.steered == by_prompt[asked[pair.prompt]] for pair in case.trials.pairs)


def test_label_inputs_survive_writing_and_reading(job, cases):
    import json
    from dataclasses import asdict

    from pydantic import TypeAdapter

    from saelens_steer.labels import LabelInputs

    found = job.collect(cases[0])
    kept = json.loads(json.dumps(asdict(found)))
    assert TypeAdapter(LabelInputs).validate_python(kept) == found
    assert len(found.ordinary) == 40
    assert "number 7 of 49 things" in found.ordinary[7]


@pytest.mark.parametrize("kind", ["input", "output"])
def test_only_the_requested_kind_of_evidence_is_shown(job, cases, kind):
    from dataclasses import replace

    spec = job.spec.model_copy(update={"evidence": kind, "example_chars": 3})
    found = replace(job, spec=spec)
    texts = replace(cases[0], chars=3)
    for case in found.collect(texts).cases:
        own = case.evidence
        assert bool(own.contexts) == bool(own.rates) == (kind == "input")
        assert bool(own.raised) == bool(own.texts) == (kind == "output")
        assert case.trials.firing and case.trials.pairs
        shown = [text for texts in own.texts for text in (texts.prompt, *texts.steered.values())]
        pairs = [t for pair in case.trials.pairs for t in (pair.prompt, pair.steered, pair.other)]
        assert all(len(text) <= 3 for text in shown + pairs)


def test_position_does_not_give_silent_contexts_away(random_model, cached):
    """Silent contexts are as deep in their prompts as firing ones, so position is no clue."""
    from saelens_steer.config import LabelSpec
    from saelens_steer.features import feature_activity, shown_tokens
    from saelens_steer.labels.contexts import _rows

    sae = random_sae(32)
    shown = shown_tokens(random_model.tokenizer, cached)
    found = feature_activity(sae, cached, FEATURES, shown)
    spec = LabelSpec(contexts=2, detection=6)
    for column in range(len(FEATURES)):
        top, firing, tried = _rows(found, column, spec)
        where = [int(cached.index["position"].iloc[row]) for row in (*firing, *tried)]
        n = len(firing)
        means = torch.tensor(where[:n]).float().mean(), torch.tensor(where[n:]).float().mean()
        assert abs(means[0] - means[1]) < 4
        prompts = {int(found.origins.prompt_of[row]) for row in (*top, *firing)}
        assert not prompts & {int(found.origins.prompt_of[row]) for row in tried}


def test_each_prompt_has_its_own_random_direction_whatever_features_are_labelled(job):
    from dataclasses import replace

    def directions_of(features: list[int]) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []

        def note(measurement, directions) -> pd.DataFrame:
            place = directions.features.index(None) if None in directions.features else None
            if place is not None:
                names = [str(name) for name in directions.matched_to]
                seen.append(directions.vectors[names.index("feature_8")])
            return pd.DataFrame()

        replace(job, features=features).texts(note)
        return seen

    alone, among = directions_of([8]), directions_of(FEATURES)
    assert len(alone) == len(among) == 6
    assert all(torch.allclose(a, b) for a, b in zip(alone, among, strict=True))
    units = torch.stack(alone) / torch.stack(alone).norm(dim=1, keepdim=True)
    assert (units @ units.T).fill_diagonal_(0).abs().max() < 0.99


def test_the_steering_effect_counts_exactly_the_steered_texts(cases, job, random_model):
    from saelens_steer.labels.scores import steering_effect

    table = cases[0].features
    for case in cases[1]:
        rows = table[(table["feature"] == case.evidence.feature) & (table["alpha"] != 0)]
        assert len(rows) == 3 * len(job.prompts)
        tokenize = random_model.tokenizer
        ids = [tokenize(t, add_special_tokens=False)["input_ids"] for t in rows["completion"]]
        assert case.effect == pytest.approx(steering_effect(ids))


def test_a_feature_that_never_fires_is_not_steered_but_still_labelled(random_model, cached):
    import saelens_steer as ss

    dead = random_sae(32)
    dead.b_enc.data[5] = -1e6
    prompts = [f"sum {i} now" for i in range(4)]
    table = ss.label_features(
        random_model, dead, cached, [5, 3], prompts, max_new_tokens=3, n_prompts=4
    )
    assert list(table["feature"]) == [5, 3]
    assert pd.isna(table["steering_effect"][0])
    assert table["causal_status"][0] in ("too_few", "no_label")
    assert table["steering_effect"][1] > 0


def test_a_notebook_can_ask_a_server_and_cache_its_answers(random_model, sae, cached, tmp_path):
    from loopback import MODEL, serving

    import saelens_steer as ss

    prompts = [f"sum {i} now" for i in range(6)]
    with serving() as server:
        about = {"base_url": server.base_url, "model": MODEL}
        given = {"provider": "openai-compatible", "server": about, "max_new_tokens": 3}
        tables = [
            ss.label_features(random_model, sae, cached, [3], prompts, answers=tmp_path, **given)
            for _ in range(2)
        ]
        n_asked = len(server.asked)
        ss.label_features(random_model, sae, cached, [3], prompts, **given)
        assert len(server.asked) == 2 * n_asked > 0
    assert tables[0]["label"].tolist() == ["names of fruit"]
    pd.testing.assert_frame_equal(*tables)


def test_what_cannot_be_labelled_is_refused_before_any_steering(
    random_model, sae, cached, unchecked
):
    import saelens_steer as ss
    from saelens_steer.errors import InputError

    def refused(match: str, features=(3,), prompt="sum now", **options: Any) -> None:
        with pytest.raises(InputError, match=match):
            ss.label_features(random_model, sae, cached, features, [prompt], **options)

    refused("range", features=[32])
    refused("range", features=-1)
    refused("n_prompts", n_prompts=0)
    refused("is both steered and cached", prompt="number 3 of 9 things")
    refused("needs server", provider="openai-compatible")
    refused("leave server out", server={"base_url": "http://x/v1", "model": "m"})
    refused("above 0", alphas=[-1])
    refused("wide", alphas="widest")
    refused("n_ctx", max_new_tokens=10**6)


def test_a_transcoder_is_named_from_what_it_reads_and_from_texts_steered_where_it_writes(
    random_model, tmp_path, monkeypatch
):
    from transcoders import random_transcoder

    import saelens_steer as ss
    from saelens_steer.errors import InputError
    from saelens_steer.labels import collect

    transcoder = random_transcoder(random_model.cfg.d_model, 1)
    read, out = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
    acts = ss.cache_activations(random_model, ["Let x be", "show your work"], hook_name=read)
    seen, drawn = [], collect.draw_controls

    def draw(*args, vectors, **options):
        seen.append(vectors.hook_name)
        return drawn(*args, vectors=vectors, **options)

    monkeypatch.setattr(collect, "draw_controls", draw)
    prompts = [f"sum {i} now" for i in range(4)]
    options = {"max_new_tokens": 3, "n_prompts": 4}
    table = ss.label_features(random_model, transcoder, acts, [5], prompts, **options)
    assert seen == [out] and table["steering_effect"][0] > 0
    wrong = ss.cache_activations(random_model, ["Let x be"], hook_name=out)
    with pytest.raises(InputError, match=f"hook_name='{read}'"):
        ss.label_features(random_model, transcoder, wrong, [5], prompts, **options)
