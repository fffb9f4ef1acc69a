"""Asking a server: retries, budgets, cached answers, and a key that never leaks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from loopback import MODEL, Reply, answer, error, serving

from saelens_steer.config import ServerSpec, key_of
from saelens_steer.errors import InputError
from saelens_steer.labels.client import Answers, Client
from saelens_steer.labels.labeller import LabelError
from saelens_steer.labels.reading import read_name
from saelens_steer.labels.server import Question

QUESTION = Question("q", [{"role": "user", "content": "who?"}], {"type": "object"})
FRUIT = {"summary": "names of fruit", "analysis": "apples"}


def client(server: Any, tmp_path, **settings: Any) -> Client:
    given = {"model": MODEL, "timeout": 5, "backoff": 0.001, **settings}
    spec = ServerSpec(base_url=getattr(server, "base_url", server), **given)
    return Client(spec, Answers(tmp_path / "answers"))


def failing(asker: Client, question: Question = QUESTION) -> LabelError:
    with pytest.raises(LabelError) as failure:
        asker.ask(question, read_name)
    return failure.value


def in_turn(*replies: Reply) -> Any:
    """Each reply once, then the last one forever."""
    left = list(replies)
    return lambda question: left.pop(0) if len(left) > 1 else left[0]


def test_a_readable_answer_is_cached_and_not_asked_for_again(tmp_path):
    with serving(lambda q: answer(FRUIT)) as server:
        first = client(server, tmp_path).ask(QUESTION, read_name)
        again = client(server, tmp_path).ask(QUESTION, read_name)
    assert first == again
    assert first.summary == "names of fruit"
    assert len(server.asked) == 1


@pytest.mark.parametrize("change", [{"model": "other"}, {"max_answer_tokens": 9}])
def test_what_decides_the_answer_is_part_of_the_question(tmp_path, change):
    with serving(lambda q: answer(FRUIT)) as server:
        client(server, tmp_path).ask(QUESTION, read_name)
        client(server, tmp_path, **change).ask(QUESTION, read_name)
    assert len(server.asked) == 2


def test_the_servers_address_is_not_part_of_the_question(tmp_path):
    with serving(lambda q: answer(FRUIT)) as one:
        client(one, tmp_path).ask(QUESTION, read_name)
    with serving(lambda q: answer(FRUIT)) as other:
        client(other, tmp_path, timeout=9, concurrency=2).ask(QUESTION, read_name)
    assert other.asked == []


PASSING = {
    "too many": error(429),
    "broken": error(500),
    "overloaded": error(529),
    "cut": Reply(answer(FRUIT).body, cut=True),
    "empty body": Reply(""),
    "no choice": answer(FRUIT, choices=[]),
    "not JSON": Reply("<html>Bad gateway</html>", headers={"Content-Type": "text/html"}),
    "JSON of another kind": Reply("[1, 2]"),
    "deep": Reply("[" * 100_000),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_a_transient_failure_is_retried(tmp_path, reply):
    with serving(in_turn(reply, reply, answer(FRUIT))) as server:
        assert client(server, tmp_path).ask(QUESTION, read_name).summary == "names of fruit"
    assert len(server.asked) == 3


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_a_lasting_failure_ends_as_unanswered_after_the_last_retry(tmp_path, reply):
    with serving(lambda q: reply) as server:
        failure = failing(client(server, tmp_path, retries=2))
    assert (failure.status, len(server.asked)) == ("unanswered", 3)
    assert "3 tries" in str(failure)


def test_a_time_out_is_retried_and_costs_the_maximum(tmp_path):
    slow = Reply(answer(FRUIT).body, after=4)
    with serving(in_turn(slow, answer(FRUIT))) as server:
        asker = client(server, tmp_path, timeout=1.5)
        assert asker.ask(QUESTION, read_name).summary == "names of fruit"
    assert asker.budget.tokens == 4 + 1024 + 7


def test_without_a_server_at_the_address_the_status_is_unanswered(tmp_path):
    with serving() as server:
        pass
    failure = failing(client(server.base_url, tmp_path, retries=1))
    assert failure.status == "unanswered"
    assert "connection" in str(failure)


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_of_key_or_model_is_final_for_every_question(tmp_path, status):
    with serving(lambda q: error(status, "no model of that name")) as server:
        asker = client(server, tmp_path)
        found = [failing(asker), failing(asker)]
    assert len(server.asked) == 1
    assert [f.status for f in found] == ["refused"] * 2
    said = f"status {status}: no model of that name (model {MODEL} at {server.base_url}"
    assert all(str(f).startswith(said) for f in found)
    assert ("no key" in str(found[0])) == (status != 404)


def test_a_base_url_without_v1_is_pointed_out(tmp_path):
    with serving(lambda q: error(404, "Not Found")) as server:
        address = server.base_url.removesuffix("/v1")
        assert "base_url usually ends in /v1" in str(failing(client(address, tmp_path)))


def test_a_refusal_of_one_question_does_not_end_the_asking(tmp_path):
    with serving(lambda q: error(400, "too long")) as server:
        asker = client(server, tmp_path, structured="off")
        assert [failing(asker).status for _ in range(2)] == ["refused"] * 2
    assert len(server.asked) == 2


def test_error_messages_of_other_servers_are_read_too(tmp_path):
    refusal = Reply(json.dumps({"detail": "no such model"}), status=404)
    with serving(lambda q: refusal) as server:
        assert str(failing(client(server, tmp_path))).startswith("status 404: no such model (")


def test_a_server_that_rejects_schemas_is_asked_without_one_from_then_on(tmp_path, capsys):
    def reply(question: dict[str, Any]) -> Reply:
        return error(422) if "response_format" in question else answer(FRUIT)

    other = Question("q", [{"role": "user", "content": "what?"}], {"type": "object"})
    with serving(reply) as server:
        asker = client(server, tmp_path)
        for question in (QUESTION, other):
            assert asker.ask(question, read_name).summary == "names of fruit"
    assert ["response_format" in q for q in server.asked] == [True, False, False]
    assert capsys.readouterr().err.count("rejects JSON schemas") == 1


def test_requests_are_greedy_and_carry_the_schema(tmp_path):
    with serving(lambda q: answer(FRUIT)) as server:
        client(server, tmp_path).ask(QUESTION, read_name)
    (question,) = server.asked
    assert (question["model"], question["temperature"]) == (MODEL, 0)
    assert question["response_format"]["json_schema"]["schema"] == QUESTION.schema


def waits_after(tmp_path, *replies: Reply, **settings: Any) -> list[float]:
    """The waits between these replies and a good one."""
    waits: list[float] = []
    with serving(in_turn(*replies, answer(FRUIT))) as server:
        asker = client(server, tmp_path, **settings)
        asker.sleep = waits.append
        asker.ask(QUESTION, read_name)
    return waits


def test_waits_double_up_to_a_minute(tmp_path):
    waits = waits_after(tmp_path, *[error(500)] * 3, backoff=20.0)
    assert 10 <= waits[0] <= 20 <= waits[1] <= 40 <= waits[2] <= 60


NOON = "Sun, 29 Nov 2026 12:00:00 GMT"
ASKED = {
    "seconds": ({"Retry-After": "90"}, 90),
    "milliseconds": ({"retry-after-ms": "2500", "Retry-After": "9"}, 2.5),
    "a date": ({"Retry-After": "Sun, 29 Nov 2026 12:01:30 GMT", "Date": NOON}, 90),
    "an older date": ({"Retry-After": "Sunday, 29-Nov-26 12:01:30 GMT", "Date": NOON}, 90),
    "the oldest date": ({"Retry-After": "Sun Nov 29 12:01:30 2026", "Date": NOON}, 90),
    "a date passed": ({"Retry-After": NOON, "Date": "Sun, 29 Nov 2026 13:00:00 GMT"}, None),
    "no milliseconds": ({"retry-after-ms": "soon", "Retry-After": "9"}, 9),
}


def wait_asked(headers: dict[str, str]) -> float | None:
    import httpx
    import openai

    from saelens_steer.labels.server import _retry_after

    request = httpx.Request("POST", "http://x")
    response = httpx.Response(429, headers=headers, request=request)
    return _retry_after(openai.APIStatusError("", response=response, body=None))


@pytest.mark.parametrize("headers, seconds", ASKED.values(), ids=ASKED)
def test_the_wait_that_a_server_asks_for_is_read_however_it_is_written(headers, seconds):
    assert wait_asked(headers) == seconds


def test_a_date_is_compared_with_this_machines_clock_if_the_response_has_none():
    wait = wait_asked({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert wait is not None and 95 < wait <= 100


def test_the_wait_that_a_server_asks_for_comes_before_the_backoff(tmp_path):
    (wait,) = waits_after(tmp_path, error(429, Retry_After="90"), backoff=2.0)
    assert 91 <= wait <= 92


def test_a_limit_that_outlasts_the_backoff_is_waited_for(tmp_path):
    over = time.monotonic() + 1.2

    def reply(question: dict[str, Any]) -> Reply:
        if time.monotonic() < over:
            left = max(1, round(1000 * (over - time.monotonic())))
            return error(429, retry_after_ms=str(left))
        return answer(FRUIT)

    with serving(reply) as server:
        asker = client(server, tmp_path, retries=2, backoff=0.05)
        assert asker.ask(QUESTION, read_name).summary == "names of fruit"


def test_a_wait_of_more_than_an_hour_leaves_the_question_unanswered(tmp_path):
    with serving(lambda q: error(429, Retry_After="86400")) as server:
        failure = failing(client(server, tmp_path))
    assert (failure.status, len(server.asked)) == ("unanswered", 1)
    assert "asks for a wait of 24.0 hours" in str(failure)


@pytest.mark.parametrize("said", ["nan", "-3", "soon", "inf", "Sun, 29 Nov 1999 12:00:00 GMT"])
def test_a_nonsensical_retry_after_does_no_harm(tmp_path, said):
    assert 0 <= waits_after(tmp_path, error(429, Retry_After=said))[0] <= 60


def test_no_more_requests_are_sent_than_allowed(tmp_path):
    with serving(lambda q: error(500)) as server:
        failure = failing(client(server, tmp_path, max_requests=2, retries=9))
    assert (failure.status, len(server.asked)) == ("over_budget", 2)


def test_a_question_that_may_exceed_the_tokens_left_is_not_sent(tmp_path):
    with serving(lambda q: answer(FRUIT)) as server:
        asker = client(server, tmp_path, max_tokens=40, max_answer_tokens=30)
        asker.ask(QUESTION, read_name)  # may take 34, takes 7: 33 are left
        other = Question("q", [{"role": "user", "content": "what?"}], {})
        failure = failing(asker, other)  # may take 35
    assert (failure.status, len(server.asked), asker.budget.tokens) == ("over_budget", 1, 7)


def test_a_budget_holds_for_parallel_requests(tmp_path):
    questions = [Question("q", [{"role": "user", "content": str(i)}], {}) for i in range(20)]
    with serving(lambda q: answer(FRUIT)) as server:
        asker = client(server, tmp_path, max_requests=7)

        def ask(question: Question) -> str:
            try:
                return asker.ask(question, read_name).summary
            except LabelError as failure:
                return failure.status

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, questions))
    assert (found.count("names of fruit"), found.count("over_budget")) == (7, 13)
    assert len(server.asked) == 7


def test_a_token_budget_goes_equally_far_in_parallel(tmp_path):
    """Reservations far exceed actual costs; parallel requests wait rather than being refused."""
    questions = [Question("q", [{"role": "user", "content": f"{i:09}"}], {}) for i in range(12)]
    costs = answer(FRUIT, usage={"total_tokens": 60})
    for at_once in (1, 8):
        with serving(lambda q: costs) as server, ThreadPoolExecutor(at_once) as pool:
            settings = {"max_answer_tokens": 191, "max_tokens": 900}  # 200 a question, at most
            asker = client(server, tmp_path / str(at_once), **settings)

            def ask(question: Question, asker: Client = asker) -> str:
                try:
                    return asker.ask(question, read_name).summary
                except LabelError as failure:
                    return failure.status

            found = list(pool.map(ask, questions))
        assert found.count("names of fruit") == 12
        assert asker.budget.tokens == 720


def test_an_unreachable_server_costs_no_tokens(tmp_path):
    with serving() as server:
        pass
    asker = client(server.base_url, tmp_path, retries=2)
    assert failing(asker).status == "unanswered"
    assert (asker.budget.tokens, asker.budget.waiting) == (0, 0)


def test_an_empty_answer_cut_by_the_token_limit_is_not_retried(tmp_path):
    cut = [{"message": {"content": ""}, "finish_reason": "length"}]
    with serving(lambda q: answer("", choices=cut)) as server:
        asker = client(server, tmp_path)
        failure = failing(asker)
    assert (failure.status, len(server.asked), asker.budget.tokens) == ("unreadable", 1, 7)
    assert "max_answer_tokens" in str(failure)


def test_extra_fields_are_sent_and_null_omits_a_field(tmp_path):
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": None}
    with serving(lambda q: answer(FRUIT)) as server:
        client(server, tmp_path, extra=extra).ask(QUESTION, read_name)
        client(server, tmp_path).ask(QUESTION, read_name)
    assert server.asked[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "temperature" not in server.asked[0] and "max_tokens" in server.asked[0]
    assert len(server.asked) == 2, "extra fields are part of the question"


def test_a_lone_surrogate_in_an_answer_becomes_a_question_mark(tmp_path):
    with serving(lambda q: Reply(answer(FRUIT).body.replace("apples", "\\\\ud83d"))) as server:
        assert client(server, tmp_path).ask(QUESTION, read_name).analysis == "?"


def message(content: Any, finish: str = "stop", **fields: Any) -> Reply:
    choice = {"message": {"content": content, **fields}, "finish_reason": finish}
    return answer("", choices=[choice])


FLAGGED = message(None, refusal="I cannot help with that.")
USELESS = {
    "prose": (answer("no idea"), "unreadable"),
    "empty": (answer(""), "unreadable"),
    "no text": (message(None), "unreadable"),
    "cut": (message("", "length"), "unreadable"),
    "cut reasoning": (message(None, "length", reasoning_content=json.dumps(FRUIT)), "unreadable"),
    "refusal": (FLAGGED, "refused"),
    "filtered": (message("The feature", "content_filter"), "refused"),
}


@pytest.mark.parametrize("useless, status", USELESS.values(), ids=USELESS)
def test_every_answer_is_paid_for_once_and_asked_again_only_on_demand(tmp_path, useless, status):
    with serving(in_turn(useless, answer(FRUIT))) as server:
        said = [failing(client(server, tmp_path)) for _ in range(3)]
        assert [one.status for one in said] == [status] * 3
        assert len({str(one) for one in said}) == len(server.asked) == 1
        (kept,) = (tmp_path / "answers").iterdir()
        assert json.loads(kept.read_text())["status"] == status
        again = client(server, tmp_path, ask_again=True)
        assert again.ask(QUESTION, read_name).summary == "names of fruit"
        assert client(server, tmp_path).ask(QUESTION, read_name).summary == "names of fruit"
    assert len(server.asked) == 2
    assert json.loads(kept.read_text())["status"] == "read"


def test_asking_again_spares_the_readable_answers(tmp_path):
    with serving(lambda q: answer(FRUIT)) as server:
        for _ in range(2):
            client(server, tmp_path, ask_again=True).ask(QUESTION, read_name)
    assert len(server.asked) == 1


def test_an_unreadable_answer_is_kept_with_its_text(tmp_path):
    with serving(lambda q: answer("no idea")) as server:
        failing(client(server, tmp_path))
    (kept,) = (tmp_path / "answers").iterdir()
    found = json.loads(kept.read_text())
    assert (found["answer"]["text"], found["status"]) == ("no idea", "unreadable")


def test_an_answer_whose_reading_fails_is_kept_too(tmp_path):
    def broken(given: Any) -> Any:
        raise ZeroDivisionError

    with serving(lambda q: answer(FRUIT)) as server:
        with pytest.raises(ZeroDivisionError):
            client(server, tmp_path).ask(QUESTION, broken)
        assert client(server, tmp_path).ask(QUESTION, read_name).summary == "names of fruit"
    assert len(server.asked) == 1


def part(kind: str, text: Any) -> dict[str, Any]:
    return {"type": kind, kind: text}


GOOD = json.dumps(FRUIT)
PLACES = {
    "one part": message([part("text", GOOD)]),
    "two parts": message([part("text", GOOD[:9]), part("text", GOOD[9:])]),
    "a thought": message(
        [part("thinking", [part("text", '{"summary": "no"}')]), part("text", GOOD)]
    ),
    "output text": message([{"type": "output_text", "text": GOOD}]),
    "a bare text": message([GOOD]),
    "an image": message([part("image_url", {"url": "http://x"}), part("text", GOOD)]),
    "reasoning_content": message(None, reasoning_content=GOOD),
    "reasoning": message("", reasoning=f"It fires on apples.\n{GOOD}"),
    "both": message(GOOD, reasoning_content='{"summary": "no"}'),
}


@pytest.mark.parametrize("reply", PLACES.values(), ids=PLACES)
def test_the_answer_is_found_wherever_a_server_puts_it(tmp_path, reply):
    with serving(lambda q: reply) as server:
        found = client(server, tmp_path).ask(QUESTION, read_name)
    assert (found.summary, len(server.asked)) == ("names of fruit", 1)
    assert found.remark in ("", "read from the model's reasoning")


def test_reasoning_that_reaches_no_answer_is_unreadable(tmp_path):
    with serving(lambda q: message(None, reasoning="Perhaps fruit?")) as server:
        failure = failing(client(server, tmp_path))
    assert (failure.status, len(server.asked)) == ("unreadable", 1)


CONTENT = {
    "403": error(403, "your input was flagged"),
    "400": error(400, "content_filter: jailbreak"),
    "451": error(451, "unavailable for legal reasons"),
    "refusal": FLAGGED,
    "a part": message([part("refusal", "I cannot help with that.")]),
    "filtered": message(None, "content_filter"),
}


@pytest.mark.parametrize("flagged", CONTENT.values(), ids=CONTENT)
def test_a_refusal_of_content_refuses_that_question_alone(tmp_path, flagged):
    questions = [Question("q", [{"role": "user", "content": str(i)}], {}) for i in range(4)]

    def reply(question: dict[str, Any]) -> Reply:
        return flagged if question["messages"][0]["content"] in "02" else answer(FRUIT)

    with serving(reply) as server:
        asker = client(server, tmp_path)
        for number, question in enumerate(questions):
            if number in (0, 2):
                assert failing(asker, question).status == "refused"
            else:
                assert asker.ask(question, read_name).summary == "names of fruit"
    assert len(server.asked) in (4, 6)  # a 400 may be about the schema, so it is tried without


def test_an_answer_in_a_damaged_file_is_asked_again(tmp_path):
    with serving(lambda q: answer(FRUIT)) as server:
        client(server, tmp_path).ask(QUESTION, read_name)
        (kept,) = (tmp_path / "answers").iterdir()
        whole = json.loads(kept.read_text())
        strange = [
            {**whole, "answer": {"x": 1}},
            {**whole, "answer": {**whole["answer"], "text": None}},
        ]
        for damage in ("", "{", "[]", '{"question": 1}', *map(json.dumps, strange)):
            kept.write_text(damage)
            client(server, tmp_path).ask(QUESTION, read_name)
    assert len(server.asked) == 7


def test_the_key_is_sent_to_the_server_and_masked_in_all_output(tmp_path, monkeypatch):
    key = "sk-canary/5f2a"
    monkeypatch.setenv("MY_API_KEY", key)
    replies = [
        answer('{"summary": "fruit sk-canary\\/5f2a"}'),
        answer({"summary": f"fruit {key}", "analysis": key}, model=key),
        error(400, f"bad key {key}" + "x" * 300),
        Reply(f"<html>{key}"),
        error(500, key),
    ]
    found = []
    for number, reply in enumerate(replies):
        with serving(lambda q, reply=reply: reply) as server:
            spec = {"key_env": "MY_API_KEY", "retries": 0, "structured": "off"}
            asker = client(server, tmp_path / str(number), **spec)
            try:
                found.append(str(asker.ask(QUESTION, lambda a: a)))
            except LabelError as failure:
                found.append(str(failure))
        assert server.headers[0]["authorization"] == f"Bearer {key}"
    assert all("[key]" in text for text in found)
    written = [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
    assert key not in "".join([*found, *written])


@pytest.mark.parametrize("key", ["one two", "one\ntwo", "schlüssel", "\x07"])
def test_an_impossible_key_is_refused_and_not_quoted(monkeypatch, key):
    monkeypatch.setenv("MY_API_KEY", key)
    with pytest.raises(InputError, match="MY_API_KEY") as refusal:
        key_of(ServerSpec(base_url="http://x/v1", model="m", key_env="MY_API_KEY"))
    assert key not in str(refusal.value)


def test_a_short_key_is_not_masked(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "names")
    with serving(lambda q: answer(FRUIT)) as server:
        asker = client(server, tmp_path, key_env="MY_API_KEY")
        assert asker.ask(QUESTION, read_name).summary == "names of fruit"


def test_without_key_env_no_key_from_the_environment_is_sent(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "sk-canary-5f2a")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: sk-canary-5f2a")
    with serving(lambda q: answer(FRUIT)) as server:
        client(server, tmp_path).ask(QUESTION, read_name)
    assert "canary" not in str(server.headers)
    assert "authorization" not in server.headers[0]


def test_an_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("MY_API_KEY", raising=False)
    spec = ServerSpec(base_url="http://x/v1", model="m", key_env="MY_API_KEY")
    with pytest.raises(InputError, match="MY_API_KEY is not set"):
        key_of(spec)


@pytest.mark.parametrize(
    "given",
    [
        {"key_env": "sk-or-v1-0123abc"},
        {"key_env": "hf_abcDEF"},
        {"base_url": "http://user:secret@host/v1"},
        {"base_url": "http://host/v1?key=secret"},
        {"base_url": "http://host/v1#secret"},
        {"base_url": "localhost:8000"},
    ],
)
def test_a_key_in_a_config_is_refused_and_not_quoted(given):
    from saelens_steer.config import parse_config

    server = {"base_url": "http://host/v1", "model": "m", **given}
    label = {"provider": "openai-compatible", "server": server}
    with pytest.raises(InputError) as refusal:
        parse_config({"label": label})
    said = str(refusal.value)
    assert "label.server." in said
    assert not any(secret in said for secret in ("0123abc", "abcDEF", "secret"))


def test_an_interrupt_does_not_wait_for_a_hanging_server(tmp_path):
    from cases import case

    from saelens_steer.labels.client import ServerLabeller
    from saelens_steer.labels.labelling import label_all

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    once = iter([error(400)])

    def reply(question: dict[str, Any]) -> Reply:
        return next(once, Reply(answer(FRUIT).body, after=20))

    with serving(reply) as server:
        asker = client(server, tmp_path, timeout=60, structured="off")
        cases = [
            replace(case(i), evidence=replace(case().evidence, rates={"x": i / 4}))
            for i in range(4)
        ]
        labeller, began = ServerLabeller(asker), time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            label_all(labeller, cases, 2, interrupt)
        assert time.monotonic() - began < 10


def test_questions_are_asked_in_parallel(tmp_path):
    questions = [Question("q", [{"role": "user", "content": str(i)}], {}) for i in range(8)]
    together = threading.Barrier(8, timeout=60)

    def reply(question: dict[str, Any]) -> Reply:
        together.wait()  # breaks unless all eight are here
        return answer(FRUIT)

    with serving(reply) as server, ThreadPoolExecutor(8) as pool:
        asker = client(server, tmp_path, timeout=60)
        found = list(pool.map(lambda q: asker.ask(q, read_name).summary, questions))
    assert found == ["names of fruit"] * 8


def test_a_question_asked_by_many_threads_is_sent_once(tmp_path):
    with serving(lambda q: answer(FRUIT)) as server, ThreadPoolExecutor(8) as pool:
        asker = client(server, tmp_path)
        found = list(pool.map(lambda _: asker.ask(QUESTION, read_name).summary, range(8)))
    assert (found, len(server.asked)) == (["names of fruit"] * 8, 1)


@pytest.mark.slow
def test_without_the_client_everything_but_a_server_works():
    """The extra `label` is optional: nothing imports its client before a server is needed."""
    script = """
import sys
sys.modules["openai"] = None
import saelens_steer
from saelens_steer.config import LabelSpec, ServerSpec
from saelens_steer.errors import InputError
import saelens_steer.labels
from saelens_steer.config import check_labeller
check_labeller(LabelSpec())
server = ServerSpec(base_url="http://x/v1", model="m")
try:
    check_labeller(LabelSpec(provider="openai-compatible", server=server))
except InputError as error:
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "pip install 'saelens-steer[label]'" in said.stdout
