"""Numbers have one style in every message, table and figure."""

import math
import re
from pathlib import Path

import pytest

import saelens_steer
from saelens_steer.numbers import measure, number, percent, short


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0 %"), (1, "100 %"), (0.0004, "under 0.1 %"), (0.9997, "over 99.9 %"),
        (0.004, "0.4 %"), (0.034, "3.4 %"), (0.05, "5 %"), (0.0999, "10 %"), (0.456, "46 %"),
        (0.994, "99.4 %"), (-0.8, "−80 %"), (-12.5, "−1,250 %"), (math.nan, "an unknown part"),
    ],
)  # fmt: skip
def test_a_share_has_one_or_two_digits_and_only_exact_ends_are_0_and_100(share, shown):
    assert percent(share) == shown


def test_thousands_have_commas_and_minus_signs_are_true():
    assert number(-1523.4, 1) == "−1,523.4"
    assert short(1024) == measure(1024) == f"{1024:,}" == "1,024"
    assert number(0.0004, 2, signed=True) == "0.00"
    assert number(math.inf) == "–"


def test_no_other_module_formats_thousands_or_shares_its_own_way():
    for path in Path(saelens_steer.__file__).parent.rglob("*.py"):
        if path.name in ("numbers.py", "questions.py"):  # what a labeller reads stays as it is
            continue
        text = path.read_text(encoding="utf-8")
        assert "\\u202f" not in text and "\u202f" not in text, path
        assert not re.search(r":\.\d%\}", text), path
        assert not re.search(r"^def (_?percent|_?thousands)\b", text, re.MULTILINE), path
