"""Labels that others have published."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from loopback import Reply, serving

from saelens_steer.labels import Answers, neuronpedia

ID = "gpt2-small/6-res-jb"


def site(server, tmp_path, sae_id: object = ID):
    metadata = SimpleNamespace(neuronpedia_id=sae_id)
    address = server.base_url.removesuffix("/v1") if server else "http://x"
    return neuronpedia(address, metadata, Answers(tmp_path / "answers"))


def says(*descriptions: object) -> Reply:
    return Reply(json.dumps({"explanations": [{"description": text} for text in descriptions]}))


def test_the_first_explanation_is_found_with_its_link_and_kept(tmp_path):
    with serving(pages=lambda path: says(None, "", "names of\nfruit", "more")) as server:
        found = site(server, tmp_path).label(12)
    assert (found.label, found.status) == ("names of fruit", "found")
    assert found.url.endswith(f"/{ID}/12")
    assert server.paths == [f"/api/feature/{ID}/12"]
    assert site(server, tmp_path).label(12) == found  # nobody is there any more


@pytest.mark.parametrize(
    "reply",
    [says(), Reply("{}"), Reply("[]"), Reply("null"), Reply("x", status=404)],
    ids=["none", "no key", "list", "null", "no page"],
)
def test_a_feature_without_an_explanation_has_none_and_keeps_its_link(tmp_path, reply):
    with serving(pages=lambda path: reply) as server:
        found = site(server, tmp_path).label(3)
    assert (found.label, found.status) == (None, "none")
    assert found.url


@pytest.mark.parametrize(
    "reply",
    [
        Reply("<html>"),
        Reply("no", status=500),
        Reply("no", status=429),
        Reply('{"e": 1}', cut=True),
    ],
    ids=["not JSON", "500", "429", "cut"],
)
def test_where_nothing_answers_the_status_says_so_and_it_is_asked_again(tmp_path, reply):
    with serving(pages=lambda path: reply) as server:
        for _ in range(2):
            assert site(server, tmp_path).label(3).status == "unreached"
    assert len(server.paths) == 2


@pytest.mark.parametrize("sae_id", [None, "", 3, "gpt2", "../..", "a/b/c", "a b/c"])
def test_an_sae_without_an_id_that_could_be_one_is_not_asked_about(tmp_path, sae_id):
    assert site(None, tmp_path, sae_id) is None
    assert neuronpedia(None, SimpleNamespace(neuronpedia_id=ID), Answers(tmp_path)) is None
