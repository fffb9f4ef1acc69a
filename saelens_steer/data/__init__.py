"""Prompts, chat templates, token sets and corpora."""

from saelens_steer.data.chat import (
    pad_left,
    render,
    token_ids,
)
from saelens_steer.data.corpus import load_corpus
from saelens_steer.data.encode import Encoded, as_prompts, encode_prompts, written_text
from saelens_steer.data.pieces import token_pieces
from saelens_steer.data.prompts import Prompt, load_prompts, prompts_hash
from saelens_steer.data.rows import shipped_prompts
from saelens_steer.data.sampling import sample_prompts, some_prompts, steered_prompts
from saelens_steer.data.token_sets import (
    complement,
    describe,
    diagnostic_positions,
    token_set,
)

__all__ = [
    "Encoded",
    "Prompt",
    "as_prompts",
    "complement",
    "describe",
    "diagnostic_positions",
    "encode_prompts",
    "load_corpus",
    "load_prompts",
    "pad_left",
    "prompts_hash",
    "render",
    "sample_prompts",
    "shipped_prompts",
    "some_prompts",
    "steered_prompts",
    "token_ids",
    "token_pieces",
    "token_set",
    "written_text",
]
