"""Numbers as a reader sees them: 1,024, −0.5, 12 %. One style everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def decimals(values: Iterable[int | float]) -> int:
    """The number of decimals that shows about three digits of the largest value."""
    sizes = [abs(v) for v in values if math.isfinite(v)]
    largest = max(sizes, default=0.0)
    return 3 if largest == 0 else max(0, min(6, 2 - math.floor(math.log10(largest))))


def number(value: Any, places: int = 3, signed: bool = False) -> str:
    """A number with a true minus sign; a dash for anything that is not a finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if round(value, places) == 0:
        value = 0.0
    sign = "+" if signed and value else "-"
    return format(value, f"{sign},.{places}f").replace("-", "−")


def short(value: Any) -> str:
    """A number in its shortest readable form: 4, −0.5, 400,000; other values as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return number(value, 0)
    return number(value, 4).rstrip("0") if abs(value) >= 1e-3 else f"{value:.2g}".replace("-", "−")


def measure(value: int | float) -> str:
    """A measure of the SAE: counts in full, others to three digits."""
    return short(value) if float(value).is_integer() else number(value, decimals([value]))


def count(n: int, what: str) -> str:
    """`1 text`, `2,000 texts`: a number and a noun that takes -s."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def percent(share: int | float) -> str:
    """A share as a percentage of one or two digits; only exact 0 and 1 are 0 % and 100 %."""
    if math.isnan(share):
        return "an unknown part"
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    places = 1 if abs(share) < 0.1 or 0.99 < share < 1 else 0
    return f"{number(100 * share, places).removesuffix('.0')} %"
