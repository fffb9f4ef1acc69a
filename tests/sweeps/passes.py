"""Sweeps of the tests with another unsteered pass."""

from dataclasses import replace

from saelens_steer.sweeps.cells import SweepCells


def based(sweep: SweepCells, **settings) -> SweepCells:
    """The same sweep with some settings of its pass changed; nothing is shared with the first."""
    return replace(sweep, unsteered_pass=replace(sweep.unsteered_pass, **settings))
