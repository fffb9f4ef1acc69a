"""A made-up feature_pages.json, with hostile texts wherever a model, tokenizer or prompt speaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOSTILE = (
    "<!--<script>",
    "</script><img src=x onerror=alert(1)>",
    "\"><b title='x' onmouseover=alert(2)>",
    "<b>bold</b> %{x} &amp; \u202e\x00\t",
)
SIDES = ["code", "math"]


def feature_pages(shown: dict[int, str], hostile: bool = True) -> dict[str, Any]:
    """Pages of features (feature → its side); the last one never fires."""
    texts = HOSTILE if hostile else ("a", "b", "c", "d")
    last = list(shown)[-1] if shown else None
    return {
        "hook_name": "blocks.4.hook_resid_pre",
        "d_sae": 1024,
        "n_tokens": 10_000,
        "n_prompts": 240,
        "n_alive": 990,
        "n_dense": 23,
        "pages": [_page(f, side, texts, f == last) for f, side in shown.items()],
        "topic": {
            "categories": ["car", "2020", *texts, ""],
            "n_prompts": [10] * 7,
            "strengths": [[float(f % 7 + i) for i in range(7)] for f in shown],
        },
        "sides": SIDES,
        "topic_source": texts[1],
    }


def _page(feature: int, side: str, texts: tuple[str, ...], dead: bool) -> dict[str, Any]:
    token = [{"token": i, "text": text, "logit": 1.0 - i} for i, text in enumerate(texts)]
    return {
        "feature": feature,
        "side": side,
        "firing": _silent(texts) if dead else _firing(texts),
        "raised": token,
        "lowered": token[::-1],
        "neighbours": [{"feature": 7, "cosine": 0.5, "side": "math"}],
    }


def _firing(texts: tuple[str, ...]) -> dict[str, Any]:
    context = {
        "prompt_id": texts[0],
        "domain": texts[1],
        "peak": 4,
        "tokens": ["def", " f", *texts, "\n\n", ""],
        "activations": [0.0, 0.25, 1.0, 0.0, 4.0, 2.0, 3.0, 0.5],
        "positions": [3, 4, 5, 6, 7, 8, 9, 12],
        "more": [True, False],
    }
    return {
        "firing_rate": 0.031,
        "a_max": 4.0,
        "contexts": [context] * 8,
        "histogram": {"edges": [0.0, 1.0, 2.0, 4.0], "counts": [70, 0, 1]},
        "domains": [_domain(text, 0.1 / (i + 1)) for i, text in enumerate(texts)],
    }


def _silent(texts: tuple[str, ...]) -> dict[str, Any]:
    histogram = {"edges": [], "counts": []}
    domains = [_domain(text, 0.0) for text in texts]
    rest = {"contexts": [], "histogram": histogram, "domains": domains}
    return {"firing_rate": 0.0, "a_max": 0.0, **rest}


def _domain(name: str, rate: float) -> dict[str, Any]:
    return {
        "domain": name,
        "n_tokens": 100,
        "firing_rate": rate,
        "n_prompts": 10,
        "prompt_rate": min(1.0, 5 * rate),
    }


def decoder_only(shown: dict[int, str]) -> dict[str, Any]:
    """What an SAE without an encoder gives."""
    data = feature_pages(shown)
    pages = [{**page, "firing": None} for page in data["pages"]]
    return {**data, "pages": pages, "n_alive": None, "n_dense": None, "topic": None}


def write(folder: Path, data: dict[str, Any]) -> None:
    """Into a run folder."""
    text = json.dumps(data, ensure_ascii=False)
    (folder / "feature_pages.json").write_text(text, encoding="utf-8")
