"""An OpenAI-compatible server on loopback that behaves as badly as a test wants."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tester"


@dataclass(frozen=True)
class Reply:
    """What comes back: a status, a body, and how it goes wrong on the way."""

    body: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    """Seconds until it comes."""
    cut: bool = False
    """Close the connection in the middle of the body."""
    drip: float = 0.0
    """Seconds between the bytes of the body."""
    slow_headers: bool = False
    """Drip the headers instead."""
    times: int = 1
    """Send the body so often, as one."""
    data: bytes = b""
    """A body that is no text."""


def answer(text: Any, **about: Any) -> Reply:
    """A well-formed answer with this text, or with this object as JSON."""
    content = text if isinstance(text, str) else json.dumps(text)
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    data = {"model": MODEL, "choices": [choice], "usage": {"total_tokens": 7}}
    return Reply(json.dumps(data | about))


def error(status: int, message: str = "no", **headers: str) -> Reply:
    """A refusal as OpenAI's servers word it."""
    return Reply(json.dumps({"error": {"message": message}}), status, headers)


def well(question: dict[str, Any]) -> Reply:
    """What a server answers that behaves: a name, no firing text, always A."""
    asked = question["messages"][-1]["content"]
    if '"summary"' in asked:
        return answer({"summary": "names of fruit", "analysis": "It fires on fruit."})
    if '"active"' in asked:
        return answer({"active": []})
    return answer({"choices": ["A"] * asked.count('"A":')})


@dataclass
class Loopback:
    """The address, and what was asked."""

    base_url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """Pages that were asked for."""
    reply: Callable[[dict[str, Any]], Reply] = well
    lock: threading.Lock = field(default_factory=threading.Lock)


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up, whenever they do: a later test may read stderr."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(
    reply: Callable[[dict[str, Any]], Reply] = well,
    pages: Callable[[str], Reply] = lambda path: error(404),
) -> Iterator[Loopback]:
    """A server that answers each question by `reply` and each page by `pages`, in threads."""
    state = Loopback("")
    state.reply = reply

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            question = json.loads(self.rfile.read(length))
            with state.lock:
                state.asked.append(question)
                state.headers.append({k.lower(): v for k, v in self.headers.items()})
            _send(self, state.reply(question))

        def do_GET(self) -> None:
            state.paths.append(self.path)
            _send(self, pages(self.path))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    state.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    time.sleep(reply.after)
    data = reply.data or reply.body.encode()
    try:
        if reply.slow_headers:
            _drip(handler, b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 10_000, reply.drip)
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data) * reply.times))
        handler.end_headers()
        if reply.drip:
            _drip(handler, data, reply.drip)
        for _ in range(reply.times):
            handler.wfile.write(data[: len(data) // 2] if reply.cut else data)
        if reply.cut:
            handler.close_connection = True
    except OSError:
        pass  # whoever asked has gone


def _drip(handler: BaseHTTPRequestHandler, data: bytes, seconds: float) -> None:
    for number in range(len(data)):
        handler.wfile.write(data[number : number + 1])
        time.sleep(seconds)
