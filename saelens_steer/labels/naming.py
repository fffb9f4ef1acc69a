"""Names for many features at once; each ends with a status, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread

from saelens_steer.labels.evidence import LabelCase
from saelens_steer.labels.labeller import Failed, Labeller, Name
from saelens_steer.labels.scores import NO_LABEL, LabelScore, causal_score, detection_score
from saelens_steer.progress import Note, unnoted

LABELLED = "labelled"
TO_BE_ASKED = ("unreadable", "unanswered", "refused", "over_budget")
"""What the next try may change."""


@dataclass(frozen=True)
class Label:
    """A feature's name, and how far it can be believed."""

    feature: int
    side: str
    name: Name | None
    status: str
    """labelled, or how naming failed."""
    detail: str
    """Why it failed, or what is to be said of the answer."""
    effect: float | None
    """The steering effect score."""
    detection: LabelScore
    causal: LabelScore
    provider: str
    model: str | None


def label_all(
    labeller: Labeller, cases: Sequence[LabelCase], at_once: int = 1, note: Note = unnoted
) -> list[Label]:
    """A label for each case, in their order; `at_once` are worked on at the same time."""
    found, work = dict[int, Label](), partial(label_one, labeller)
    try:
        for place, label in _as_they_come(work, cases, at_once):
            found[place] = label
            note(1)
    except BaseException:
        labeller.stop()
        raise
    return [found[place] for place in range(len(cases))]


def _as_they_come(
    work: Callable[[LabelCase], Label], cases: Sequence[LabelCase], at_once: int
) -> Iterator[tuple[int, Label]]:
    """Each case's place and label. Threads that hang do not hold up an interruption, nor the end
    of the program."""
    left, done = (
        SimpleQueue[tuple[int, LabelCase]](),
        SimpleQueue[tuple[int, Label | BaseException]](),
    )
    for numbered in enumerate(cases):
        left.put(numbered)

    def take() -> None:
        while not left.empty():
            with suppress(Empty):
                place, case = left.get_nowait()
                try:
                    done.put((place, work(case)))
                except BaseException as error:
                    done.put((place, error))

    for _ in range(min(at_once, len(cases))):
        Thread(target=take, daemon=True).start()
    for _ in cases:
        place, label = done.get()
        if isinstance(label, BaseException):
            raise label
        yield place, label


def label_one(labeller: Labeller, case: LabelCase) -> Label:
    """Name a feature and test the name."""
    name, status, detail = _named(labeller, case)
    scores = NO_LABEL, NO_LABEL
    if name is not None:
        scores = (
            detection_score(labeller, name, case.trials),
            causal_score(labeller, name, case.trials),
        )
    who, own = (labeller.provider, labeller.model), case.evidence
    return Label(own.feature, own.side, name, status, detail, case.effect, *scores, *who)


def _named(labeller: Labeller, case: LabelCase) -> tuple[Name | None, str, str]:
    if case.evidence.empty:
        why = "nothing is known of it that labels are to be made from"
        return None, "no_evidence", why
    try:
        name = labeller.name(case.evidence)
    except Failed as failure:
        return None, failure.status, str(failure)
    return name, LABELLED, name.remark
