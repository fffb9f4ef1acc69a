"""Names for many features at once; each ends with a status, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from saelens_steer.labels.evidence import Case
from saelens_steer.labels.labeller import Failed, Labeller, Name
from saelens_steer.labels.scores import NO_LABEL, Score, causal_score, detection_score
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
    detection: Score
    causal: Score
    provider: str
    model: str | None

    @property
    def unfinished(self) -> bool:
        """Whether another try may answer what was not."""
        return any(
            status in TO_BE_ASKED
            for status in (self.status, self.detection.status, self.causal.status)
        )


def label_all(
    labeller: Labeller, cases: Sequence[Case], at_once: int = 1, note: Note = unnoted
) -> list[Label]:
    """A label for each case, in their order; `at_once` are worked on at the same time."""
    pool = ThreadPoolExecutor(at_once)
    try:
        going = [pool.submit(label_one, labeller, case) for case in cases]
        for _ in as_completed(going):
            note(1)
        return [one.result() for one in going]
    finally:
        pool.shutdown(cancel_futures=True)


def label_one(labeller: Labeller, case: Case) -> Label:
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


def _named(labeller: Labeller, case: Case) -> tuple[Name | None, str, str]:
    if case.evidence.empty:
        why = "it fires nowhere on the cached tokens, and no token is known that it raises"
        return None, "no_evidence", why
    try:
        name = labeller.name(case.evidence)
    except Failed as failure:
        return None, failure.status, str(failure)
    return name, LABELLED, name.remark
