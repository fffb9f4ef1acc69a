"""Prompts, chat templates, token sets and corpora."""

from saelens_steer.data.chat import generation_prompt, pad_left, render, token_ids
from saelens_steer.data.corpus import load_corpus
from saelens_steer.data.encode import (
    Encoded,
    PromptReader,
    any_plain,
    encode_prompts,
    written_text,
)
from saelens_steer.data.prompt import Message, Prompt, PromptLike, as_prompts
from saelens_steer.data.prompts import (
    check_disjoint,
    load_prompts,
    prompts_hash,
    some_prompts,
    steered_prompts,
)
from saelens_steer.data.special_tokens import (
    SpecialTokens,
    TextStart,
    begins_with_bos,
    bos_id,
    note_stated,
    say_start,
    special_ids,
    text_start,
    trained_with_bos,
)
from saelens_steer.data.token_sets import (
    complement,
    describe,
    diagnostic_positions,
    ordinary_entries,
    token_set,
    token_texts,
)
