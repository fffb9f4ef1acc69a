"""Laws of feature pages: each number equals that of an exhaustive search."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from cached import HOOK, cache_of, sae_of

import saelens_steer as ss
from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import FeaturesSpec
from saelens_steer.data import load_prompts, special_ids, token_texts
from saelens_steer.errors import InputError
from saelens_steer.features import pages_of
from saelens_steer.features.pages import own_text
from saelens_steer.features.scale import feature_activations
from saelens_steer.model import direct_logits
from saelens_steer.sae import codec

SPEC = FeaturesSpec(contexts=4, window=3, tokens=5, neighbours=4, topic=None)
LENGTHS = {("p0", "code"): 9, ("p1", "math"): 14, ("p2", "code"): 1, ("p3", ""): 6} | {
    (f"q{i}", "math" if i % 3 else "code"): 5 + i % 7 for i in range(20)
}
FEATURES = [5, 0, 6, 3, 11]
D = 192


@pytest.fixture(scope="module")
def random_cache(tiny_model):
    """Random vectors with many equal activations, read in many pieces; every id but special ones,
    and some special ones."""
    special = sorted(special_ids(tiny_model.tokenizer))[:2]
    return cache_of(LENGTHS, D, [*range(100, 160), *special * 6])


@pytest.fixture(scope="module")
def real_cache(tiny_model):
    """The shipped model's activations on prompts and answers of four domains."""
    prompts = load_prompts("tiny-domains")[::16]
    return cache_activations(tiny_model, prompts, hook_name=HOOK, batch_size=4)


@pytest.fixture(params=["random", "real"])
def case(request, tiny_model, random_cache, real_cache, monkeypatch):
    """Activations, an SAE, its whole matrix of activations, and the pages."""
    monkeypatch.setattr(codec, "CHUNK", 7)
    acts = random_cache if request.param == "random" else real_cache
    sae = sae_of(D, 24)
    z = feature_activations(sae, acts.vectors)
    return acts, sae, z, pages_of(tiny_model, sae, acts, FEATURES, SPEC)


def rows_by_peak(acts: Activations, z: torch.Tensor, special: set[int]) -> list[int]:
    """The row of each prompt's largest activation, the strongest prompt first, by plain loops."""
    best: dict[str, int] = {}
    for row, (prompt, token) in enumerate(
        zip(acts.index["prompt_id"], acts.index["token"], strict=True)
    ):
        usable = z[row] > 0 and token not in special
        if usable and (prompt not in best or z[row] > z[best[prompt]]):
            best[prompt] = row
    return sorted(best.values(), key=lambda row: (-float(z[row]), row))


def test_contexts_are_those_that_a_search_through_all_activations_finds(case, tiny_model):
    acts, _, z, found = case
    special = special_ids(tiny_model.tokenizer)
    for page in found.pages:
        rows = rows_by_peak(acts, z[:, page.feature], special)[: SPEC.contexts]
        contexts = page.firing.contexts
        assert len(contexts) == len(rows)
        for context, row in zip(contexts, rows, strict=True):
            about = acts.index.iloc[row]
            assert (context.prompt_id, context.domain) == (about["prompt_id"], about["domain"])
            assert context.positions[context.peak] == about["position"]
            assert context.activations[context.peak] == pytest.approx(float(z[row, page.feature]))


def test_no_two_contexts_of_a_feature_are_of_one_prompt(case):
    for page in case[3].pages:
        prompts = [context.prompt_id for context in page.firing.contexts]
        assert len(set(prompts)) == len(prompts)


def test_a_window_has_one_activation_for_each_ordinary_token_around_the_peak(case, tiny_model):
    acts, _, z, found = case
    special = special_ids(tiny_model.tokenizer)
    for page in found.pages:
        for context in page.firing.contexts:
            own = acts.index[acts.index["prompt_id"] == context.prompt_id]
            own = own[~own["token"].isin(special)]
            at = list(own["position"]).index(context.positions[context.peak])
            shown = own.iloc[max(0, at - SPEC.window) : at + SPEC.window + 1]
            assert context.positions == tuple(shown["position"])
            values = z[torch.tensor(shown.index.to_numpy()), page.feature].tolist()
            assert context.activations == pytest.approx(values, abs=1e-5)
            assert len(context.tokens) == len(values)
            more = at - SPEC.window > 0, at + SPEC.window + 1 < len(own)
            assert context.more == more


