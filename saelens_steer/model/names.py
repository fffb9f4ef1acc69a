"""The hub ids that a model's name may refer to: aliases, and repositories that moved."""

from __future__ import annotations

from saelens_steer.installed import HUB_ID, model_names

MOVED = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
"""Ids from before every repository had an owner, which the hub still redirects."""
TRANSFORMER_LENS_ONLY = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")
"""Owners of checkpoints that TransformerLens reads and transformers does not."""


def hub_ids(name: str) -> list[str]:
    """The hub ids under which a cache may hold the model of this name, the most likely first.

    Names without an owner, as in the metadata of many SAEs, count if TransformerLens knows the id.
    """
    known = model_names()
    short = {hub_id.split("/")[-1].lower(): hub_id for hub_id in known.values()}
    official = (short | known).get(name.lower())
    ids = [official] if official else []
    if HUB_ID.fullmatch(name):
        ids.insert(0, name)
    old = {new: short for short, new in MOVED.items()}
    moved = [other[i] for other in (MOVED, old) for i in ids if i in other]
    valid = (i for i in [*ids, *moved] if HUB_ID.fullmatch(i) or i in MOVED)
    return list(dict.fromkeys(valid))


def only_in_transformer_lens(hub_id: str) -> bool:
    """Whether only `HookedTransformer.from_pretrained` can read this checkpoint."""
    return hub_id.startswith(TRANSFORMER_LENS_ONLY)
