"""Neuronpedia's labels for published SAEs."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from saelens_steer.labels.answers import Answers
from saelens_steer.labels.labeller import writable
from saelens_steer.labels.transfer import MOST_BYTES, within

TIMEOUT = 10.0
"""Seconds for a whole answer."""
KNOWN_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class NeuronpediaLabel:
    """Neuronpedia's page and label of a feature."""

    url: str
    label: str | None
    status: str
    """found, none (the feature has no label there), or unreached."""


def published_labels(
    site: str | None, sae_id: object, features: Sequence[int], answers: Answers
) -> dict[int, NeuronpediaLabel]:
    """Feature → its first explanation on Neuronpedia; empty without a site or a valid id.

    `sae_id` is neuronpedia_id in SAELens's metadata, in the form model/source. After it fails to
    answer once, the site is not asked again.
    """
    if not site or not isinstance(sae_id, str) or not KNOWN_ID.fullmatch(sae_id):
        return {}
    site, found, reached = site.rstrip("/"), dict[int, NeuronpediaLabel](), True
    for feature in features:
        url = f"{site}/{sae_id}/{feature}"
        kept = answers.find(question := {"neuronpedia": url})
        if kept is None and reached:
            try:
                kept = {"label": _first_explanation(f"{site}/api/feature/{sae_id}/{feature}")}
            except (OSError, ValueError, RecursionError, http.client.HTTPException):
                reached = False
            else:
                answers.keep(question, kept, "read")
        label = kept.get("label") if kept else None
        status = "unreached" if kept is None else "found" if label else "none"
        found[feature] = NeuronpediaLabel(url, label, status)
    return found


def _first_explanation(url: str) -> str | None:
    """The first nonempty explanation of a feature, on one line; None without one or on a 404."""
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    try:
        data: Any = json.loads(within(TIMEOUT, lambda: _read(request)))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    listed = data.get("explanations") if isinstance(data, dict) else None
    for one in listed if isinstance(listed, list) else []:
        text = one.get("description") if isinstance(one, dict) else None
        if isinstance(text, str) and (line := " ".join(writable(text).split())):
            return line
    return None


class SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only within a host."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> Any:
        if urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(SameHost)
    with opener.open(request, timeout=TIMEOUT) as response:
        return response.read(MOST_BYTES)
