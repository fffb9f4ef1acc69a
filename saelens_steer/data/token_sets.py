"""Sets of vocabulary entries, positions where they occur, and the text of each token."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedTokenizerBase

from saelens_steer.config import TOKEN_SETS, TokenSetSpec
from saelens_steer.data.chat import generation_prompt
from saelens_steer.data.special_tokens import special_ids
from saelens_steer.errors import InputError
from saelens_steer.no_tokenizer import NoTokenizer, check_tokenizer
from saelens_steer.tensors import Mask, Tokens

UNKNOWN = "\ufffd"
"""What a byte-level entry decodes to if it is only part of a character."""

MAX_BYTES = 4
"""Bytes in the longest UTF-8 character, and so the most tokens it can be split into."""

_vocabularies: WeakKeyDictionary[Any, tuple[int, dict[int, str]]] = WeakKeyDictionary()


def token_set(spec: TokenSetSpec, tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> list[int]:
    """Ids of the entries that `spec` describes, ascending.

    Special tokens, and rows of the unembedding that the tokenizer does not know, are in no set. An
    entry that is only part of a UTF-8 character has no text and can only be given by its id.
    InputError if the set is empty or an entry does not exist.
    """
    if spec.ids is None:
        check_tokenizer(tokenizer, "a token set that is not given by ids")
    entries = ordinary_entries(tokenizer, d_vocab)
    if spec.name is not None:
        found = _matching(TOKEN_SETS[spec.name], entries)
    elif spec.strings is not None:
        found = sorted({i for text in spec.strings for i in _single(text, entries)})
    elif spec.ids is not None:
        found = sorted({_checked(i, entries, tokenizer) for i in spec.ids})
    else:
        found = _matching(spec.regex or "", entries)
    if not found:
        shown = ", ".join(f"{k}={v!r}" for k, v in spec.model_dump(exclude_none=True).items())
        raise InputError(f"no vocabulary entry matches the token set {shown}")
    return found


def complement(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> list[int]:
    """Ids of all other ordinary entries."""
    check_tokenizer(tokenizer, "other=None, which leaves out special tokens,")
    chosen = set(ids)
    return [i for i in ordinary_entries(tokenizer, d_vocab) if i not in chosen]


def describe(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of each entry; parts of characters in the tokenizer's own notation."""
    entries = _decoded(tokenizer)
    texts = [entries.get(i, UNKNOWN) for i in ids]
    return [
        str(tokenizer.convert_ids_to_tokens(i)) if UNKNOWN in text else text
        for i, text in zip(ids, texts, strict=True)
    ]


def ordinary_entries(tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> dict[int, str]:
    """id → text of every entry below d_vocab that is not a special token, ids ascending."""
    return {i: text for i, text in _decoded(tokenizer).items() if i < d_vocab}


def diagnostic_positions(tokens: Tokens, mask: Mask, tokenizer: PreTrainedTokenizerBase) -> Mask:
    """True at assistant starts, code fences and LaTeX delimiters.

    An assistant start is the last token that the chat template puts before an answer. In a row
    without one (plain text, no chat template) the last token is marked instead.
    """
    check_tokenizer(tokenizer, "tokens='diagnostic'")
    starts = _ends_of(generation_prompt(tokenizer), tokens) & mask
    last = torch.zeros_like(mask)
    last[:, -1] = mask[:, -1]
    starts |= last & ~starts.any(dim=1, keepdim=True)
    entries = ordinary_entries(tokenizer, len(tokenizer))
    ids = [i for regex in TOKEN_SETS.values() for i in _matching(regex, entries)]
    marks = torch.tensor(ids, dtype=torch.long, device=tokens.device)
    return starts | (torch.isin(tokens, marks) & mask)


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to the tokens before it.

    A character split over several byte-level tokens belongs to the last of them; the others are
    empty. Bytes that form no character become U+FFFD.
    """
    anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    grown = [anchor + list(ids[:end]) for end in range(len(ids) + 1)]
    known, *texts = batch_decoder(tokenizer)(grown)
    whole = texts[-1][len(known) :] if texts else ""
    found = _added(known, texts, MAX_BYTES)
    # a text may itself contain U+FFFD before a split character: then there is no limit
    return found if "".join(found) == whole else _added(known, texts, len(texts) + 1)


def _decoded(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """All ordinary entries, decoded once per tokenizer and again if tokens are added to it."""
    size = len(tokenizer)
    if tokenizer not in _vocabularies or _vocabularies[tokenizer][0] != size:
        special = special_ids(tokenizer)
        ids = sorted(i for i in tokenizer.get_vocab().values() if i < size and i not in special)
        _vocabularies[tokenizer] = size, dict(zip(ids, _decode_each(tokenizer, ids), strict=True))
    return _vocabularies[tokenizer][1]


def _decode_each(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """The text of each entry, decoded after a letter: some decoders strip a leading space."""
    if isinstance(tokenizer, NoTokenizer):
        return [str(i) for i in ids]
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    decode = batch_decoder(tokenizer)
    prefix = len(decode([anchor])[0])
    return [text[prefix:] for text in decode([[*anchor, i] for i in ids])]


def batch_decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[list[int]]], list[str]]:
    """The Rust tokenizer's decoder if there is one: it is fast and leaves spaces alone."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return lambda rows: backend.decode_batch(rows, skip_special_tokens=False)
    return lambda rows: [
        str(tokenizer.decode(row, clean_up_tokenization_spaces=False)) for row in rows
    ]


def _matching(regex: str, entries: dict[int, str]) -> list[int]:
    try:
        match = re.compile(regex).fullmatch
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"{regex!r} is not a regular expression: {error}") from None
    return [i for i, text in entries.items() if UNKNOWN not in text and match(text)]


def _single(text: str, entries: dict[int, str]) -> list[int]:
    wanted = {text, f" {text}"}
    found = [i for i, entry in entries.items() if entry in wanted]
    if not found:
        inside = [entry for entry in entries.values() if entry and text.startswith(entry)]
        near = f", such as its prefix {max(inside, key=len)!r}" if inside else ""
        raise InputError(
            f"{text!r} is not a single ordinary token, with or without a leading space: use one "
            f"that is{near}"
        )
    return found


def _checked(i: int, entries: dict[int, str], tokenizer: PreTrainedTokenizerBase) -> int:
    if i in entries:
        return i
    if i in special_ids(tokenizer):
        raise InputError(f"token id {i} is a special token; token sets may not contain these")
    raise InputError(f"token id {i} is not in the vocabulary (0 to {max(entries, default=0)})")


def _ends_of(pattern: list[int], tokens: Tokens) -> Mask:
    """True at the last token of each occurrence of `pattern`."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    n = len(pattern)
    if 0 < n <= tokens.shape[1]:
        windows = tokens.unfold(1, n, 1)
        found[:, n - 1 :] = (windows == torch.tensor(pattern, device=tokens.device)).all(-1)
    return found


def _added(known: str, texts: Sequence[str], longest: int) -> list[str]:
    """What each text adds to the last complete one; empty if it ends within a character.

    A character is complete after at most `longest` tokens.
    """
    found, waiting = list[str](), 0
    for number, text in enumerate(texts, start=1):
        waiting += 1
        if text.endswith(UNKNOWN) and waiting < longest and number < len(texts):
            found.append("")
        else:
            found.append(text[len(known) :])
            known, waiting = text, 0
    return found
