"""From evidence to labels: name the features, test the names, look up published labels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, as_completed
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from saelens_steer.config import LabelSpec, check_labeller
from saelens_steer.labels.answers import Answers
from saelens_steer.labels.labeller import LabelCase, LabelError, LabelInputs, Labeller
from saelens_steer.labels.neuronpedia import published_labels
from saelens_steer.labels.offline import OfflineLabeller
from saelens_steer.labels.results import LABELLED, FeatureLabels, Label
from saelens_steer.labels.scores import NO_LABEL, causal_score, detection_score
from saelens_steer.progress import Note, progress, say, unnoted


def make_labels(inputs: LabelInputs, spec: LabelSpec, kept: Path | None = None) -> FeatureLabels:
    """Label every feature; one without a label has a status that says why.

    `kept` is the folder of cached answers.
    """
    answers, cases = Answers(kept), inputs.cases
    labeller = _labeller(spec, answers, inputs)
    at_once = spec.server.concurrency if spec.server else 1
    with progress("labels", len(cases)) as note:
        labels = label_all(labeller, cases, at_once, note)
    if spent := labeller.spent:
        say(f"labels: {spent}")
    features = [case.evidence.feature for case in cases]
    published = published_labels(spec.neuronpedia, inputs.neuronpedia_id, features, answers)
    return FeatureLabels(inputs.layer, tuple(labels), published)


def _labeller(spec: LabelSpec, answers: Answers, inputs: LabelInputs) -> Labeller:
    """The labeller of the config's provider."""
    check_labeller(spec)
    if spec.provider == "offline":
        return OfflineLabeller.of(inputs.ordinary)
    assert spec.server is not None
    from saelens_steer.labels.client import Client, ServerLabeller

    return ServerLabeller(Client(spec.server, answers))


def label_all(
    labeller: Labeller, cases: Sequence[LabelCase], at_once: int = 1, note: Note = unnoted
) -> list[Label]:
    """Label each case, in order, with `at_once` threads.

    The threads are daemons, so a hanging request delays neither an interrupt nor the exit.
    """
    labels = [Future[Label]() for _ in cases]
    jobs = SimpleQueue[tuple[Future[Label], LabelCase]]()
    for job in zip(labels, cases, strict=True):
        jobs.put(job)

    def work() -> None:
        with suppress(Empty):
            while True:
                label, case = jobs.get_nowait()
                try:
                    label.set_result(_label(labeller, case))
                except BaseException as error:
                    label.set_exception(error)

    try:
        for _ in range(min(at_once, len(cases))):
            Thread(target=work, daemon=True).start()
        for label in as_completed(labels):
            label.result()
            note(1)
    except BaseException:
        labeller.stop()
        raise
    return [label.result() for label in labels]


def _label(labeller: Labeller, case: LabelCase) -> Label:
    """Name a feature and test the name; a failure to name becomes the label's status."""
    own, name, detection, causal = case.evidence, None, NO_LABEL, NO_LABEL
    try:
        if own.empty:
            raise LabelError("no_evidence", "there is no evidence of the kinds in label.evidence")
        name = labeller.name(own)
        status, detail = LABELLED, name.remark
        detection = detection_score(labeller, name, case.trials)
        causal = causal_score(labeller, name, case.trials)
    except LabelError as error:
        status, detail = error.status, str(error)
    scores = case.effect, detection, causal
    return Label(
        own.feature, own.side, name, status, detail, *scores, labeller.provider, labeller.model
    )
