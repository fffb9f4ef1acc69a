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

from saelens_steer.labels.client import Answers
from saelens_steer.labels.labeller import writable

TIMEOUT = 10.0
MOST_BYTES = 8 << 20
"""A feature's page holds its contexts too, but hardly more than this."""
KNOWN_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


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

    @classmethod
    def of(cls, site: str | None, sae_id: object, answers: Answers) -> Neuronpedia | None:
        """The site, where it is to be asked and the SAE has an id there."""
        if not site or not isinstance(sae_id, str) or not KNOWN_ID.fullmatch(sae_id):
            return None
        return cls(site.rstrip("/"), sae_id, answers)

    def labels(self, features: Sequence[int]) -> dict[int, Published]:
        """The first explanation of each feature.

        Where nothing answers the status says so, and no further feature is asked about.
        """
        found, reached = dict[int, Published](), True
        for feature in features:
            found[feature] = self._label(feature, reached)
            reached = reached and found[feature].status != "unreached"
        return found

    def _label(self, feature: int, ask: bool) -> Published:
        url = f"{self.site}/{self.sae_id}/{feature}"
        kept = self.answers.find(question := {"neuronpedia": url})
        if kept is None:
            try:
                kept = {"label": self._asked(feature) if ask else None}
            except (OSError, ValueError, RecursionError, http.client.HTTPException):
                ask = False
            if not ask:
                return Published(url, None, "unreached")
            self.answers.keep(question, kept or {}, read=True)
        label = (kept or {}).get("label")
        return Published(url, label, "found" if label else "none")

    def _asked(self, feature: int) -> str | None:
        """What the site says of a feature; None where it has no page, or says nothing."""
        address = f"{self.site}/api/feature/{self.sae_id}/{feature}"
        request = urllib.request.Request(address, headers={"Accept": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return _explanation(json.loads(response.read(MOST_BYTES)))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise


def _explanation(data: Any) -> str | None:
    """The description of the first explanation, on one line."""
    found = data.get("explanations") if isinstance(data, dict) else None
    listed = found if isinstance(found, list) else []
    texts = [one.get("description") for one in listed if isinstance(one, dict)]
    named = [" ".join(writable(text).split()) for text in texts if isinstance(text, str)]
    return next((text for text in named if text), None)
