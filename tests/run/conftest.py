"""Run commands in the process of the test."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def said(monkeypatch, capsys):
    """Run a command; returns exit status, stdout and stderr."""
    from saelens_steer import cli

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["saelens-steer", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return call
