"""The checkpoint's own tokenizer: read it, give it a usable padding token, put it on a model.

TransformerLens reloads a tokenizer from its path and makes the copy begin every text with a BOS
token, whether or not the checkpoint's own tokenizer does. Models loaded here keep that tokenizer.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from saelens_steer.errors import InputError
from saelens_steer.model.configs import needs_own_code
from saelens_steer.model.model_class import Model
from saelens_steer.text_start import record_start

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
WANTS_CODE = "trust_remote_code=True"
"""Appears whenever transformers asks to run a checkpoint's own code."""
PADDING = "<|padding|>"
NEVER_TEXT = "ÿ"
"""Byte-level BPE's name for the byte 0xFF, which no UTF-8 text contains."""


def read_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder; InputError without its files, as transformers would invent one."""
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise InputError(f"There is no tokenizer in {folder}; add tokenizer.json.")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as e:  # a bad file raises errors of many kinds, some plain Exceptions
        if WANTS_CODE in str(e):
            raise needs_own_code(name) from e
        raise InputError(f"The tokenizer in {folder} cannot be read; replace its files.") from e


def set_own_tokenizer(model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the model a copy that pads on the left, and make `to_tokens` return its own ids."""
    own = copy.deepcopy(tokenizer)
    own.padding_side = "left"
    own.init_kwargs["trust_remote_code"] = False  # in case TransformerLens reads it again
    _set_padding(own, model.cfg.d_vocab)
    model.tokenizer = own
    begins = own.bos_token_id in record_start(own)[:1]
    model.cfg.default_prepend_bos = model.cfg.tokenizer_prepends_bos = begins


def with_tokenizer(fingerprint: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """The fingerprint of a checkpoint with another tokenizer than its own; None: its own."""
    if tokenizer is None:
        return fingerprint
    return hashlib.sha256(f"{fingerprint}\n{tokenizer_digest(tokenizer)}".encode()).hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of what decides a tokenizer's ids and chats, wherever it was loaded from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # one written in Python
        kind, vocabulary = type(tokenizer).__name__, tokenizer.get_vocab()
        about: Any = [kind, vocabulary, {**tokenizer.init_kwargs, "name_or_path": None}]
    else:
        about = json.loads(backend.to_str())
        for state in ("padding", "truncation"):  # left behind by the last call
            about.pop(state, None)
    parts = [about, tokenizer.chat_template, tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _set_padding(tokenizer: Any, d_vocab: int) -> None:
    """Keep the padding token if it is inside the embedding and begins no text.

    Without a mask TransformerLens takes leading padding tokens for padding, BOS too if it has the
    same id. The substitutes, in order: EOS, another special token for padding, a new token in a
    free row of the embedding, the byte 0xFF, EOS in any case, the last row.
    """
    bos, eos, added = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.get_added_vocab()
    candidates = [tokenizer.pad_token_id, eos, *(i for t, i in added.items() if "pad" in t.lower())]
    usable = [i for i in candidates if i is not None and 0 <= i < d_vocab and i != bos]
    if usable:
        if usable[0] != tokenizer.pad_token_id:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(usable[0])
    elif len(tokenizer) < d_vocab:
        tokenizer.add_special_tokens({"pad_token": PADDING})
    elif NEVER_TEXT in (vocabulary := tokenizer.get_vocab()):
        tokenizer.pad_token = NEVER_TEXT if vocabulary[NEVER_TEXT] < d_vocab else None
    if not 0 <= (d_vocab if (pad := tokenizer.pad_token_id) is None else pad) < d_vocab:
        last = bos if bos is not None and bos < d_vocab else d_vocab - 1
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(last)


def stop_ids(
    hf: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[int, ...]:
    """The tokenizer's EOS, then others that the generation config names; empty if none is named."""
    declared = getattr(getattr(hf, "generation_config", None), "eos_token_id", None)
    more = declared if isinstance(declared, list) else [declared]
    ids: list[Any] = [getattr(tokenizer, "eos_token_id", None), *more]
    return tuple(dict.fromkeys(int(i) for i in ids if i is not None))
