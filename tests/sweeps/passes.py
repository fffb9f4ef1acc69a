"""Sweeps of the tests on another ground."""

from dataclasses import replace

from saelens_steer.sweeps.cells import SweepCells


def based(sweep: SweepCells, **settings) -> SweepCells:
    """The same sweep with some settings of its ground changed; nothing is shared with the first."""
    return replace(sweep, unsteered_pass=replace(sweep.unsteered_pass, **settings))
