"""Laws of selection: planted features are found, dead ones never, and ties are deterministic."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_class
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from saelens_steer.activations import Activations
from saelens_steer.errors import InputError
from saelens_steer.features import contrast, domain_statistics, select_features
from saelens_steer.features.domain_statistics import auroc
from saelens_steer.features.scale import feature_activations, firing_rates, measured_scale
from saelens_steer.sae import codec

D = 8
HOOK = "blocks.2.hook_resid_pre"
SCORES = ("mean_difference", "auroc", "firing_difference")


def identity_sae(**cfg) -> SAE:
    """z = relu(x): feature i is coordinate i; features 8 to 11 are dead."""
    sae = StandardSAE(StandardSAEConfig(d_in=D, d_sae=D + 4, apply_b_dec_to_input=False, **cfg))
    sae.W_enc.data = torch.eye(D, D + 4)
    sae.W_dec.data = torch.eye(D + 4, D)
    sae.b_enc.data.zero_()
    sae.b_dec.data.zero_()
    return sae.to(sae.dtype)


def activations(rows: dict[tuple[str, str], torch.Tensor]) -> Activations:
    """Vectors under (domain, part)."""
    index = pd.DataFrame(
        [
            {"prompt_id": f"{d}{i}", "domain": d, "position": 3, "token": 9, "text": "x", "part": p}
            for (d, p), vectors in rows.items()
            for i in range(len(vectors))
        ]
    )
    return Activations(torch.cat(list(rows.values())), index, HOOK)


def planted(part: str = "assistant_start", n: int = 12) -> Activations:
    """Coordinates 2 and 5 mark code (2 more strongly), 6 marks maths, 0 both equally."""
    draw = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.rand(2, n, D, generator=draw) - 0.5
    code, math = noise
    code[:, 2] += 6.0
    code[:, 5] += 3.0
    math[:, 6] += 2.0
    code[:, 0], math[:, 0] = 1.0, 1.0
    return activations({("code", part): code, ("math", part): math})


@pytest.mark.parametrize("score", SCORES)
def test_planted_features_are_found_on_their_own_side(score):
    found = select_features(identity_sae(), planted(), "code", "math", score=score)
    assert found.candidates == {"code": [2, 5], "math": [6]}
    assert found.features == [2, 5, 6]
    assert found.score == score


def test_exchanged_domains_exchange_the_sides():
    forth = select_features(identity_sae(), planted(), "code", "math")
    back = select_features(identity_sae(), planted(), "math", "code")
    assert forth.candidates == back.candidates
    pd.testing.assert_series_equal(forth.scores["mean_difference"], -back.scores["mean_difference"])
    np.testing.assert_allclose(forth.scores["auroc"], 1 - back.scores["auroc"])


def test_k_keeps_the_best_of_each_side():
    found = select_features(identity_sae(), planted(), "code", "math", k=1)
    assert found.candidates == {"code": [2], "math": [6]}


def test_dead_features_are_neither_chosen_nor_scored():
    found = select_features(identity_sae(), planted(), "code", "math", k=100)
    assert set(found.scores.index) == {0, 2, 5, 6}
    assert set(found.features) == {2, 5, 6}, "a feature that tells nothing apart is on no side"


def test_where_nothing_fires_nothing_is_chosen():
    vectors = -torch.ones(3, D)
    acts = activations({(d, "assistant_start"): vectors for d in ("code", "math")})
    found = select_features(identity_sae(), acts, "code", "math")
    assert found.candidates == {"code": [], "math": []} and len(found.scores) == 0
    json.dumps(found.to_json(HOOK, {}), allow_nan=False)


def three_domains() -> Activations:
    """Coordinate 1 marks code and, more, maths; 2 code; 3 maths; 4 prose, as against both."""
    draw = torch.Generator().manual_seed(0)
    code, math, prose = 0.1 * torch.rand(3, 12, D, generator=draw) - 0.5
    code[:, 1], math[:, 1] = 2.0, 4.0
    code[:, 2], math[:, 3], prose[:, 4] = 3.0, 3.0, 5.0
    parts = {"code": code, "math": math, "prose": prose}
    return activations({(domain, "assistant_start"): x for domain, x in parts.items()})


@pytest.mark.parametrize("score", SCORES)
def test_with_a_reference_each_side_is_compared_with_it_and_not_with_the_other(score):
    apart = select_features(identity_sae(), three_domains(), "code", "math", score=score)
    assert 1 not in apart.candidates["code"], "it fires more for maths"
    found = select_features(
        identity_sae(), three_domains(), "code", "math", reference="prose", score=score
    )
    assert set(found.candidates["code"]) == {1, 2}
    assert found.candidates["math"] == [3], "feature 1 is among the best of both, so it is code's"
    assert found.to_json(HOOK, {})["reference"] == "prose"


def test_the_scores_of_a_reference_are_those_of_two_selections_against_it():
    both = select_features(identity_sae(), three_domains(), "code", "math", reference="prose")
    for prefix, side in (("", "code"), ("negative_", "math")):
        alone = select_features(identity_sae(), three_domains(), side, "prose").scores
        for name in (*SCORES, "auroc_error"):
            own = both.scores[prefix + name].loc[alone.index]
            np.testing.assert_array_equal(own, alone[name])
    assert set(both.scores.index) == {1, 2, 3, 4}, "and features of prose alone are scored"


def test_code_against_prose_is_the_same_whatever_the_other_side_is():
    found = select_features(identity_sae(), three_domains(), "code", "math", reference="prose")
    alone = select_features(identity_sae(), three_domains(), "code", "prose")
    assert found.candidates["code"] == alone.candidates["code"]


@pytest.mark.parametrize("side", ["code", "math"])
def test_a_reference_is_a_third_domain(side):
    with pytest.raises(InputError, match="name a third domain"):
        select_features(identity_sae(), three_domains(), "code", "math", reference=side)


def test_a_selection_says_where_it_found_too_few_or_nothing_that_separates():
    assert select_features(identity_sae(), planted(), "code", "math", k=1).doubts == []
    found = select_features(identity_sae(), planted(), "code", "math", k=2)
    assert found.doubts == ["Features that favour math by mean_difference: only 1 of 2."]
    assert found.doubts[0] in repr(found) and found.to_json(HOOK, {})["doubts"] == found.doubts
    draw = torch.Generator().manual_seed(0)
    alike = torch.rand(2, 400, D, generator=draw)
    parts = [("code", "assistant_start"), ("math", "assistant_start")]
    acts = activations(dict(zip(parts, alike, strict=True)))
    (code, math) = select_features(identity_sae(), acts, "code", "math", k=2).doubts
    assert code.startswith("The features for code hardly separate it: their AUROC is within 0.0")
    assert "for math" in math


@pytest.mark.parametrize("score", SCORES)
def test_ties_go_to_the_lower_index_on_both_sides(score):
    code, math = torch.zeros(4, D), torch.zeros(4, D)
    code[:, [7, 1, 4]] = 2.0
    math[:, [6, 0, 3]] = 2.0
    acts = activations({("code", "assistant_start"): code, ("math", "assistant_start"): math})
    found = select_features(identity_sae(), acts, "code", "math", score=score, k=2)
    assert found.candidates == {"code": [1, 4], "math": [0, 3]}


def test_scores_are_what_their_names_say():
    code = torch.tensor([[3.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    math = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    pad = torch.nn.functional.pad
    sides = {"code": pad(code, (0, D - 2)), "math": pad(math, (0, D - 2))}
    acts = activations({(side, "assistant_start"): z for side, z in sides.items()})
    scores = select_features(identity_sae(), acts, "code", "math").scores
    assert scores.loc[0].to_dict() == pytest.approx(
        {
            "mean_difference": 4 / 3 - 1 / 2,
            "auroc": (2 + 1.5 + 0.5) / 6,
            "auroc_error": 0.0,
            "firing_rate_positive": 2 / 3,
            "firing_rate_negative": 1 / 2,
            "firing_difference": 1 / 6,
            "max_act": 3.0,
        }
    )
    assert scores.loc[1, "mean_difference"] == pytest.approx(2 / 3 - 1 / 2)


def test_auroc_is_the_share_of_pairs_won_with_ties_half(monkeypatch):
    draw = np.random.default_rng(0)
    positive, negative = draw.integers(0, 4, (7, 5)), draw.integers(0, 3, (11, 5))
    won = (positive[:, None] > negative).mean((0, 1)) + (positive[:, None] == negative).mean(
        (0, 1)
    ) / 2
    np.testing.assert_allclose(auroc(positive, negative), won)
    monkeypatch.setattr(domain_statistics, "COLUMNS", 2)
    np.testing.assert_allclose(auroc(positive, negative), won)


def test_chunks_do_not_matter(monkeypatch):
    vectors = planted().vectors
    whole = feature_activations(identity_sae(), vectors)
    monkeypatch.setattr(codec, "CHUNK", 5)
    assert feature_activations(identity_sae(), vectors).equal(whole)
    assert whole.shape == (len(vectors), D + 4)


def test_an_sae_in_bfloat16_gives_float32_activations():
    z = feature_activations(identity_sae(dtype="bfloat16"), planted().vectors)
    assert z.dtype == torch.float32
    assert z.equal(z.bfloat16().float())


def test_at_says_which_tokens_are_compared():
    start, answer = planted(), planted("answer")
    flipped = answer.vectors.flip(1)  # coordinate i becomes 7 − i
    both = Activations(
        torch.cat([start.vectors, flipped]),
        pd.concat([start.index, answer.index], ignore_index=True),
        HOOK,
    )
    at_start = select_features(identity_sae(), both, "code", "math", at="assistant_start")
    at_answer = select_features(identity_sae(), both, "code", "math", at="answer")
    assert at_start.candidates == {"code": [2, 5], "math": [6]}
    assert at_answer.candidates == {"code": [5, 2], "math": [1]}


def parts_of_prompts(tokens: str | None = "all") -> Activations:
    """Twelve prompts of two tokens and an answer of one, in two domains."""
    parts = ["prompt", "assistant_start", "answer"]
    rows = [
        {"prompt_id": f"{domain}{n}", "domain": domain, "part": part}
        for n in range(6)
        for domain in ("code", "math")
        for part in parts
    ]
    vectors = torch.randn(len(rows), D, generator=torch.Generator().manual_seed(5))
    return Activations(vectors, pd.DataFrame(rows), HOOK, tokens=tokens)


def test_at_prompt_reads_every_prompt_token_and_no_answer():
    acts = parts_of_prompts()
    z, part = feature_activations(identity_sae(), acts.vectors), acts.index["part"]
    means = [
        z[torch.tensor(((acts.index["domain"] == domain) & (part != "answer")).to_numpy())].mean(0)
        for domain in ("code", "math")
    ]
    found = select_features(identity_sae(), acts, "code", "math", at="prompt").scores
    expected = (means[0] - means[1])[torch.tensor(found.index)]
    assert found["mean_difference"].to_numpy() == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize("tokens", ["last", "diagnostic", "answer"])
def test_at_prompt_needs_a_cache_of_whole_prompts(tokens):
    with pytest.raises(InputError, match=r"kept at the prompt's tokens: set activations\.tokens"):
        select_features(identity_sae(), parts_of_prompts(tokens), "code", "math", at="prompt")


def test_other_domains_matter_to_the_largest_activation_alone():
    code_math, prose = planted(), planted()
    prose.index["domain"] = "prose"
    both = Activations(
        torch.cat([prose.vectors * 9, code_math.vectors]),
        pd.concat([prose.index, code_math.index], ignore_index=True),
        HOOK,
    )
    found = select_features(identity_sae(), both, "code", "math")
    expected = select_features(identity_sae(), code_math, "code", "math")
    own = found.scores.drop(columns="max_act")
    pd.testing.assert_frame_equal(own, expected.scores.drop(columns="max_act"))
    largest = both.vectors.amax(0).clamp_min(0).numpy()[found.scores.index]
    assert found.scores["max_act"].to_numpy() == pytest.approx(largest)


@pytest.mark.parametrize("domains", [("coda", "math"), ("code", "coda")])
def test_an_unknown_domain_is_refused_with_the_known(domains):
    with pytest.raises(InputError, match=r"domain 'coda'; the domains are code, math"):
        select_features(identity_sae(), planted(), *domains)


def test_a_cache_without_domains_says_how_to_give_them():
    acts = planted()
    acts.index["domain"] = ""
    with pytest.raises(InputError, match=r"'code'; they have none: give Prompt\(domain=…\)"):
        select_features(identity_sae(), acts, "code", "math")


def test_a_domain_against_itself_is_refused():
    with pytest.raises(InputError, match="both 'code': name two domains"):
        select_features(identity_sae(), planted(), "code", "code")


def test_a_part_that_was_not_kept_is_refused():
    with pytest.raises(
        InputError, match="no activation of domain 'code' was kept at the answer's tokens"
    ):
        select_features(identity_sae(), planted(), "code", "math", at="answer")


def test_an_sae_of_another_width_is_refused():
    acts = planted()
    wide = Activations(torch.cat([acts.vectors, acts.vectors], 1), acts.index, HOOK)
    with pytest.raises(InputError, match="the SAE reads 8 dimensions, but activations have 16"):
        select_features(identity_sae(), wide, "code", "math")


def test_activations_of_another_hook_are_refused():
    sae = identity_sae()
    sae.cfg.metadata.hook_name = "blocks.7.hook_resid_pre"
    with pytest.raises(InputError, match=r"made for blocks\.7\.hook_resid_pre, not for"):
        select_features(sae, planted(), "code", "math")


def test_the_file_is_valid_json_with_the_keys_that_readers_expect():
    found = select_features(identity_sae(), planted(), "code", "math", k=1)
    written = json.loads(json.dumps(found.to_json(HOOK, {"source": "sae"}), allow_nan=False))
    scores = written.pop("scores")
    assert written == {
        "hook_name": HOOK,
        "sae": {"source": "sae"},
        "doubts": [],
        "code_candidates": [2],
        "math_candidates": [6],
        "positive": "code",
        "negative": "math",
        "at": "assistant_start",
        "score": "mean_difference",
    }
    assert list(scores) == ["2", "6"]
    assert set(scores["2"]) == {
        "mean_difference",
        "auroc",
        "auroc_error",
        "firing_rate_positive",
        "firing_rate_negative",
        "firing_difference",
        "max_act",
    }


# --- more tokens than fit


def answers(n: int = 60, seed: int = 1) -> Activations:
    """Vectors of answers of 1 to 9 tokens, three domains in turn."""
    draw = torch.Generator().manual_seed(seed)
    names, parts = ("code", "math", "prose"), []
    for number in range(n):
        domain, length = names[number % 3], 1 + number % 9
        rows = torch.randn(length, D, generator=draw) + 0.4 * (number % 3)
        place = {"prompt_id": f"{domain}{number}", "domain": domain, "part": "answer"}
        parts.append((rows, pd.DataFrame([place] * length)))
    index = pd.concat([i for _, i in parts], ignore_index=True)
    return Activations(torch.cat([v for v, _ in parts]), index, HOOK)


@pytest.mark.parametrize("pool", ["tokens", "max"])
def test_pieces_do_not_matter_to_the_scores(monkeypatch, pool):
    sae, acts = identity_sae(), answers()
    whole = select_features(sae, acts, "code", "math", at="answer", pool=pool)
    z, index = feature_activations(sae, acts.vectors).numpy(), acts.index
    sides = [
        np.stack([z[index["prompt_id"] == p].max(0) for p in own.unique()])
        if pool == "max"
        else z[own.index]
        for own in (index.loc[index["domain"] == d, "prompt_id"] for d in ("code", "math"))
    ]
    want = (sides[0].mean(0) - sides[1].mean(0))[whole.scores.index]
    assert whole.scores["mean_difference"].to_numpy() == pytest.approx(want, abs=1e-6)
    won = auroc(*sides)[whole.scores.index]
    assert whole.scores["auroc"].to_numpy() == pytest.approx(won)
    for size_of_piece in (1, 2, 7, 50):
        monkeypatch.setattr(codec, "CHUNK", size_of_piece)
        parts = select_features(sae, acts, "code", "math", at="answer", pool=pool)
        pd.testing.assert_frame_equal(parts.scores, whole.scores)
        assert parts.scale.max_act == whole.scale.max_act
        assert parts.scale.resid_norm == pytest.approx(whole.scale.resid_norm)


def test_too_many_to_rank_are_binned_within_the_error_that_is_told(monkeypatch):
    sae, acts = identity_sae(), answers(300)
    exact = select_features(sae, acts, "code", "math", at="answer").scores
    monkeypatch.setattr(contrast, "EXACT", 0)
    found = select_features(sae, acts, "code", "math", at="answer").scores
    assert (exact["auroc_error"] == 0).all() and (found["auroc_error"] > 0).all()
    wrong = (found["auroc"] - exact["auroc"]).abs()
    assert (wrong <= found["auroc_error"] + 1e-12).all() and wrong.max() > 0
    assert found["auroc_error"].max() < 0.03
    others = [c for c in exact.columns if not c.startswith("auroc")]
    pd.testing.assert_frame_equal(found[others], exact[others])


def test_bins_are_in_the_order_of_what_they_hold():
    z = torch.logspace(-20, 20, 4000, base=2.0)
    places = domain_statistics.bins(z)
    assert (places.diff() >= 0).all()
    assert int(places[0]) == 0 and int(places[-1]) == domain_statistics.BINS - 1
    inside = (z >= 2.0**domain_statistics.SMALLEST) & (z < 2.0**16)
    held = [z[inside & (places == b)] for b in places[inside].unique()]
    width = torch.stack([some.max() / some.min() for some in held])
    assert width.max() <= 1 + 1 / 16 + 1e-6


def test_an_sae_with_negative_activations_is_not_counted_as_one_with_positive_ones():
    kind, config = get_sae_class("abstopk")
    sae = kind(config(d_in=D, d_sae=D + 4, k=2))
    acts = activations(
        {(domain, "assistant_start"): torch.randn(4, D) for domain in ("code", "math")}
    )
    for measure in (
        lambda: select_features(sae, acts, "code", "math"),
        lambda: measured_scale(acts, sae, [1]),
        lambda: firing_rates(acts, sae),
    ):
        with pytest.raises(InputError, match="abstopk SAE may be negative"):
            measure()
    assert measured_scale(acts, sae).mean_norm > 0
