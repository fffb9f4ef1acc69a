"""What asking may cost: requests and tokens, counted before they are spent."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from saelens_steer.labels.labeller import Failed


@dataclass
class Budget:
    """Requests and tokens that are spent or promised; safe to use from several threads."""

    max_requests: int | None = None
    max_tokens: int | None = None
    requests: int = 0
    tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def promise(self, tokens: int) -> None:
        """Set aside one request and at most so many tokens. Raises Failed where that is too much.

        What a request may cost has to fit as a whole, so a budget is never overspent.
        """
        with self._lock:
            if self.max_requests is not None and self.requests >= self.max_requests:
                raise Failed("over_budget", f"all {self.max_requests:,} requests are spent")
            if self.max_tokens is not None and self.tokens + tokens > self.max_tokens:
                left = max(0, self.max_tokens - self.tokens)
                raise Failed(
                    "over_budget",
                    f"a question may take {tokens:,} tokens and {left:,} of {self.max_tokens:,} "
                    "are left",
                )
            self.requests += 1
            self.tokens += tokens

    def settle(self, promised: int, spent: int) -> None:
        """Replace the tokens that were set aside by those that were spent."""
        with self._lock:
            self.tokens += spent - promised
