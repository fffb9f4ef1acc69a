"""A custom text metric, named in transport_vs_prose.yaml."""

import re

KINDS = re.compile(
    r"\b(car|bus|taxi|truck|van|bicycle|motorcycle|scooter|wagon|tractor|train|tram|subway|monorail"
    r"|ferry|boat|canoe|ship|kayak|raft|submarine|yacht|plane|helicopter|balloon|glider|rocket"
    r"|sled|snowmobile)\b"
)


def mentions_transport(text: str) -> bool:
    """Whether the completion names a kind of transport."""
    return KINDS.search(text.lower()) is not None
