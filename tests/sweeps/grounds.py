"""Sweeps of the tests on another ground."""

from dataclasses import replace

from saelens_steer.sweeps.cells import Cells


def based(sweep: Cells, **settings) -> Cells:
    """The same sweep with some settings of its ground changed; nothing is shared with the first."""
    return replace(sweep, ground=replace(sweep.ground, **settings))
