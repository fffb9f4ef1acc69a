"""Findings, printed one per line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from saelens_steer.steering import relative_norms

Verdict = Literal["pass", "FAIL", "note", ""]
HEADER = "      self-test       measured  allowed"


@dataclass(frozen=True)
class Finding:
    """A self-test's error and tolerance, a note on why it does not apply, or a plain fact."""

    name: str
    detail: str
    verdict: Verdict = ""
    measured: float | None = None
    allowed: float | None = None
    shown: tuple[str, str] | None = None
    """How the two appear, with their unit; None: as plain figures."""

    @property
    def failed(self) -> bool:
        return self.verdict == "FAIL"

    def __str__(self) -> str:
        if not self.verdict:
            return f"{self.name:<10} {self.detail}"
        measured, allowed = self.shown or (_figure(self.measured), _figure(self.allowed))
        return f"{self.verdict:<5} {self.name:<15}{measured:>9}{allowed:>9}  {self.detail}"


def judged(name: str, measured: float, allowed: float, detail: str, holds: bool = True) -> Finding:
    """A self-test's finding; it passes if the error is within tolerance and `holds` is True."""
    return Finding(
        name, detail, "pass" if measured <= allowed and holds else "FAIL", measured, allowed
    )


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest ‖found − expected‖ / ‖expected‖ over vectors [n, d]; NaN counts as infinite."""
    errors = relative_norms(expected[None], found.to(expected.device)[None])
    return float(torch.nan_to_num(errors, nan=torch.inf).max())


def outcome(findings: Sequence[Finding]) -> str:
    """`ok`, or which self-tests failed."""
    failed = [finding.name for finding in findings if finding.failed]
    return f"failed: {', '.join(failed)}" if failed else "ok"


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(min(value, 1e9)) else f"{value:.1e}"
