"""How much memory a piece of work takes beyond what the process holds already."""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path
from types import TracebackType

STATUS = Path("/proc/self/status")
MIB = 1024


def held() -> float:
    """MiB of this process that are not pages of files (Linux)."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / MIB
    raise SystemExit("memory is read from /proc, which this system does not have")


class Peak:
    """`with Peak() as peak:` … then `peak.grown`, in MiB, looked at fifty times a second."""

    def __enter__(self) -> Peak:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free already would hide what is needed
        self.before = self.most = held()
        self.over = threading.Event()
        self.watching = threading.Thread(target=self._watch, daemon=True)
        self.watching.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self.watching.join()

    @property
    def grown(self) -> float:
        """The most that was held at once, less what was held before."""
        return self.most - self.before

    def _watch(self) -> None:
        while not self.over.is_set():
            self.most = max(self.most, held())
            time.sleep(0.02)
