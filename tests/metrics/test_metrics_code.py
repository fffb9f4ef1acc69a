"""Code validity of a completion: fences, languages, cuts and hostile text."""

from __future__ import annotations

import random
import re
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
        "```pyconsole\n>>> 1\n```",
        "```{linenos=true}\nx = 1\n```",  # an option, no language
        "``` title=a.py\nx = (\n```",
        "```{#python}\nx = 1\n```",  # an id
        "x = 1\n```\nAs code:\n```python\nx = 1\n```",  # the first fence opens, by CommonMark
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
        "```ipython3\nx = 1\n```",
        "```pycon\n>>> x = 1\n>>> x\n1\n```",
        "```pycon\n>>> for i in range(2):\n...     print(i)\n...\n0\n1\n>>> i\n1\n```",
        "```python-repl\n>>> 1 / 0\nTraceback (most recent call last):\n```",
        "```pycon\nx = 1\n```",  # a session without prompts
        "``` python\nx = 1\n```",
        "```python title='a.py'\nx = 1\n```",
        "```{.python}\nx = 1\n```",
        "```{ .python .annotate }\nx = 1\n```",
        "```{#first .python startFrom=2}\nx = 1\n```",
        "```{python, echo=FALSE}\nx = 1\n```",
        "```python {linenos=true .wide}\nx = 1\n```",
        "```python,ignore\nx = 1\n```",
        "```python\n```",  # nothing parses
        "```python\n\n  \n```",
        "- Empty:\n  ```py\n  ```",
        "```python x = (\n```",  # the rest of the opening line is no code
        "```python print('a')\nprint('b')\n```",
        "> ```python\n> if x:\n>     y\n> ```\n",
        "> > ```python\n> > x = 1\n> > ```\nSo.",
        "- > ```python\n  > x = 1\n  > ```",
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
        "```python def f(x):\n    return x\n```",  # its first line is lost
        "> ```python\n> x = 1\n\n```",  # ends with its quote
        "> ```python\nx = 1\n```",
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
        ("```p y", "absent"),
        ("x\n```\\[", "absent"),
        ("> ```python\n> x = 1\nThat is", "invalid"),
        ("```python\nx = 1\n```\nAnd then", "valid"),
        ("```python\nx = 1\n```\n```bash\nls", "valid"),
        ("```python\nx = (\n```\nAnd then", "invalid"),
    ],
)
def test_a_cut_outside_a_python_fence_changes_nothing(text, verdict):
    assert code_validity(text, truncated=True) == verdict


BODIES = [
    "def f(x):\n    if x:\n        return 1\n    return 2\n",
    "def f(x):\n  if x:\n    return 1\n  return 2\n",
    "class A:\n\tdef f(self):\n\t\treturn 1\n",
    "x = [\n    1,\n\n  2,\n]\n",
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("mark", ["1. ", "- ", "10. Write\n\n    ", "- a\n  - ", "1.\t", "* b\n\t"])
def test_in_a_list_code_may_stand_at_the_margin_or_like_its_marks(mark, body):
    width = len(re.sub(r".", " ", mark.rpartition("\n")[2].expandtabs(4)))
    indented = "".join(" " * width + line for line in body.splitlines(keepends=True))
    for block in (body, indented):
        assert code_validity(f"{mark}```python\n{block}{' ' * width}```\n") == "valid"
        assert code_validity(f"{mark}```python\n{block}```\n") == "valid"
        assert code_validity(f"{mark}```python\n{block}(\n{' ' * width}```\n") == "invalid"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<think>\n```python\nx = (\n```\n</think>\n```python\nx = 1\n```", "valid"),
        ("Perhaps\n```python\nx = (\n</think>\n\n```python\nx = 1\n```", "valid"),
        ("<thinking>a</thinking>```python\nx = 1\n```", "valid"),
        ("[THINK]```py\n(\n```[/THINK]\n```python\nx = 1\n```", "valid"),
        ("<think>\n\n</think>\n\n```python\nx = (\n```", "invalid"),
        ("<think>\n```python\nx = 1\n```\n</think>\n\nDone.", "absent"),
        ("<think>\n```python\nx = 1\n```\nand", "absent"),
        ("Hm.\n```python\nx = 1\n```\n</think>", "absent"),
        ("```py\nx = 1\n```\n<think>```py\n(\n```</think>\n```py\ny = 2\n```", "valid"),
        ("```python\nend = '</think>'\n```", "valid"),  # mentioned
        ("The tag `<think>` opens it:\n```python\nx = 1\n```", "valid"),
        ("The <think> tag opens it:\n```python\nx = 1\n```", "valid"),
        ("- <think>: it opens\n```python\nx = 1\n```\n- </think>: it ends", "valid"),
        ("```python\nx = (\n```\nbetween <think> and </think>.", "invalid"),
        ("```python\nx = 1\n```\nand (<think>) is what the <thinking>-model writes,", "valid"),
        ("Well, <think>Hm.\n```py\n(\n```</think>\n```py\ny = 2\n```", "valid"),
        ("<think>hm\n```py\n(\n```\nso </think> and so\n```py\ny = 2\n```", "valid"),
        ('Cut at "</think>".\n```python\nx = (\n```', "invalid"),
    ],
)
def test_thoughts_are_no_part_of_the_answer(text, verdict):
    assert code_validity(text) == verdict
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
    [
        "`",
        "```\n",
        "```python\n",
        "~~~\n",
        "~",
        "` `` ",
        " ",
        "\t- ",
        "1. ",
        "\n",
        "````py\n",
        "```\n```\n",
        "> ```python\n\n",
        "~~~\n~~~\n",
        "> ",
        ">",
        "> ```\n",
        "<think>",
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_the_time_is_linear_on_hostile_text(unit):
    start = time.process_time()
    code_validity(unit * 40_000)
    code_validity("```python\n" + unit * 40_000, truncated=True)
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
