"""Small files of prompts."""

from __future__ import annotations

import json
from pathlib import Path


def prompt_file(path: Path, stem: str, domains: list[str]) -> str:
    """A prompt of each of these domains; the path as a config names it."""
    rows = [
        {"id": f"{stem}{i}", "text": f"{stem} of {i} {domain} numbers", "domain": domain}
        for i, domain in enumerate(domains)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
