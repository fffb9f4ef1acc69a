"""Memory of caching, selection and controls does not grow with the number of tokens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHILD = Path(__file__).with_name("memory.py")
GIVEN_BACK = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(CHILD.parents[2]),
}
"""Return freed memory to the system at once, so that the peak is what is really held."""


def grown(n_prompts: int, folder: Path) -> dict[str, float]:
    """Peak memory of a child process beyond its warm-up."""
    command = [sys.executable, str(CHILD), str(n_prompts), str(folder)]
    env = os.environ | GIVEN_BACK
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_tokens(tmp_path):
    few, many = (grown(n, tmp_path / str(n)) for n in (160, 640))
    more = many["tokens"] - few["tokens"]
    assert more > 100_000 and more * 192 * 4 / 2**20 > 80, "the vectors alone would show"
    # the index stays in memory: about twenty bytes per token, twice that while it is written
    assert many["grown"] - few["grown"] < 10 + more * 80 / 2**20, (few, many)
