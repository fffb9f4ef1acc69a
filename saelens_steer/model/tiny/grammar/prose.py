"""The prose family: a question about everyday things, and two plain sentences."""

from __future__ import annotations

import random

from saelens_steer.model.tiny.grammar.slots import fill

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


def draw(rng: random.Random) -> tuple[str, str]:
    """A prompt and its answer."""
    values = {
        "animal": rng.choice(ANIMALS), "place": rng.choice(PLACES), "time": rng.choice(TIMES),
        "food": rng.choice(FOODS), "mood": rng.choice(MOODS), "person": rng.choice(PEOPLE),
    }  # fmt: skip
    question, answer = rng.choice(TALKS)
    return fill(question, values), fill(answer, values)
