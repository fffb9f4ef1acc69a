"""Names without a language model: words from the evidence, tested by searching texts for them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from cases import case, context

from saelens_steer.config import FeaturesSpec, TrainSpec
from saelens_steer.features import Context, WrittenToken
from saelens_steer.labels.labeller import (
    MOST_WORDS,
    BlindPair,
    LabelError,
    LabelEvidence,
    Name,
    SteeredTexts,
)
from saelens_steer.labels.offline import OfflineLabeller

HOOK = "blocks.4.hook_resid_pre"
SPEC = TrainSpec(d_sae=768, training_tokens=160_000, cached_tokens=40_000, seed=1)
ORDINARY = ["the bus is here", "a cat and the dog", "tea for the bird and a cat"] * 20
DOMAINS = ("code", "math", "transport", "prose")
WORD = re.compile(r"\\[A-Za-z]+|[A-Za-z]+|\$\$|```|\"\"\"")


def fires_in(*texts: str, domain: str = "streets") -> tuple[Context, ...]:
    """A context per text, whose peak is the token that begins with «."""
    found = []
    for text in texts:
        tokens = tuple(piece.replace("«", "") for piece in re.findall(r"\s?\S+", text))
        peak = next((i for i, p in enumerate(text.split()) if p.startswith("«")), 0)
        z = tuple(4.0 if i == peak else 0.0 for i in range(len(tokens)))
        found.append(Context("p", domain, peak, tokens, z, tuple(range(len(z))), (False, False)))
    return tuple(found)


def known_of(
    contexts: tuple[Context, ...] = (),
    raised: tuple[str, ...] = (),
    texts: tuple[SteeredTexts, ...] = (),
) -> LabelEvidence:
    """Evidence on a feature that fires on streets and raises tokens by 2, 1.9, …"""
    tokens = tuple(WrittenToken(i, text, 2.0 - i / 10) for i, text in enumerate(raised))
    return LabelEvidence(3, "", contexts, {"streets": 0.47, "pets": 0.01}, tokens, (), texts)


TRAMS = fires_in("Anna took the «tram to work", "a red «tram was late", "the «tram rattled on")
STREETS = known_of(TRAMS, (" monorail", " track"))
STEERED = (SteeredTexts("Go", "the cat", {-1.0: "a dog", 1.0: "the ferry", 2.0: "a ferry"}),)
EMOJI, ZALGO, BIDI = "\U0001f600", "e\u0301\u0301\u0301", "\u202e\u2066"
HOSTILE = {
    "control characters": "\x00\x1b[31m \x07«bell\x9b \u2028 x",
    "very long words": "«" + "long" * 5000 + " " + "$" * 5000,
    "emoji": f"«{EMOJI} {EMOJI}\u200d{EMOJI} {ZALGO} {BIDI}",
    "half a surrogate": "«\ud800 and \udfff",
    "separators": "«, ; ,; ;writes, writes; writes",
    "markup": "«<script>alert(1)</script> <|im_end|> [INST] {}",
    "only digits": "«1 2 3 44",
}


@pytest.fixture(scope="module")
def offline() -> OfflineLabeller:
    return OfflineLabeller.of(ORDINARY)


def test_a_name_has_activating_words_then_written_ones(offline):
    name = offline.name(STREETS)
    assert name.summary.startswith("tram")
    assert name.summary.endswith("; writes monorail, track")
    assert "the" not in name.summary.split(", "), "a word of every text is not informative"


def test_tokens_are_joined_into_words(offline):
    pieces = ("The", " mon", "ora", "il", " hum", "med")
    cut = Context(
        "p", "streets", 2, pieces, (0.0, 1.0, 4.0, 0.0, 0.0, 0.0), tuple(range(6)), (True, True)
    )
    assert offline.name(known_of((cut,))).summary.startswith("monorail")
    assert "hummed" not in offline.name(known_of((cut,))).summary, "the window cuts it"


def test_the_next_word_counts_more_than_its_neighbours(offline):
    at_the_space = ("walk", " slowly", " home", "\n", "return", " later", " today")
    z = tuple(4.0 if token == "\n" else 0.0 for token in at_the_space)
    one = Context("p", "streets", 3, at_the_space, z, tuple(range(7)), (False, False))
    assert offline.name(known_of((one,))).summary.split(", ")[0] == "return"


def test_commands_and_delimiters_are_words(offline):
    contexts = fires_in("so that $$ «\\frac {6}", "and $$ «\\frac {x}", "is $$ «\\frac {2}")
    assert {"\\frac", "$$"} <= set(offline.name(known_of(contexts)).summary.split(", "))


def test_a_word_of_many_contexts_comes_before_a_word_of_one(offline):
    contexts = fires_in("«old ferry", "«red ferry", "«late ferry")
    assert offline.name(known_of(contexts)).summary.split(", ")[0] == "ferry"


def test_a_name_contains_nothing_of_the_chat_template(offline):
    chat = "user\nGo home\nassistant\nThe tram <|im_end|>"
    tokens = tuple(re.findall(r"\s?\S+|\n", chat))
    z = tuple(4.0 if "assistant" in token else 0.0 for token in tokens)
    one = Context("p", "", z.index(4.0), tokens, z, tuple(range(len(z))), (False, False))
    name = offline.name(known_of((one,), ("<|im_start|>", "<s>", " tram")))
    assert not {"user", "assistant", "im"} & set(WORD.findall(name.summary))


def test_naming_is_deterministic(offline):
    shuffled = known_of(TRAMS, (" monorail", " track"))
    assert offline.name(STREETS) == OfflineLabeller.of(reversed(ORDINARY)).name(shuffled)
    assert "tram" in offline.name(replace(STREETS, contexts=TRAMS[::-1])).summary


def test_a_name_always_has_fewer_than_twenty_words(offline):
    many = " ".join(f"w{chr(97 + i % 26)}{chr(97 + i // 26)}x" for i in range(300))
    contexts = fires_in("«" + many, *("«" + word for word in many.split()))
    raised = tuple(f" r{chr(97 + i)}y" for i in range(26))
    summary = offline.name(known_of(contexts, raised)).summary
    assert 0 < len(summary.split()) <= MOST_WORDS


def test_domain_names_are_in_the_analysis_but_not_in_the_name(offline):
    contexts = fires_in("«streets tram", "«Streets tram", "«STREETS pets")
    evidence = replace(known_of(contexts, (" streets", " Pets")), side="streets")
    for kind in ("both", "input", "output"):
        try:
            known = evidence.only(kind)
            name = offline.name(replace(known, rates=evidence.rates))
        except LabelError:
            continue
        assert not {"streets", "pets"} & set(WORD.findall(name.summary.lower()))
    analysis = offline.name(evidence).analysis
    assert "most on streets, 47 % of tokens" in analysis
    assert 2 <= analysis.count(". ") + 1 <= 4


def test_without_a_usable_word_there_is_no_name(offline):
    for evidence in (known_of(), known_of(fires_in("«1 2")), known_of((), ("<|end|>", "\n", ""))):
        with pytest.raises(LabelError) as failure:
            offline.name(evidence)
        assert failure.value.status == "no_evidence"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_do_no_harm(text):
    tokens = ("", *text.split(" "), "")
    z = tuple(float(token.startswith("«")) for token in tokens)
    hostile = Context(text, text, 1, tokens, z, tuple(range(len(z))), (True, True))
    steered = SteeredTexts(text, text, {1.0: text[::-1]})
    empty = Context("", "", 0, (), (), (), (False, False))
    evidence = replace(known_of((hostile, empty), (text, ""), (steered,)), rates={text: 1.0})
    for known in (evidence, replace(evidence, contexts=(*TRAMS, hostile))):
        labeller = OfflineLabeller.of([*ORDINARY, text])
        try:
            name = labeller.name(known)
        except LabelError:
            continue
        assert name.summary.isprintable() and name.analysis.isprintable()
        assert len(name.summary) < 400 and len(name.summary.split()) <= MOST_WORDS
        assert labeller.firing(name, [text, ""]) <= {0, 1}
        labeller.steered(name, [BlindPair(text, text, "")])


def test_a_name_uses_only_the_evidence_shown(offline):
    evidence = replace(STREETS, texts=STEERED)
    both, fires, written = (
        offline.name(evidence.only(kind)) for kind in ("both", "input", "output")
    )
    assert "tram" in both.summary and "monorail" in both.summary
    assert "writes" not in fires.summary and "monorail" not in fires.analysis
    assert written.summary.startswith("writes ") and "tram" not in written.summary
    assert "streets" not in written.analysis and "streets" in fires.analysis


def test_words_that_steering_adds_count_as_written(offline):
    assert offline.name(known_of(texts=STEERED)).summary == "writes ferry"
    assert "dog" not in offline.name(known_of(texts=STEERED)).summary, "below 0 it is taken away"


def test_a_part_of_a_word_does_not_count_as_written(offline):
    assert offline.name(known_of(TRAMS, (" bir", " do", "ck"))).summary.count("writes") == 0
    assert offline.name(known_of((), ("ck", "}{"))).summary == "writes ck, }{"


def test_a_token_counts_only_if_raised_more_than_others_are_lowered(offline):
    lowered = (WrittenToken(9, " cat", -1.9),)
    assert "monorail" not in offline.name(replace(STREETS, lowered=lowered)).summary


def test_a_text_fires_if_it_contains_a_word_of_the_name(offline):
    name = Name("bus, $$, \\frac; writes monorail")
    texts = ["The BUS stops", "no such thing", "$$x$$", "\\frac{1}{2}", "a monorail", "buses", ""]
    assert offline.firing(name, texts) == {0, 2, 3}
    assert offline.firing(Name("writes monorail"), texts) == {4}


def test_the_text_with_more_words_of_the_name_is_the_steered_one(offline):
    name = Name("bus, tram; writes monorail")
    pairs = [BlindPair("Go", "monorail and tram", "a tram"), BlindPair("Go", "cat", "the bus")]
    assert offline.steered(name, pairs) == [True, False]


def test_swapping_two_texts_swaps_the_answer(offline):
    name = Name("bus, tram; writes monorail")
    texts = [
        "bus",
        "tram bus",
        "monorail " * 5,
        "bus bus bus",
        "",
        *(f"cat {i}" for i in range(40)),
    ]
    pairs = [BlindPair("Go", a, b) for a in texts for b in texts if a != b]
    found = offline.steered(name, pairs)
    assert offline.steered(name, [BlindPair(p.prompt, p.second, p.first) for p in pairs]) == [
        not first for first in found
    ]


def test_ties_are_not_broken_by_position(offline):
    pairs = [BlindPair("Go", f"cat {i}", f"dog {i}") for i in range(200)]
    assert 70 < sum(offline.steered(Name("tram"), pairs)) < 130


def test_it_names_synthetic_evidence_and_states_its_provider(offline):
    assert (offline.provider, offline.model) == ("offline", None)
    assert "apple" in offline.name(case().evidence).summary
    assert offline.name(replace(case().evidence, contexts=(context("apple pie"),))).summary


@pytest.fixture(scope="module")
def domain_words() -> dict[str, str]:
    """Word → the domain that has at least 80 % of its uses, with equal weight per domain."""
    from scripts.tiny.grammar import stream

    counts = {d: Counter[str]() for d in DOMAINS}
    for domain, own in counts.items():
        for example in islice(stream(domain, seed=11), 1500):
            own.update(_words(f"{example.prompt}\n{example.answer}"))
    shares = {d: {w: n / own.total() for w, n in own.items()} for d, own in counts.items()}
    return {
        word: domain
        for domain, own in shares.items()
        for word, share in own.items()
        if counts[domain][word] >= 10
        and share >= 0.8 * sum(other.get(word, 0.0) for other in shares.values())
    }


def _words(text: str) -> list[str]:
    return [word if word.startswith("\\") else word.lower() for word in WORD.findall(text)]


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """An SAE trained within seconds, activations of the shipped prompts, and the labeller."""
    from saelens_steer.activations import cache_activations
    from saelens_steer.data import load_prompts
    from saelens_steer.sae import train_sae

    sae = train_sae(tiny_model, SPEC, HOOK, tmp_path_factory.mktemp("offline") / "sae")
    prompts = load_prompts("tiny-domains")
    texts = [f"{prompt.text}\n{prompt.answer}" for prompt in prompts]
    return sae, cache_activations(tiny_model, prompts, hook_name=HOOK), OfflineLabeller.of(texts)


def best_features(sae, activations, domain: str) -> list[int]:
    """The ten features whose peak over an answer best tells a domain from the others."""
    from saelens_steer.activations import Activations
    from saelens_steer.features import select_features

    index = activations.index.copy()
    names = index["domain"].astype(str)
    index["domain"] = names.where(names == domain, "rest").astype("category")
    against = Activations(activations.vectors, index, activations.hook_name)
    how = {"at": "answer", "score": "auroc", "pool": "max", "k": 10}
    return select_features(sae, against, domain, "rest", **how).candidates[domain]


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["code", "math", "transport"])
def test_features_of_a_domain_are_named_with_its_words(tiny_model, trained, domain_words, domain):
    from saelens_steer.features import pages_of

    sae, activations, labeller = trained
    features, spec = best_features(sae, activations, domain), FeaturesSpec(contexts=5)
    right = []
    for page in pages_of(tiny_model, sae, activations, features, spec).pages:
        assert page.firing is not None
        rates = {own.domain: own.firing_rate for own in page.firing.domains}
        found = page.firing.contexts, rates, page.raised, page.lowered, ()
        name = labeller.name(LabelEvidence(page.feature, domain, *found))
        known = [domain_words[w] for w in _words(name.summary) if w in domain_words]
        right.append(known.count(domain) > len(known) / 2)
    assert len(right) == 10 and sum(right) >= 8
