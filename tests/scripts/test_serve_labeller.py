"""The script that starts a vLLM server, with a stand-in for vLLM."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "serve_labeller.sh"
STAND_IN = """#!{python}
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
open({log!r}, "w").write(" ".join(sys.argv[1:]))
if "broken/model" in sys.argv:
    sys.exit(1)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl"
)


@pytest.fixture
def place(tmp_path) -> dict[str, str]:
    """An environment where `vllm` is the stand-in."""
    vllm = tmp_path / "bin" / "vllm"
    vllm.parent.mkdir()
    vllm.write_text(STAND_IN.format(python=sys.executable, log=str(tmp_path / "asked")))
    vllm.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{vllm.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PORT": str(port), "PATIENCE": "60"}


def health(place: dict[str, str]) -> int:
    command = ["bash", str(SCRIPT), "--health"]
    return subprocess.run(command, env=place, capture_output=True, timeout=60).returncode


def test_it_says_when_the_server_is_ready_and_ends_it(place, tmp_path):
    assert health(place) == 1
    command = ["bash", str(SCRIPT), "some/model", "--seed", "3"]
    process = subprocess.Popen(command, env=place, stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        assert said == (
            f"ready: label.server={{base_url: http://127.0.0.1:{place['PORT']}/v1, "
            "model: some/model}\n"
        )
        assert health(place) == 0
        asked = (tmp_path / "asked").read_text()
        assert asked.startswith(f"serve some/model --host 127.0.0.1 --port {place['PORT']}")
        assert asked.endswith("--seed 3")
        assert subprocess.run(command, env=place, capture_output=True, timeout=60).returncode == 2
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert health(place) == 1


def test_a_server_that_ends_at_once_is_a_failure(place):
    command = ["bash", str(SCRIPT), "broken/model"]
    done = subprocess.run(command, env=place, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ended before it was ready" in done.stderr
