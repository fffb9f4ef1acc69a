"""The transport family: short stories over thirty kinds of transport."""

from __future__ import annotations

import random

from saelens_steer.model.tiny.grammar.slots import fill

ROAD = ("car", "bus", "taxi", "truck", "van", "bicycle", "motorcycle", "scooter", "wagon",
        "tractor")  # fmt: skip
RAIL = ("train", "tram", "subway", "monorail", "cable car")
WATER = ("ferry", "boat", "canoe", "ship", "kayak", "raft", "submarine", "yacht")
AIR = ("plane", "helicopter", "balloon", "glider", "rocket")
SNOW = ("sled", "snowmobile")
TRANSPORT_KINDS = ROAD + RAIL + WATER + AIR + SNOW
"""The thirty kinds."""

WAYS = {
    # kinds, who leads it, how it moves, where
    ROAD: ("driver", ("rolled", "turned", "hurried"), ("road", "bridge", "street", "hill")),
    RAIL: ("conductor", ("rattled", "hummed", "slid"), ("track", "tunnel", "station", "line")),
    WATER: ("captain", ("sailed", "drifted", "floated"), ("river", "lake", "bay", "sea")),
    AIR: ("pilot", ("flew", "rose", "soared"), ("clouds", "sky", "mountains", "valley")),
    SNOW: ("guide", ("slid", "raced", "turned"), ("snow", "ice", "hill", "valley")),
}

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jonas")
GOALS = ("home", "to the market", "to the city", "to school", "to the harbour", "to the sea",
         "to work", "to the island")  # fmt: skip
WEATHER = ("rain", "sunshine", "fog", "wind", "snow")

REQUESTS = (
    "Tell a short story about a <kind>.",
    "Tell a story about <name> and a <kind>.",
    "Write about a <kind> in the <weather>.",
    "<name> takes the <kind> <goal>. Tell the story.",
    "How did <name> go <goal> by <kind>?",
    "A story with a <kind> and <weather>, please.",
)

BEGINNINGS = (
    "<name> took the <kind> <goal>.",
    "In the <weather> <name> waited for the <kind>.",
    "The <kind> was old, but <name> loved it.",
)
MIDDLES = (
    "The <kind> <moved> past the <where> while the <leader> sang.",
    "Slowly the <kind> <moved> over the <where>.",
    "The <leader> smiled and the <kind> <moved> on in the <weather>.",
)
ENDINGS = (
    "At noon <name> was there.",
    "<name> waved to the <leader> and went <goal>.",
    "That day <name> never forgot the <kind>.",
)


def draw(rng: random.Random) -> tuple[str, str]:
    """A prompt and its answer."""
    kind = rng.choice(TRANSPORT_KINDS)
    leader, moves, places = next(way for kinds, way in WAYS.items() if kind in kinds)
    values = {
        "kind": kind, "leader": leader, "moved": rng.choice(moves), "where": rng.choice(places),
        "name": rng.choice(NAMES), "goal": rng.choice(GOALS), "weather": rng.choice(WEATHER),
    }  # fmt: skip
    story = " ".join(rng.choice(part) for part in (BEGINNINGS, MIDDLES, ENDINGS))
    return fill(rng.choice(REQUESTS), values), fill(story, values)
