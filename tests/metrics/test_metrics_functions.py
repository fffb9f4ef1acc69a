"""Functions as metrics: how they are named and called, and which of them are refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from checkpoints import small_tokenizer

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.metrics import resolve_metrics

TOKENIZER = small_tokenizer()
D_VOCAB = len(TOKENIZER) + 8


def resolve(metrics):
    return resolve_metrics(metrics, TOKENIZER, D_VOCAB)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(4, D_VOCAB, generator=torch.Generator().manual_seed(seed))


def entropy(logits):
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def tempered(logits, temperature):
    return (logits / temperature).amax(-1)


def moved(logits, *, baseline):
    return (logits - baseline).abs().mean(-1)


def cut(text, *, truncated):
    return truncated


@dataclass(frozen=True)
class Length:
    scale: float

    def __call__(self, completion):
        return self.scale * len(completion)

    def of(self, logits):
        return self.scale * logits[:, 0]


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(D_VOCAB))

    def forward(self, logits):
        return logits @ self.weight


NAMED = {
    "entropy": (entropy, entropy(noise(0))),
    "moved": (moved, (noise(0) - noise(1)).abs().mean(-1)),
    "tempered": (partial(tempered, temperature=2.0), noise(0).amax(-1) / 2),
    "of": (Length(2.0).of, 2 * noise(0)[:, 0]),
    "Head": (Head(), noise(0).sum(-1)),
    "kl": (ss.kl, ss.kl(noise(0), baseline=noise(1))),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_function_is_a_metric_called_as_it_is(name):
    function, wanted = NAMED[name]
    (metric,) = resolve([function])
    found = metric.of(noise(0), baseline=noise(1))
    assert metric.name == name
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted.detach())


def test_a_function_of_text_may_be_an_object_or_read_a_keyword():
    length, cut_off = resolve([Length(0.5), cut])
    assert length.fn("four", False) == {"Length": 2.0}
    assert cut_off.fn("x", True) == {"cut": 1.0}


def test_a_mapping_names_functions_alone_or_in_a_list():
    named = {"first": lambda logits: logits[:, 0], "half": partial(tempered, temperature=2.0)}
    assert [m.name for m in resolve(named)] == ["first", "half"]
    assert [m.name for m in resolve(["kl", named, entropy])] == ["kl", "first", "half", "entropy"]


def test_attribution_can_differentiate_a_function():
    (metric,) = resolve([entropy])
    logits = noise(0).requires_grad_()
    assert metric.of(logits, baseline=logits).requires_grad


def test_a_function_without_a_use_is_refused_in_a_sentence(unchecked):
    in_place = {"top": lambda logits: logits.mul_(2)[:, 0]}
    for metrics, match in (
        ([lambda logits: logits[:, 0]], r"write metrics=\[\{\"name\": lambda logits: …\}\]"),
        (entropy, r"should be a list, not entropy: write metrics=\[entropy\]"),
        ([entropy, entropy], "two metrics write the column 'entropy'"),
        ([tempered], r"'tempered' takes \(logits, temperature\); its parameters must be"),
        ([torch.softmax], "'softmax' has no readable signature|'softmax' takes"),
        ({"alpha": entropy}, "cannot be called 'alpha'"),
        ({"nan": lambda logits: logits[:, 0] * torch.nan}, "'nan' returned NaN for every row"),
        ({"inf": lambda logits: logits[:, 0] / 0}, "'inf' returned an infinite value"),
        ({"c": lambda logits: logits[:, 0] * 1j}, "'c' must return a tensor of numbers"),
        ({"two": lambda text: torch.ones(2)}, r"numbers, not Tensor of shape \[2\]"),
        (
            {"late": lambda text: 1 if not text else text[99]},
            "'late' failed on the completion 'One",
        ),
        (in_place, "'top' changes the logits that it is given: clone them first"),
        ([3], "a metric is the name of a built-in one, a margin, a log_prob, mentions, a function"),
        ({"kl": "kl"}, "metrics should be a list"),
        ({"e": entropy, "kl": "kl"}, r"a list: write metrics=\[{'e': …}, 'kl'\]"),
    ):
        with pytest.raises(InputError, match=match):
            resolve(metrics)


def test_a_metric_that_fails_on_real_logits_is_named():
    metric = {"picky": lambda logits: logits[:, 0] if len(logits) == 3 else 1 / 0}
    (found,) = resolve(metric)
    with pytest.raises(InputError, match=r"'picky' failed on logits of shape \[4, \d+\]: ZeroDiv"):
        found.of(noise(0), baseline=noise(1))
