"""Directions without an SAE: planted ones are found, whatever the number of activations."""

import pandas as pd
import pytest
import torch

import saelens_steer as ss
from saelens_steer.activations import Activations
from saelens_steer.directions import difference_of_means, linear_probe, probe_between, vectors_of
from saelens_steer.errors import InputError

D = 16


def planted(n: int = 400, at: str = "assistant_start") -> Activations:
    """Code and maths differ along coordinate 3 by 4; coordinate 7 is much noisier."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2 * n, D, generator=draw)
    x[:, 7] *= 6
    x[:n, 3] += 4
    index = pd.DataFrame(
        {"prompt_id": range(2 * n), "domain": ["code"] * n + ["math"] * n, "part": at}
    )
    return Activations(x, index, "blocks.2.hook_resid_pre")


def test_the_difference_of_means_is_a_unit_vector_that_turns_with_its_sides():
    acts = planted()
    there, back = (
        difference_of_means(acts, [a], [b]) for a, b in (("code", "math"), ("math", "code"))
    )
    assert torch.allclose(there.norm(), torch.tensor(1.0))
    assert torch.allclose(there, -back)
    assert int(there.abs().argmax()) == 3


def test_the_probe_finds_what_tells_the_sides_apart_and_not_what_is_loud():
    acts = planted()
    sides = [vectors_of(acts, [d]) for d in ("code", "math")]
    probe = probe_between(*sides)
    assert torch.allclose(probe.direction.norm(), torch.tensor(1.0))
    assert float(probe.direction[3]) > 0.9
    shares = [float(probe.holds(side).float().mean()) for side in sides]
    assert shares[0] > 0.95
    assert shares[1] < 0.05


def test_a_side_with_few_activations_weighs_as_much_as_one_with_many():
    code, math = (vectors_of(planted(), [d]) for d in ("code", "math"))
    few = probe_between(code[:40], math)
    assert abs(few.bias + 2.0) < 0.6  # half-way between the sides


def test_the_probe_is_the_same_every_time():
    sides = [vectors_of(planted(), [d]) for d in ("code", "math")]
    assert torch.equal(probe_between(*sides).direction, probe_between(*sides).direction)


def test_a_probe_and_a_difference_of_means_are_asked_for_alike():
    acts = planted()
    probe = linear_probe(acts, "code", "math")
    sides = [vectors_of(acts, domain) for domain in ("code", "math")]
    want = probe_between(*sides)
    assert torch.equal(probe.direction, want.direction)
    assert probe.bias == want.bias
    torch.testing.assert_close(probe.score(sides[0]), sides[0] @ probe.direction + probe.bias)
    assert torch.equal(probe.score(sides[0]) > 0, probe.holds(sides[0]))
    mean = difference_of_means(acts, "code", "math")
    assert torch.equal(mean, difference_of_means(acts, ["code"], ["math"]))
    answers = planted(at="answer")
    assert torch.equal(difference_of_means(answers, "code", "math", "answer"), mean)
    assert torch.equal(linear_probe(answers, "code", "math", "answer").direction, probe.direction)


def test_two_equal_sides_are_refused():
    same = torch.zeros(4, D)
    with pytest.raises(InputError, match="no probe can tell them apart"):
        probe_between(same, same)


def test_a_part_that_was_not_kept_is_named():
    with pytest.raises(InputError, match="at the last prompt token is cached"):
        vectors_of(planted(at="answer"), ["code"])


@pytest.mark.parametrize("direction_of", [difference_of_means, linear_probe])
@pytest.mark.parametrize(
    ("positive", "negative", "sentence"),
    [
        (["code", "cod"], "math", "no activation of cod at"),
        ("code", ["maths", "math"], "no activation of maths at"),
        (["code", "math"], "math", "math is both positive and negative"),
        ([], "math", "no activation of no domain"),
    ],
)
def test_every_domain_must_be_cached_and_on_one_side(direction_of, positive, negative, sentence):
    with pytest.raises(InputError, match=sentence):
        direction_of(planted(), positive, negative)


def test_the_mean_difference_of_pairs_is_the_difference_of_means(random_model):
    """So `cache_activations` and `difference_of_means` make a CAA vector."""
    hook = "blocks.2.hook_resid_pre"
    pairs = [("a car is big", "a car is small"), ("yes, it is", "no, it is not"), ("up", "down")]
    sides = zip(("positive", "negative"), zip(*pairs, strict=True), strict=True)
    texts = [ss.Prompt(text=text, domain=side) for side, own in sides for text in own]
    acts = ss.cache_activations(random_model, texts, hook_name=hook, tokens="last", max_norm=None)
    caa = ss.difference_of_means(acts, "positive", "negative")

    def last(text):
        ids = torch.tensor([random_model.tokenizer(text)["input_ids"]])
        return random_model.run_with_cache(ids)[1][hook][0, -1]

    paired = sum(last(plus) - last(minus) for plus, minus in pairs) / len(pairs)
    torch.testing.assert_close(caa, paired / paired.norm(), atol=1e-5, rtol=1e-4)
