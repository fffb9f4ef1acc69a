"""Labels from a real server: `transformers serve` with the shipped model, on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prompt_files import small_run

HOOK = "blocks.2.hook_resid_pre"
WEIGHTS = Path(__file__).parents[2] / "saelens_steer" / "model" / "tiny" / "weights"
PATIENCE = 120.0
"""Seconds within which the server must come up."""


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The server's address and its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(WEIGHTS)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, env=quiet, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", log
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not come up: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def config(tmp_path_factory, random_folder) -> Path:
    home = tmp_path_factory.mktemp("served-parts")
    parts = small_run(home, random_folder, HOOK, 6) | {
        "features": {"topic": None, "contexts": 2},
        "label": {"max_new_tokens": 4, "n_prompts": 6, "contexts": 2, "detection": 3},
    }
    path = home / "study.yaml"
    path.write_text(yaml.safe_dump(parts))
    return path


def asking(base_url: str, model: str) -> list[str]:
    server = {"base_url": base_url, "model": model, "timeout": 60, "max_answer_tokens": 48}
    about = json.dumps(server | {"retries": 0, "concurrency": 2})
    return ["--set", "label.provider=openai-compatible", "--set", f"label.server={about}"]


def n_asked(log: Path) -> int:
    return log.read_text().count("POST /v1/chat/completions")


@pytest.mark.slow
def test_every_feature_has_a_status_and_every_answer_is_cached(served, config, tmp_path, said):
    base_url, log = served
    options = asking(base_url, str(WEIGHTS))
    folder = tmp_path / "run"
    status, out, _ = said("label", config, "--out", folder, *options)
    assert out == f"{folder / 'labels.json'}\n"
    entries = json.loads((folder / "labels.json").read_text())["2"].values()
    assert {e["status"] for e in entries} <= {"labelled", "unreadable", "no_evidence"}
    kept = [json.loads(p.read_text()) for p in (folder / ".store" / "answers").iterdir()]
    named = [k for k in kept if '"summary"' in k["question"]["messages"][-1]["content"]]
    assert len(named) == sum(e["status"] != "no_evidence" for e in entries) > 0
    assert all(k["answer"]["text"].strip() for k in kept)
    assert all(k["answer"]["model"].startswith(str(WEIGHTS)) for k in kept)
    assert status == (1 if "unreadable" in {e["status"] for e in entries} else 0)

    before = n_asked(log)
    said("label", config, "--out", folder, *options)
    assert n_asked(log) == before  # readable or not, an answer that was paid for is kept


@pytest.mark.slow
def test_a_model_that_is_not_served_is_refused_for_every_feature(served, config, tmp_path, said):
    folder = tmp_path / "run"
    options = asking(served[0], "no-such-model")
    assert said("label", config, "--out", folder, *options)[0] == 1
    entries = json.loads((folder / "labels.json").read_text())["2"].values()
    assert {e["status"] for e in entries} <= {"refused", "no_evidence"}
    assert all("400" in e["detail"] for e in entries if e["status"] == "refused")
