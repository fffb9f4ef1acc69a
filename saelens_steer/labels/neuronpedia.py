"""Labels that Neuronpedia has for published SAEs."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saelens_steer.labels.answers import Answers
from saelens_steer.labels.labeller import writable

TIMEOUT = 10.0
MOST_BYTES = 8 << 20
"""A feature's page holds its contexts too, but hardly more than this."""
KNOWN_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class NeuronpediaLabel:
    """What Neuronpedia says of a feature."""

    url: str
    label: str | None
    status: str
    """found, none (it has no label), or unreached."""


def published_labels(
    site: str | None, sae_id: object, features: Sequence[int], answers: Answers
) -> dict[int, NeuronpediaLabel]:
    """The first explanation of each feature; nothing without a site or an id of the SAE there.

    `sae_id`: neuronpedia_id in SAELens's metadata, model/source. If the site does not answer, no
    further feature is asked about.
    """
    if not site or not isinstance(sae_id, str) or not KNOWN_ID.fullmatch(sae_id):
        return {}
    site, found, reached = site.rstrip("/"), dict[int, NeuronpediaLabel](), True
    for feature in features:
        url = f"{site}/{sae_id}/{feature}"
        kept = answers.find(question := {"neuronpedia": url})
        if kept is None and reached:
            try:
                kept = {"label": _asked(f"{site}/api/feature/{sae_id}/{feature}")}
            except (OSError, ValueError, RecursionError, http.client.HTTPException):
                reached = False
            else:
                answers.keep(question, kept, read=True)
        label = kept.get("label") if kept else None
        status = "unreached" if kept is None else "found" if label else "none"
        found[feature] = NeuronpediaLabel(url, label, status)
    return found


def _asked(address: str) -> str | None:
    """The first explanation on a page, on one line; None if there is no page or none on it."""
    request = urllib.request.Request(address, headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            data: Any = json.loads(response.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    listed = data.get("explanations") if isinstance(data, dict) else None
    texts = [
        one.get("description")
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
    ]
    named = [" ".join(writable(text).split()) for text in texts if isinstance(text, str)]
    return next((text for text in named if text), None)