def test_the_tokens_of_a_window_are_its_text(real_cache, tiny_model):
    found = pages_of(tiny_model, sae_of(D, 24), real_cache, FEATURES, SPEC)
    decode = tiny_model.tokenizer.backend_tokenizer.decode
    for context in found.pages[0].firing.contexts:
        own = real_cache.index[real_cache.index["prompt_id"] == context.prompt_id]
        ids = own.set_index("position").loc[list(context.positions), "token"].tolist()
        assert "".join(context.tokens) == decode(ids)


def test_a_character_split_over_tokens_is_shown_on_the_last(tiny_model):
    tokenizer = tiny_model.tokenizer
    text = "a \U0001f600 b 数"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = token_texts(tokenizer, ids)
    assert "".join(pieces) == text and len(pieces) == len(ids)
    assert not any("\ufffd" in piece for piece in pieces)
    assert sum("\U0001f600" in piece for piece in pieces) == 1 and "" in pieces
    assert "\ufffd" in "".join(token_texts(tokenizer, ids[:-1])), "bytes that stay incomplete"


def test_a_replacement_character_in_the_text_itself_costs_no_other_character(tiny_model):
    tokenizer = tiny_model.tokenizer
    text = "x \ufffd\U0001f600 y"
    pieces = token_texts(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    assert "".join(pieces) == text


def test_a_window_that_begins_inside_a_character_shows_it_whole(tiny_model):
    ids = tiny_model.tokenizer("\U0001f600\U0001f600", add_special_tokens=False)["input_ids"]
    assert len(ids) >= 6
    acts = cache_of({("p", "d"): len(ids)}, D, [100])
    acts.index["token"] = ids
    sae = sae_of(D, 24)
    sae.W_enc.data[:, 0] = 0.0
    sae.b_enc.data[0] = 0.0
    sae.W_enc.data[0, 0] = 1.0
    vectors = torch.zeros(len(ids), D)
    vectors[-1, 0] = 1.0
    acts = Activations(vectors, acts.index, HOOK)
    spec = SPEC.model_copy(update={"window": len(ids) - 2})
    context = pages_of(tiny_model, sae, acts, [0], spec).pages[0].firing.contexts[0]
    assert "\ufffd" not in "".join(context.tokens)
    assert context.tokens[-1] == "\U0001f600" and context.activations[-1] == 1.0


def test_no_special_token_is_shown(case, tiny_model):
    acts, _, _, found = case
    special = special_ids(tiny_model.tokenizer)
    by_place = acts.index.set_index(["prompt_id", "position"])["token"]
    for page in found.pages:
        for context in page.firing.contexts:
            assert not {by_place[context.prompt_id, p] for p in context.positions} & special


def test_a_histogram_counts_every_firing_in_its_own_bin(case):
    _, _, z, found = case
    for page in found.pages:
        fired = z[:, page.feature][z[:, page.feature] > 0]
        histogram, a_max = page.firing.histogram, page.firing.a_max
        assert sum(histogram.counts) == len(fired)
        assert page.firing.firing_rate == pytest.approx(len(fired) / len(z))
        if len(fired):
            counts = np.histogram(fired.numpy(), bins=np.array(histogram.edges))[0]
            assert tuple(counts) == histogram.counts
            assert a_max == float(fired.max())
            assert histogram.edges[-2] <= a_max <= histogram.edges[-1]


def test_a_histogram_is_the_same_in_one_piece_and_in_many(case, tiny_model, monkeypatch):
    acts, sae, _, found = case
    monkeypatch.setattr(codec, "CHUNK", 4096)
    whole = pages_of(tiny_model, sae, acts, FEATURES, SPEC)
    for one, other in zip(found.pages, whole.pages, strict=True):
        assert one.firing.histogram == other.firing.histogram


def test_rates_by_domain_are_shares_of_its_tokens_and_of_its_prompts(case):
    acts, _, z, found = case
    for page in found.pages:
        table = acts.index.assign(fires=(z[:, page.feature] > 0).numpy())
        assert {own.domain for own in page.firing.domains} == set(acts.index["domain"])
        for own in page.firing.domains:
            rows = table[table["domain"] == own.domain]
            by_prompt = rows.groupby("prompt_id", observed=True)["fires"].max()
            assert (own.n_tokens, own.n_prompts) == (len(rows), len(by_prompt))
            assert own.firing_rate == pytest.approx(rows["fires"].mean())
            assert own.prompt_rate == pytest.approx(by_prompt.mean())


def test_alive_and_dense_are_counted_over_the_whole_sae(case):
    acts, sae, z, found = case
    rates = (z > 0).double().mean(0)
    assert (found.d_sae, found.n_tokens) == (sae.cfg.d_sae, len(acts))
    assert found.n_alive == int((rates > 0).sum()) < sae.cfg.d_sae
    assert found.n_dense == int((rates > 0.1).sum())


def test_neighbours_are_the_live_features_of_the_largest_cosine(case, tiny_model):
    acts, sae, z, _ = case
    found = pages_of(tiny_model, sae, acts, FEATURES, SPEC, sides={0: "code", 7: "math"})
    W_dec = sae.W_dec.detach()
    cosine = torch.nn.functional.cosine_similarity(W_dec[:, None], W_dec[None], dim=-1)
    live = set((z > 0).any(0).nonzero().flatten().tolist())
    for page in found.pages:
        others = sorted(live - {page.feature}, key=lambda f: -float(cosine[page.feature, f]))
        assert [n.feature for n in page.neighbours] == others[: SPEC.neighbours]
        for near in page.neighbours:
            assert near.cosine == pytest.approx(float(cosine[page.feature, near.feature]), abs=1e-5)
            assert near.side == {0: "code", 7: "math"}.get(near.feature, "")


def test_tokens_are_the_ends_of_the_logit_lens(case, tiny_model):
    _, sae, _, found = case
    logits = direct_logits(tiny_model, sae.W_dec[FEATURES].detach())
    for page, own in zip(found.pages, logits, strict=True):
        order = torch.argsort(own, descending=True, stable=True).tolist()
        assert [t.token for t in page.raised] == order[: SPEC.tokens]
        assert [t.token for t in page.lowered] == order[: -SPEC.tokens - 1 : -1]
        for token in (*page.raised, *page.lowered):
            assert token.logit == pytest.approx(float(own[token.token]))
            assert token.text


def test_what_is_not_written_to_the_residual_stream_has_no_tokens(tiny_model, random_cache):
    sae = sae_of(D, 24)
    sae.cfg.metadata.hook_name = "blocks.4.hook_mlp_in"
    acts = Activations(random_cache.vectors, random_cache.index, "blocks.4.hook_mlp_in")
    page = pages_of(tiny_model, sae, acts, [0], SPEC).pages[0]
    assert page.raised == page.lowered == () and page.firing.contexts


def test_strength_by_category_is_the_mean_of_the_largest_activation_in_each_prompt(
    case, tiny_model
):
    acts, sae, z, _ = case
    topic = pages_of(tiny_model, sae, acts, FEATURES, SPEC, topic=acts).topic
    assert len(topic.strengths) == len(FEATURES)
    for feature, strengths in zip(FEATURES, topic.strengths, strict=True):
        table = acts.index[["prompt_id", "domain"]].astype(str)
        table["z"] = z[:, feature].numpy()
        table = table[own_text(acts).numpy()]
        largest = table.groupby(["domain", "prompt_id"])["z"].max()
        by_hand = largest.groupby("domain").agg(["mean", "count"])
        assert strengths == pytest.approx([by_hand["mean"][c] for c in topic.categories], abs=1e-5)
        assert topic.n_prompts == tuple(by_hand["count"][c] for c in topic.categories)


def test_what_all_prompts_begin_or_end_with_is_no_prompts_own_text(tiny_model):
    texts = ["Paint the tram", "Paint a tram", "Paint the old tram now"]
    acts = ss.cache_activations(tiny_model, texts, hook_name=HOOK, chat=True)
    own, index = own_text(acts).numpy(), acts.index
    kept = index[own].groupby("prompt_id", observed=True)["text"].agg("".join)
    template = tiny_model.tokenizer.decode(tiny_model.tokenizer("user\n")["input_ids"])
    assert all(text and template not in text and "assistant" not in text for text in kept)
    whole = index.groupby("prompt_id", observed=True)["text"].agg("".join)
    heads = {w[: w.index(k)] for w, k in zip(whole, kept, strict=True)}
    tails = {w[w.index(k) + len(k) :] for w, k in zip(whole, kept, strict=True)}
    assert len(heads) == len(tails) == 1 and "user" in heads.pop() and "assistant" in tails.pop()
    assert own_text(
        ss.cache_activations(tiny_model, texts[:1] * 2, hook_name=HOOK, chat=True)
    ).all()


def test_a_prompt_that_is_nothing_but_the_common_text_keeps_a_token(random_cache):
    index = random_cache.index[["prompt_id", "domain", "position", "part", "text"]].iloc[:5].copy()
    index["prompt_id"], index["token"] = ["a", "a", "a", "b", "b"], [7, 8, 9, 7, 9]
    cache = Activations(random_cache.vectors[:5], index, HOOK)
    assert own_text(cache).tolist() == [False, True, False, False, True]


def test_a_feature_that_never_fires_has_a_page_without_contexts(case):
    page = next(page for page in case[3].pages if page.feature == 3)
    assert (page.firing.firing_rate, page.firing.a_max) == (0, 0)
    assert page.firing.contexts == () and page.firing.histogram.counts == ()
    assert page.raised and page.neighbours


def test_a_decoder_alone_gives_tokens_and_neighbours(tiny_model, random_cache):
    whole = pages_of(tiny_model, sae_of(D, 24), random_cache, FEATURES, SPEC)
    sae = sae_of(D, 24, decoder_only=True)
    found = pages_of(tiny_model, sae, random_cache, FEATURES, SPEC, topic=random_cache)
    assert (found.n_alive, found.n_dense, found.topic) == (None, None, None)
    for page, same in zip(found.pages, whole.pages, strict=True):
        assert page.firing is None
        assert (page.raised, page.lowered) == (same.raised, same.lowered)
        assert len(page.neighbours) == SPEC.neighbours


def test_prompts_may_lie_in_pieces(tiny_model, random_cache):
    """Rows of a prompt need not follow each other."""
    order = torch.randperm(len(random_cache), generator=torch.Generator().manual_seed(0))
    index = random_cache.index.iloc[order.numpy()].reset_index(drop=True)
    index = index.sort_values("position", kind="stable")
    vectors = random_cache.vectors[order][torch.tensor(index.index.to_numpy())]
    mixed = Activations(vectors, index.reset_index(drop=True), HOOK)
    sae = sae_of(D, 24)
    there, here = (pages_of(tiny_model, sae, a, [0], SPEC) for a in (random_cache, mixed))
    own = [[c.activations[c.peak] for c in f.pages[0].firing.contexts] for f in (there, here)]
    assert own[0] == pytest.approx(own[1])
    assert there.pages[0].firing.histogram == here.pages[0].firing.histogram


def test_pages_from_disk_are_pages_from_memory(tiny_model, random_cache, tmp_path):
    sae = sae_of(D, 24)
    saved = Activations.load(random_cache.save(tmp_path / "cache"))
    there, here = (pages_of(tiny_model, sae, a, FEATURES, SPEC) for a in (random_cache, saved))
    assert there == here


def test_the_call_of_a_notebook_shows_pages_and_saves_them(tiny_model, random_cache, tmp_path):
    sae = sae_of(D, 24)
    found = ss.feature_pages(tiny_model, sae, random_cache, [5, 5, 0], contexts=4, window=3)
    same = pages_of(tiny_model, sae, random_cache, [5, 0], SPEC)
    assert [page.feature for page in found.pages] == [5, 0]
    assert found.pages[0].firing == same.pages[0].firing
    json.dumps(found.to_json(), allow_nan=False)
    shown = found._repr_html_()
    assert shown.startswith("<iframe sandbox srcdoc=") and "feature 5" in shown
    assert len(shown) < 200_000
    assert "Plotly" in found.save(tmp_path / "f.html").read_text(encoding="utf-8")


def test_what_does_not_fit_is_refused(tiny_model, random_cache):
    sae = sae_of(D, 24)
    with pytest.raises(InputError, match="feature 24 is out of range"):
        ss.feature_pages(tiny_model, sae, random_cache, [24])
    with pytest.raises(TypeError, match="windw"):
        ss.feature_pages(tiny_model, sae, random_cache, [0], windw=3)
    other = Activations(random_cache.vectors, random_cache.index, "blocks.5.hook_resid_pre")
    with pytest.raises(InputError, match=r"made for blocks\.4"):
        ss.feature_pages(tiny_model, sae, other, [0])
    with pytest.raises(InputError, match=r"made for blocks\.4"):
        ss.feature_pages(tiny_model, sae, random_cache, [0], topic=other)


def test_an_empty_list_of_features_has_only_counts(tiny_model, random_cache):
    found = ss.feature_pages(tiny_model, sae_of(D, 24), random_cache, [], topic=random_cache)
    assert found.pages == () and found.n_alive > 0
    assert "none is shown" in found._repr_html_()
    assert isinstance(random_cache.index, pd.DataFrame)
