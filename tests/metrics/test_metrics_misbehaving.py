"""A user's metric that leaves, hangs or is interrupted is named, and no run ends in silence."""

import sys
import time

import pytest

from saelens_steer.errors import InputError
from saelens_steer.functions import imported
from saelens_steer.metrics import custom
from saelens_steer.metrics.custom import FunctionMetric
from saelens_steer.metrics.metric import TextMetric


def leaves(text):
    sys.exit(0)


def leaves_later(text):
    return 1.0 if len(text) < 40 else sys.exit("enough")


def leaves_logits(logits):
    raise SystemExit(3)


def hangs(text):
    time.sleep(0.3)
    return 1.0


def interrupted(text):
    raise KeyboardInterrupt


def metric(function):
    return FunctionMetric.of(function).metric(16)


@pytest.mark.parametrize("function", [leaves, leaves_logits])
def test_a_metric_that_calls_exit_is_named(function):
    with pytest.raises(InputError, match=f"metric '{function.__name__}' failed on .*SystemExit"):
        metric(function)


def test_a_metric_that_calls_exit_for_some_texts_is_named_with_the_text():
    later = metric(leaves_later)
    assert isinstance(later, TextMetric)
    with pytest.raises(InputError, match=r"failed on the completion 'aaa.*SystemExit: enough"):
        later.fn("a" * 50, False)


def test_a_module_that_calls_exit_is_named(tmp_path, monkeypatch):
    (tmp_path / "leaving_module.py").write_text("import sys\nsys.exit(5)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"cannot import 'leaving_module' \(SystemExit: 5\)"):
        imported("leaving_module:f")


def test_an_interrupt_stays_one():
    with pytest.raises(KeyboardInterrupt):
        metric(interrupted)


def test_a_slow_metric_is_named_while_it_runs(monkeypatch, capsys):
    monkeypatch.setattr(custom, "PATIENCE", 0.1)
    metric(hangs)
    said = capsys.readouterr().err
    assert "metric 'hangs' has been busy with an empty completion for 0.1 s" in said
    monkeypatch.setattr(custom, "PATIENCE", 10)
    metric(hangs)
    assert not capsys.readouterr().err
