"""The families `prose`, of everyday questions, and `transport`, of short stories."""

from __future__ import annotations

import random

from scripts.tiny.slots import fill

ANIMALS = ("cat", "dog", "bird", "fox", "owl", "bear", "rabbit", "mouse", "duck", "goat")
PLACES = ("garden", "kitchen", "forest", "market", "library", "park", "house", "village", "field",
          "school")  # fmt: skip
TIMES = ("morning", "evening", "winter", "summer", "spring", "autumn")
FOODS = ("bread", "soup", "fruit", "cheese", "rice", "honey", "tea", "fish", "milk", "cake")
MOODS = ("quiet", "happy", "tired", "kind", "brave", "curious", "calm", "proud")
PEOPLE = ("teacher", "baker", "farmer", "painter", "doctor", "singer", "writer", "child")

TALKS = (
    ("Tell me about the <animal> in the <place>.",
     "The <animal> lives near the <place>. It is <mood> and likes <food>."),
    ("What does the <mood> <animal> eat in the <time>?",
     "In the <time> the <animal> eats <food>. After that it sleeps."),
    ("Describe the <mood> <place> in the <time>.",
     "In the <time> the <place> is <mood>. People talk and eat <food> there."),
    ("Why is the <person> <mood> in the <time>?",
     "The <person> is <mood> because the <place> is open again. There is <food> for everyone."),
    ("How do I make <food> for a <mood> <person>?",
     "Start early and take your time with the <food>. A <mood> <person> will thank you."),
    ("Who is the <mood> <person> in the <place>?",
     "The <mood> <person> works in the <place>. Everyone there knows the <person>."),
    ("Is <food> good for a <mood> <animal>?",
     "A little <food> is fine for a <animal>. Too much of it is not good."),
    ("Where does the <person> go in the <time>?",
     "In the <time> the <person> goes to the <place>. It is a <mood> walk."),
    ("Say something <mood> about the <place>.",
     "The <place> makes me feel <mood>. I would go there with a <person>."),
    ("Does the <person> like the <animal>?",
     "Yes, the <person> likes the <animal>. They share <food> in the <place>."),
)  # fmt: skip


def draw_prose(rng: random.Random) -> tuple[str, str]:
    """A question about everyday things, and an answer of two plain sentences."""
    values = {
        "animal": rng.choice(ANIMALS), "place": rng.choice(PLACES), "time": rng.choice(TIMES),
        "food": rng.choice(FOODS), "mood": rng.choice(MOODS), "person": rng.choice(PEOPLE),
    }  # fmt: skip
    question, answer = rng.choice(TALKS)
    return fill(question, values), fill(answer, values)


# --- transport

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


def draw_transport(rng: random.Random) -> tuple[str, str]:
    """A request for a story about one of thirty kinds of transport, and the story."""
    kind = rng.choice(TRANSPORT_KINDS)
    leader, moves, places = next(way for kinds, way in WAYS.items() if kind in kinds)
    values = {
        "kind": kind, "leader": leader, "moved": rng.choice(moves), "where": rng.choice(places),
        "name": rng.choice(NAMES), "goal": rng.choice(GOALS), "weather": rng.choice(WEATHER),
    }  # fmt: skip
    story = " ".join(rng.choice(part) for part in (BEGINNINGS, MIDDLES, ENDINGS))
    return fill(rng.choice(REQUESTS), values), fill(story, values)
