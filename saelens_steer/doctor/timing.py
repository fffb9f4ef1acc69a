"""How long a run takes, from a few of its own rows and texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

from saelens_steer.doctor.case import pushes, spread
from saelens_steer.doctor.findings import Finding
from saelens_steer.doctor.sizes import Sizes
from saelens_steer.steering import plain_directions
from saelens_steer.study import Study

T = TypeVar("T")
PROMPTS = 16
TRIES = (4, 16, 64)
"""Directions of one try after another, till one takes LONG; a warm-up of one comes before."""
LONG = 0.5
"""Seconds; a warm-up of ten times that stays the only try."""
NEW_TOKENS = (4, 12)
"""Texts are begun twice, to so many tokens: what reading and what writing takes follows."""


def described(study: Study, sizes: Sizes) -> Iterator[Finding]:
    """The sweep's rows and texts; other steps are not estimated."""
    few = spread(study, PROMPTS)
    seconds, rows = _last_try(partial(_rows, few))
    total = about(seconds / rows * sizes.rows)
    yield Finding("time", f"rows {total}, measured on {rows:,} rows{_besides(study)}")
    if sizes.texts:
        _, (each, texts) = _last_try(partial(_texts, *(_begun(few, n) for n in NEW_TOKENS)))
        total = about(each(study.spec.generate.max_new_tokens) * sizes.texts)
        yield Finding("", f"texts {total} at most, measured on the beginnings of {texts:,}")
    yield Finding("", "the other steps, training the SAE among them: not estimated")


def _besides(study: Study) -> str:
    found = "; finding strengths by their KL takes several times as long besides"
    return found if study.spec.calibrated else ""


def _last_try(work: Callable[[int], T]) -> tuple[float, T]:
    """Seconds that the largest number of directions took, and what was made of them."""
    seconds, made = _timed(partial(work, 1))
    if seconds > 10 * LONG:
        return seconds, made
    for n in TRIES:
        seconds, made = _timed(partial(work, n))
        if seconds > LONG:
            break
    return seconds, made


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def _rows(study: Study, n: int) -> int:
    """Measure the rows of n directions; how many were steered."""
    rows = study.logit_rows(plain_directions(pushes(study, n)))
    return int((rows["alpha"].to_numpy() != 0).sum())


def _begun(study: Study, new_tokens: int) -> Study:
    """The same with texts of so many tokens."""
    generate = study.spec.generate.model_copy(update={"max_new_tokens": new_tokens})
    return replace(study, spec=study.spec.model_copy(update={"generate": generate}))


def _texts(short: Study, long: Study, n: int) -> tuple[Callable[[int], float], int]:
    """Seconds for a text by its new tokens, from two lengths; and the texts that were begun."""
    texts = short.n_texts(plain_directions(pushes(short, n)), range(n))
    (early, few), (late, many) = (_timed(partial(_written, study, n)) for study in (short, long))
    token = max(late - early, 0.0) / max(many - few, 1)
    reading = max(early - token * few, 0.0) / texts
    return lambda new_tokens: reading + token * new_tokens, texts


def _written(study: Study, n: int) -> int:
    """Write the texts of n directions; how many tokens were written under a push."""
    texts = study.completion_rows(plain_directions(pushes(study, n)), range(n))
    return int(texts.loc[texts["alpha"] != 0, "n_tokens"].sum())


def about(seconds: float) -> str:
    """A duration as one says it."""
    if seconds < 1:
        return "under a second"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
