"""Run a config's self-tests, then estimate what a run needs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from saelens_steer.config import RunSpec
from saelens_steer.doctor.case import N_PROMPTS, SelfTestCase, spread
from saelens_steer.doctor.findings import Finding
from saelens_steer.doctor.resources import WorkSizes, memory_of_work, sizes_of_work, time_of_work
from saelens_steer.doctor.self_tests import SELFTESTS
from saelens_steer.errors import InputError
from saelens_steer.model import ParityError
from saelens_steer.pipeline.checks import checked_context


def examine(spec: RunSpec) -> Iterator[Finding]:
    """Check everything that `run` checks, run the self-tests, and estimate what a run needs.

    A model that differs from its checkpoint fails the first self-test and ends the examination. A
    self-test that cannot steer at the config's positions fails. Raises InputError for anything else
    that `run` would refuse.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = checked_context(spec, folder)
        except ParityError as error:
            yield Finding("parity", str(error), "FAIL")
            return
        measurement = run.measurement()
        case = SelfTestCase(run, spread(measurement, N_PROMPTS))
        for name, test in SELFTESTS.items():
            try:
                yield test(case)
            except InputError as error:
                yield Finding(name, str(error), "FAIL")
        size = WorkSizes.of(run, measurement)
        yield from sizes_of_work(run, measurement, size)
        yield from memory_of_work(run, measurement, size)
        try:
            yield from time_of_work(measurement, size, spec.sae.train is not None)
        except InputError as error:  # a self-test has already failed with it
            yield Finding("time", f"not measured: {error}")
