"""Labels that Neuronpedia has for published SAEs."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from saelens_steer.labels.answers import Answers

TIMEOUT = 20.0
MOST_BYTES = 8 << 20
"""A feature's page holds its contexts too, but hardly more than this."""
KNOWN_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Published:
    """What Neuronpedia says of a feature."""

    url: str
    label: str | None
    status: str
    """found, none (it has no label), or unreached."""


@dataclass(frozen=True)
class Neuronpedia:
    """Asks one site about the features of one SAE, and keeps what it says."""

    site: str
    sae_id: str
    """As in SAELens's metadata (neuronpedia_id): model/source."""
    answers: Answers

    def label(self, feature: int) -> Published:
        """The first explanation of a feature. Where nothing answers, the status says so."""
        site = self.site.rstrip("/")
        url, question = (
            f"{site}/{self.sae_id}/{feature}",
            {"neuronpedia": self.sae_id, "of": feature},
        )
        kept = self.answers.find(question)
        if kept is None:
            try:
                kept = {
                    "label": _explanation(_fetched(f"{site}/api/feature/{self.sae_id}/{feature}"))
                }
            except (OSError, ValueError, http.client.HTTPException):
                return Published(url, None, "unreached")
            self.answers.keep(question, kept, read=True)
        label = kept["label"]
        return Published(url, label, "found" if label else "none")


def neuronpedia(site: str | None, metadata: Any, answers: Answers) -> Neuronpedia | None:
    """The site, where it is to be asked and the SAE's metadata says that it covers it."""
    sae_id = getattr(metadata, "neuronpedia_id", None)
    if not site or not isinstance(sae_id, str) or not KNOWN_ID.fullmatch(sae_id):
        return None
    return Neuronpedia(site, quote(sae_id), answers)


def _fetched(url: str) -> Any:
    """The JSON at an address; None where there is no such page."""
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.loads(response.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def _explanation(data: Any) -> str | None:
    """The description of the first explanation, on one line."""
    found = data.get("explanations") if isinstance(data, dict) else None
    texts = [one.get("description") for one in found or [] if isinstance(one, dict)]
    named = [" ".join(text.split()) for text in texts if isinstance(text, str)]
    return next((text for text in named if text), None)
