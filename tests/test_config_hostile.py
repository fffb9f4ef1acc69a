"""No text, however hostile, does more to the reader of configs than raise one InputError."""

import os
import re
import time
from typing import Any

import pytest

from saelens_steer.config import load_config, parse_config
from saelens_steer.errors import InputError

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = "mappings and lists are nested more than 40 deep"
MANY = "more than 20,000 keys and values"
TEXTS = {
    LAUGHS: MANY,
    MERGES: MANY,
    "sweep: {alphas: [" + "1," * 100_000 + "]}": MANY,
    "sweep: {features: [" + "1, " * 30_000 + "]}": MANY,
    "\n".join(f"k{n}: 1" for n in range(15_000)): MANY,
    "[" * 100_000: DEEP,
    "a: " + "{a: " * 3000: DEEP,
    "- " * 50_000: DEEP,
    "".join(" " * n + "a:\n" for n in range(400)): DEEP,
    "model: &a [*a]": "an alias refers to a value that contains it",
    "&a {<<: *a}": "an alias refers to a value that contains it",
    "a: *b": "undefined alias 'b'",
    "sweep: {n_controls: !!int ''}": "'' cannot be read as int",
    "sweep: {n_controls: !!float many}": "'many' cannot be read as float",
    "prompts: {chat: !!bool maybe}": "'maybe' cannot be read as bool",
    "sweep: {seed: " + "9" * 5000 + "}": "cannot be read as int",
    "sweep: {seed: 0x" + "f" * 5000 + "}": "cannot be read as int",
    "sweep: {seed: 1" + ":59" * 50_000 + "}": "cannot be read as int",
    "model: {name: 2024-13-45}": "must state hook_name",
    "hook_name: 0000-01-01T99:99:99+99:99": "not a hook of a layer",
    "a: !!timestamp 2024-01-01": "the tag 'timestamp' is not supported",
    "a: !!python/object/apply:os.system [exit]": "the tag 'python/object/apply:os.system'",
    "a: !!python/tuple [1]": "the tag 'python/tuple' is not supported",
    "a: !mine b": "the tag '!mine' is not supported",
    "sweep: !!set {a}": "the tag 'set' is not supported",
    "a: !!binary x": "the tag 'binary' is not supported",
    "a: !!map x": "expected a mapping",
    "? [a]\n: b": "a list or a mapping cannot be a key",
    "sweep: {? {a: b} : c}": "a list or a mapping cannot be a key",
    "1: 2": "the key 1 is not text: put it in quotes",
    "~: 2": "the key None is not text",
    "sweep: {yes: 2}": "the key True is not text",
    "a: 1\n---\nb: 2": "expected a single document",
    'a: "\\U7fffffff"': "contains an invalid escape",
    'a: "\\Uffffffff"': "contains an invalid escape",
    "a: \0": "the character '\\x00' is not allowed",
    "a: \x1b": "the character '\\x1b' is not allowed",
}


def refusal(read: Any) -> str:
    began = time.monotonic()
    with pytest.raises(InputError) as refused:
        read()
    assert time.monotonic() - began < 4  # alone, each takes less than one second
    sentence = str(refused.value)
    assert "\n" not in sentence and len(sentence) < 500
    return sentence


@pytest.mark.parametrize(("text", "why"), TEXTS.items(), ids=lambda text: text[:24])
def test_a_hostile_file_is_refused_in_one_sentence(text, why, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert why in refusal(lambda: load_config(path))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("[" * 50_000, DEEP),
        ("!!int ''", "cannot be read as int"),
        ("9" * 10_000, "cannot be read as int"),
        ("&a [*a]", "an alias"),
        ("? [a]\n: b", "cannot be a key"),
        ("!!python/name:os.system", "is not supported"),
        ("\ud800", "is not allowed"),
        ("x" * 600_000, "longer than 500,000 characters"),
        ("1" * 100_000 + "e", "should be a whole number"),
        ("2024-99-99", "should be a whole number"),
    ],
    ids=lambda text: text[:16],
)
def test_a_hostile_value_of_an_override_is_refused_in_one_sentence(value, why):
    assert why in refusal(lambda: parse_config({}, [f"sweep.n_controls={value}"]))


def test_an_override_with_a_thousand_keys_is_refused():
    assert "at most 40 keys" in refusal(lambda: parse_config({}, ["a" + ".a" * 999 + "=1"]))


@pytest.mark.parametrize("coding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings_are_named(coding, tmp_path):
    (tmp_path / "c.yaml").write_bytes("model: {name: é}".encode(coding))
    assert "save it as UTF-8" in refusal(lambda: load_config(tmp_path / "c.yaml"))


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        assert "it is not a file" in refusal(lambda path=path: load_config(path))
    assert "is not a path" in refusal(lambda: load_config("a\0b"))


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "c.yaml").open("wb") as file:
        file.truncate(1 << 40)
    assert "over 500,000 bytes" in refusal(lambda: load_config(tmp_path / "c.yaml"))


def test_a_mapping_that_contains_itself_is_refused():
    own: dict[str, Any] = {}
    own["sweep"] = own
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"sweep": deep}
    for given in (own, deep):
        assert "contains itself or is nested" in refusal(lambda given=given: parse_config(given))


def test_only_the_first_fifty_mistakes_are_listed():
    with pytest.raises(InputError) as refused:
        parse_config({f"key_{n}": 1 for n in range(5000)})
    assert len(re.findall("unknown key", str(refused.value))) == 50


def test_aliases_merge_keys_and_dates_of_a_usual_size_are_read(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("select: &s {k: 3}\nsweep: {alphas: &a [1, 2]}\nlabel: {alphas: *a}\n")
    assert load_config(path).label.alphas == (1, 2)  # pyright: ignore
    path.write_text("hook_name: &h blocks.1.hook_resid_pre\nprompts: {<<: {limit: 3}, limit: 4}")
    assert load_config(path).prompts.limit == 4
    path.write_text("prompts: {system: 2024-01-02}")
    assert load_config(path).prompts.system == "2024-01-02"
