"""Each kind of fault in each step is survived, or refused in one sentence; nothing done is lost."""

from __future__ import annotations

import pytest
from faults.test_kills import study

MOST = 17
"""Pairs of kind and step in the default run: every step once."""


@pytest.mark.slow
def test_a_fault_in_each_step_is_survived_or_refused(tmp_path):
    found = study("breaking", tmp_path, MOST)
    assert found["failures"] == []
    assert len({kind for kind, _ in found["tried"]}) == 14
    assert len({step for _, step in found["tried"]}) == 17


@pytest.mark.nightly
def test_each_fault_in_each_step_is_survived_or_refused(tmp_path):
    assert study("breaking", tmp_path, 0)["failures"] == []
