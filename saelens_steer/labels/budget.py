"""What asking may cost: requests and tokens."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from saelens_steer.labels.labeller import Failed


@dataclass
class Budget:
    """Requests and tokens that are spent; safe to use from several threads."""

    max_requests: int | None = None
    max_tokens: int | None = None
    requests: int = 0
    tokens: int = 0
    waiting: int = 0
    """Tokens that are set aside for requests under way."""
    _change: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def promise(self, tokens: int) -> None:
        """Set aside one request and so many tokens. Raises Failed where they are not left.

        Where they would be left if requests under way took less than is set aside for them, waits.
        """
        with self._change:
            while self._full(self.tokens + self.waiting + tokens) and self.waiting:
                self._change.wait()
            self._check(tokens)
            self.requests += 1
            self.waiting += tokens

    def settle(self, promised: int, spent: int) -> None:
        """Replace the tokens that were set aside by those that were spent."""
        with self._change:
            self.waiting -= promised
            self.tokens += spent
            self._change.notify_all()

    def _full(self, tokens: int) -> bool:
        return self.max_tokens is not None and tokens > self.max_tokens

    def _check(self, tokens: int) -> None:
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise Failed("over_budget", f"all {self.max_requests:,} requests are spent")
        if self._full(self.tokens + tokens):
            left = max(0, (self.max_tokens or 0) - self.tokens)
            raise Failed(
                "over_budget",
                f"a question may take {tokens:,} tokens, and {left:,} of {self.max_tokens:,} "
                "are left",
            )
