"""Labels published on Neuronpedia."""

from __future__ import annotations

import json

import pytest
from loopback import Reply, serving

from saelens_steer.labels.answers import Answers
from saelens_steer.labels.neuronpedia import published_labels

ID = "gpt2-small/6-res-jb"


def labels(server, tmp_path, features: list[int]):
    site = server.base_url.removesuffix("/v1")
    return published_labels(site, ID, features, Answers(tmp_path / "answers"))


def label(server, tmp_path, feature: int):
    return labels(server, tmp_path, [feature])[feature]


def says(*descriptions: object) -> Reply:
    return Reply(json.dumps({"explanations": [{"description": text} for text in descriptions]}))


def test_the_first_explanation_is_found_with_its_link_and_cached(tmp_path):
    with serving(pages=lambda path: says(None, "", "names of\nfruit", "more")) as server:
        found = label(server, tmp_path, 12)
    assert (found.label, found.status) == ("names of fruit", "found")
    assert found.url.endswith(f"/{ID}/12")
    assert server.paths == [f"/api/feature/{ID}/12"]
    assert label(server, tmp_path, 12) == found  # the server is gone


@pytest.mark.parametrize(
    "reply",
    [
        says(),
        Reply("{}"),
        Reply("[]"),
        Reply("null"),
        Reply('{"explanations": 5}'),
        Reply("x", status=404),
    ],
    ids=["none", "no key", "list", "null", "number", "no page"],
)
def test_a_feature_without_an_explanation_has_none_and_keeps_its_link(tmp_path, reply):
    with serving(pages=lambda path: reply) as server:
        found = label(server, tmp_path, 3)
    assert (found.label, found.status) == (None, "none")
    assert found.url


@pytest.mark.parametrize(
    "reply",
    [
        Reply("<html>"),
        Reply("no", status=500),
        Reply("no", status=429),
        Reply('{"e": 1}', cut=True),
        Reply("[" * 100_000),
    ],
    ids=["not JSON", "500", "429", "cut", "deep"],
)
def test_without_an_answer_the_status_is_unreached_and_it_is_asked_again(tmp_path, reply):
    with serving(pages=lambda path: reply) as server:
        for _ in range(2):
            assert label(server, tmp_path, 3).status == "unreached"
    assert len(server.paths) == 2


@pytest.mark.parametrize("sae_id", [None, "", 3, "gpt2", "../..", "a/b/c", "a b/c"])
def test_an_sae_without_a_valid_id_is_not_looked_up(tmp_path, sae_id):
    assert published_labels("http://x", sae_id, [1], Answers(tmp_path)) == {}
    assert published_labels(None, ID, [1], Answers(tmp_path)) == {}


def test_after_one_failure_no_other_feature_is_looked_up(tmp_path):
    with serving(pages=lambda path: Reply("no", status=503)) as server:
        found = labels(server, tmp_path, [1, 2, 3])
    assert [one.status for one in found.values()] == ["unreached"] * 3
    assert len(server.paths) == 1


def test_a_lone_surrogate_in_a_label_does_no_harm(tmp_path):
    with serving(pages=lambda path: says("fruit \ud83d")) as server:
        assert label(server, tmp_path, 1).label == "fruit ?"


def test_answers_of_two_sites_are_cached_apart(tmp_path):
    for text in ("fruit", "tools"):
        with serving(pages=lambda path, text=text: says(text)) as server:
            assert label(server, tmp_path, 1).label == text
