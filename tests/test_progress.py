"""Progress outside a terminal: a line every half minute with share, rate and time left."""

from __future__ import annotations

import re
import time

import pytest

from saelens_steer import progress as module
from saelens_steer.progress import progress, progress_line


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (1200, 4800, 60, "sweep: 1,200 of 4,800 (25 %), 20/s, 3 min left"),
        (1, 24, 40, "sweep: 1 of 24 (4 %), 1.5/min, 15 min left"),
        (3, 9, 2, "sweep: 3 of 9 (33 %), 1.5/s, 4 s left"),
        (0, 9, 30, "sweep: 0 of 9 (0 %), 30 s so far"),
        (9, 9, 30, "sweep: 9 of 9 (100 %), 30 s so far"),
        (10**6, 10**7, 3600, "sweep: 1,000,000 of 10,000,000 (10 %), 278/s, 9.0 h left"),
        (40, None, 4, "sweep: 40 done, 10/s, 4 s so far"),
        (0, None, 100, "sweep: 2 min so far"),
    ],
)
def test_a_line_has_share_rate_and_time_left(done, total, seconds, line):
    assert progress_line("sweep", done, total, float(seconds)) == line


def test_lines_come_while_nothing_advances_and_stop_with_the_phase(monkeypatch, capsys):
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    with progress("training", 10) as note:
        note(4)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("training: 4 ") for line in lines)
    assert re.fullmatch(r"training: 4 done in \d+ s", lines[-1])
    time.sleep(0.15)
    assert capsys.readouterr().err == ""


def test_a_short_phase_prints_nothing(capsys):
    with progress("strengths", 3) as note:
        note(3)
    with progress("nothing", 0) as note:
        note(1)
    assert capsys.readouterr().err == ""


def test_an_error_ends_the_lines(monkeypatch, capsys):
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    with pytest.raises(ValueError, match="stop"), progress("sweep", 10):
        raise ValueError("stop")
    capsys.readouterr()
    time.sleep(0.15)
    assert capsys.readouterr().err == ""
