"""Bounds on what a server sends: seconds for a whole answer, and bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

MOST_BYTES = 8 << 20
"""Bytes of an answer that are read; labels and answers have a few thousand."""
T = TypeVar("T")


class TooLongError(OSError):
    """An answer has more than MOST_BYTES bytes."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, or its error. Raises TimeoutError after `seconds`.

    The time-outs of HTTP clients begin anew with each byte, and a server that sends one byte a
    second, of its headers too, would never reach them. The call goes on in a thread that ends with
    the program.
    """
    results, errors = list[T](), list[BaseException]()

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    for error in errors:
        raise error
    for result in results:
        return result
    raise TimeoutError


def joined(chunks: Iterable[bytes]) -> bytes:
    """The chunks of an answer as one. Raises TooLongError."""
    found, length = list[bytes](), 0
    for chunk in chunks:
        length += len(chunk)
        if length > MOST_BYTES:
            raise TooLongError(f"the answer has more than {MOST_BYTES >> 20} MB")
        found.append(chunk)
    return b"".join(found)
