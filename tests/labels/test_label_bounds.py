"""No server can hold a labeller for long, fill its memory, or lead it to another address."""

import contextlib
import gzip
import time
from collections.abc import Callable
from typing import Any

import pytest
from loopback import MODEL, Reply, answer, serving

from saelens_steer.config import ServerSpec
from saelens_steer.labels import neuronpedia
from saelens_steer.labels.answers import Answers
from saelens_steer.labels.client import Client
from saelens_steer.labels.labeller import LabelError
from saelens_steer.labels.neuronpedia import published_labels
from saelens_steer.labels.reading import read_letters, read_name, read_numbers
from saelens_steer.labels.server import Answer, Question

QUESTION = Question("q", [{"role": "user", "content": "who?"}], {"type": "object"})
LONG = "x" * (1 << 20)
DRIPS = {
    "body": Reply(answer({"summary": "fruit"}).body, drip=0.3),
    "white space": Reply(" " * 1000, drip=0.3),
    "headers": Reply(drip=0.3, slow_headers=True),
    "error": Reply("no" * 100, status=500, drip=0.3),
}
HUGE = {
    "plain": Reply(LONG, times=64),
    "error": Reply(LONG, status=400, times=64),
    "gzip": Reply(data=gzip.compress(bytes(1 << 26)), headers={"Content-Encoding": "gzip"}),
    "br": Reply("x", headers={"Content-Encoding": "br"}),
}


def failure_of(reply: Reply, tmp_path: Any, **settings: Any) -> tuple[LabelError, Any]:
    with serving(lambda question: reply) as server:
        given: dict[str, Any] = {"retries": 0, "structured": "off", "timeout": 20, **settings}
        spec = ServerSpec(base_url=server.base_url, model=MODEL, **given)
        asker = Client(spec, Answers(tmp_path))
        with pytest.raises(LabelError) as failure:
            asker.ask(QUESTION, read_name)
    return failure.value, (server, asker)


@pytest.mark.parametrize("reply", DRIPS.values(), ids=DRIPS)
def test_a_server_that_drips_is_abandoned_after_the_timeout(tmp_path, reply):
    began = time.monotonic()
    failure, _ = failure_of(reply, tmp_path, timeout=1)
    assert str(failure) == "no answer within 1 s" and time.monotonic() - began < 4


@pytest.mark.parametrize("reply", HUGE.values(), ids=HUGE)
def test_a_huge_or_compressed_answer_is_read_only_up_to_its_bound(tmp_path, reply):
    failure, (server, _) = failure_of(reply, tmp_path)
    assert "more than 8 MB" in str(failure) or "is compressed" in str(failure)
    assert server.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_stops_further_questions(tmp_path, status, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "sk-canary-5f2a")
    with serving() as other:
        to = f"{other.base_url}/chat/completions"
        moved = Reply("", status=status, headers={"Location": to})
        failure, (server, asker) = failure_of(moved, tmp_path, key_env="MY_API_KEY")
    assert f"redirects to {to}, which is not followed: set label.server.base_url" in str(failure)
    assert not other.asked and not other.paths
    assert len(server.asked) == asker.budget.requests == 1
    with pytest.raises(LabelError, match="redirects"):
        asker.ask(QUESTION, read_name)


def neuronpedia_status(pages: Callable[[str], Reply], tmp_path: Any) -> str:
    with serving(pages=pages) as server:
        site = server.base_url.removesuffix("/v1")
        return published_labels(site, "a/b", [1], Answers(tmp_path))[1].status


@pytest.mark.parametrize("reply", [*DRIPS.values(), *HUGE.values()], ids=[*DRIPS, *HUGE])
def test_neuronpedia_is_bounded_likewise(tmp_path, reply, monkeypatch):
    monkeypatch.setattr(neuronpedia, "TIMEOUT", 1.0)
    began = time.monotonic()
    assert neuronpedia_status(lambda path: reply, tmp_path) == "unreached"
    assert time.monotonic() - began < 4


def test_neuronpedia_is_followed_within_its_host_and_nowhere_else(tmp_path):
    found = Reply('{"explanations": [{"description": "fruit"}]}')
    moved = Reply("", 302, {"Location": "/new"})
    pages = lambda path: found if "new" in path else moved  # noqa: E731
    assert neuronpedia_status(pages, tmp_path / "within") == "found"
    with serving(pages=lambda path: found) as other:
        away = Reply("", 302, {"Location": other.base_url.replace("127.0.0.1", "localhost")})
        assert neuronpedia_status(lambda path: away, tmp_path / "away") == "unreached"
    assert not other.paths


HOSTILE = {
    "braces": "{",
    "objects": '{"a":',
    "keys": '{"summary": "',
    "lists": "[1,",
    "nested": "[[",
    "backslashes": "\\",
    "quotes": '"',
    "escaped quotes": '\\"',
    "thoughts": "<think>",
    "ends": "</think>",
    "both": "<think></think>",
    "fields": '"summary": "a",',
    "open fields": '"summary": "a\\',
    "lines": "Summary: a\n",
    "marks": "> # * ",
    "colons": "Summary::",
    "spaces": "Summary: " + " " * 50,
    "line breaks": "\n",
    "stars": "Summary: a" + " * x" * 50,
    "answers": '{"summary": "a"} ',
    "numbers": "1",
    "fences": "```json\n",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_answers_are_read_in_linear_time(unit):
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        began = time.thread_time()
        for read in (read_name, lambda a: read_numbers(a, 5), lambda a: read_letters(a, 5)):
            for cut in (False, True):
                with contextlib.suppress(LabelError):
                    read(Answer(text, cut, "m"))
        return time.thread_time() - began

    short, long = (min(seconds(n) for _ in range(2)) for n in (20_000, 80_000))
    assert long < max(8 * short, 1)
