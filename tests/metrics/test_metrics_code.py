"""Code validity of a completion: fences, languages, cuts and hostile text."""

from __future__ import annotations

import random
import time
import warnings

import pytest

from saelens_steer.metrics import code_validity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Just words, and print('x').",
        "`x = 1` inline",
        "```bash\nls\n```",  # another language
        "```\nx = 1\n```",  # no language
        "```pycon\n>>> 1\n```",
        "```javascript\nlet x = (\n```",
        "Use ```python x = 1``` inline.",
        "```python x = 1```",  # all on one line: inline code
        "text ```python\nx = 1\n```",  # not at the start of its line; then a bare fence opens
        "``python\nx = 1\n``",  # two marks are no fence
        "````markdown\n```python\nx = (\n```\n````",  # shown, not written
    ],
)
def test_without_a_python_fence_code_is_absent(text):
    assert code_validity(text) == "absent"


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1\n```",
        "```py\nx = 1\n```",
        "```Python\nx = 1\n```",
        "```python3\nx = 1\n```",
        "``` python\nx = 1\n```",
        "```python title='a.py'\nx = 1\n```",
        "```{.python}\nx = 1\n```",
        "```python:a.py\nx = 1\n```",
        "~~~python\nx = 1\n~~~",
        "````python\ns = '''\n```\n'''\n````",  # fewer marks within
        "```python\ns = '''\n    ```\n'''\n```",  # deeply indented marks close nothing
        "```python\ns = '''\n~~~\n'''\n```",  # the other mark closes nothing
        "```python\nx = 1\n`````",  # more marks close
        "```python\nx = 1\n```   ",
        "```python\r\nif x:\r\n    y\r\n```\r\n",
        "Before.\n```python\nx = 1\n```\nBetween.\n```py\ny = 2\n```\nAfter.",
        "```bash\nls (\n```\n```python\nx = 1\n```",  # other languages are not judged
        "1. First:\n   ```python\n   if x:\n       y = 1\n   ```\n2. Then",
        "- ```python\n  x = 1\n  ```",
        "      ```python\n      x = 1\n      ```",
        "\t```python\n\tx = 1\n\t```",
        "```python\nx = 'été ∑'\n```",
        "```python\n# a comment\n```",
    ],
)
def test_closed_python_fences_that_parse_are_valid(text):
    assert code_validity(text) == "valid"
    assert code_validity(text, truncated=True) == "valid"


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = (\n```",
        "```python\n  x = 1\n y = 2\n```",
        "```python\nx = 1\n```\n```python\ny = \n```",  # all must parse
        "```python\n>>> x = 1\n```",
        "```python\n%timeit x\n```",
        "```python\nx = '\x00'\n```",
        "```python\nx = '\ud800'\n```",
        "```python\nx = 1\n``` and on",  # text after the marks: not closed
        "```python\nx = 1",  # open, though nothing cut it
        "```python",
        "```python\nx = 1\n```\n```python\ny = 2",
    ],
)
def test_python_fences_that_do_not_parse_or_stay_open_are_invalid(text):
    assert code_validity(text) == "invalid"


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1",
        "```python\nx = (",
        "```python\nx = 1\n``",
        "```python\n",
        "```python",
        "```pyth",
        "```",
        "```python\nx = 1\n```\n```python\ny = 2",
        "```bash\nls\n```\n~~~py\ny = 2",
    ],
)
def test_a_python_fence_that_the_limit_cuts_is_truncated(text):
    assert code_validity(text, truncated=True) == "truncated"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Some words", "absent"),
        ("```bash\nls", "absent"),
        ("```\nx", "absent"),
        ("```js", "absent"),
        ("```python\nx = 1\n```\nAnd then", "valid"),
        ("```python\nx = 1\n```\n```bash\nls", "valid"),
        ("```python\nx = (\n```\nAnd then", "invalid"),
    ],
)
def test_a_cut_outside_a_python_fence_changes_nothing(text, verdict):
    assert code_validity(text, truncated=True) == verdict


@pytest.mark.parametrize(
    "source",
    [
        "-" * 100_000 + "1",
        "(" * 100_000,
        "[" * 190 + "]" * 190,
        "{" * 100_000,
        "a" + ".b" * 100_000,
        "a" + "+a" * 100_000,
        "not " * 50_000 + "x",
        "lambda: " * 50_000 + "x",
        "x if x else " * 20_000 + "x",
        "\n".join(" " * i + "if 1:" for i in range(200)),
        "x = " + "9" * 100_000,
        "\\" * 100_000,
        '"""' * 33_333,
    ],
)
def test_hostile_source_is_judged_and_never_raises(source):
    assert code_validity(f"```python\n{source}\n```") in ("valid", "invalid")


def test_code_is_judged_silently_and_never_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            code_validity("```python\nx = '\\d'\nif x is 1:\n    raise SystemExit\n```") == "valid"
        )


@pytest.mark.parametrize(
    "unit",
    ["`", "```\n", "```python\n", "~~~\n", "~", "` `` ", " ", "\t- ", "1. ", "\n", "````py\n"],
)
def test_the_time_is_linear_on_hostile_text(unit):
    start = time.process_time()
    code_validity(unit * 10_000)  # type checks make each call slow here
    code_validity("```python\n" + unit * 10_000, truncated=True)
    assert time.process_time() - start < 4


def test_any_text_gets_one_of_four_verdicts():
    rng = random.Random(0)
    pieces = ["```", "```python\n", "~~~", "\n", "`", " ", "x = 1", "(", "py", "- ", "\r", "é"]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 12)))
        whole, cut = code_validity(text), code_validity(text, truncated=True)
        assert whole in ("absent", "valid", "invalid")
        assert cut == whole or (cut == "truncated" and whole in ("absent", "invalid"))


def test_prose_around_a_valid_block_changes_nothing():
    rng = random.Random(1)
    words = ["So", "$5", "`x`", "we see:", "\n\n", "\\(a\\)", "**bold**"]
    for _ in range(300):
        before, after = (" ".join(rng.choices(words, k=5)) for _ in range(2))
        assert code_validity(f"{before}\n```python\nx = 1\n```\n{after}") == "valid"
