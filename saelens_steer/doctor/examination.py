"""A config's self-tests, then what a run of it would be, in words and numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

from saelens_steer.config import RunSpec
from saelens_steer.doctor.case import FEW, SelfTestCase, spread
from saelens_steer.doctor.findings import Finding
from saelens_steer.doctor.resources import WorkSizes, memory_of_work, sizes_of_work, time_of_work
from saelens_steer.doctor.self_tests import (
    batches,
    chat_template,
    engine,
    identity,
    kv_cache,
    padding,
    parity,
    sae_hook,
)
from saelens_steer.errors import InputError
from saelens_steer.model import ParityError
from saelens_steer.pipeline.checks import begin
from saelens_steer.sweeps import Measurement

SELFTESTS: dict[str, Callable[[SelfTestCase], Finding]] = {
    "parity": parity,
    "alpha 0": identity,
    "kv cache": kv_cache,
    "batches": batches,
    "padding": padding,
    "SAE hook": sae_hook,
    "chat template": chat_template,
    "engine": engine,
}


def examine(spec: RunSpec) -> Iterator[Finding]:
    """Load the model and the prompts, check all that `run` checks, test, and describe the work.

    A model that differs from its checkpoint is a failed self-test, and the last one. Raises
    InputError for all else that `run` would refuse.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = begin(spec, folder)
        except ParityError as error:
            yield Finding("parity", str(error), "FAIL")
            return
        measurement = run.measurement()
        case = SelfTestCase(run, spread(measurement, FEW))
        yield from (_outcome(name, case) for name in SELFTESTS)
        size = WorkSizes.of(run, measurement)
        yield from sizes_of_work(run, measurement, size)
        yield from memory_of_work(run, measurement, size)
        yield from _times(measurement, size)


def _times(measurement: Measurement, size: WorkSizes) -> Iterator[Finding]:
    """How long rows and texts take, unless they cannot be steered, which a self-test has said."""
    try:
        yield from time_of_work(measurement, size)
    except InputError as error:
        yield Finding("time", f"not measured: {error}")


def _outcome(name: str, case: SelfTestCase) -> Finding:
    """A self-test's finding; one that cannot steer where the config does has failed."""
    try:
        return SELFTESTS[name](case)
    except InputError as error:
        return Finding(name, str(error), "FAIL")
