"""Cache activations at a hook, without special tokens and attention sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.activations.store import Activations, ShardWriter
from saelens_steer.config import ActivationSpec, TemplateSpec, checked, template_of
from saelens_steer.data import (
    Encoded,
    Prompt,
    PromptLike,
    SpecialTokens,
    check_ids,
    diagnostic_positions,
    encode_prompts,
    pad_left,
    special_ids,
    start_of,
    written_text,
)
from saelens_steer.errors import InputError
from saelens_steer.files import replacing
from saelens_steer.model import UNDEFINED, check_readable, default_hook_name, generate, run_to_hook
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.progress import Note, progress, unnoted
from saelens_steer.tensors import Mask, Tokens, Vectors

TokenChoice = Literal["all", "last", "diagnostic", "answer"]
WINDOW = 8
"""Batches of prompts sorted by length together, to reduce padding."""
PARTS = ["prompt", "assistant_start", "answer"]


def cache_activations(
    model: Model,
    prompts: Sequence[PromptLike],
    *,
    hook_name: str | None = None,
    tokens: TokenChoice = "all",
    max_norm: float | None = 10.0,
    batch_size: int = 32,
    chat: bool | None = None,
    system: str | None = None,
    add_generation_prompt: bool = True,
    chat_template_kwargs: Mapping[str, object] | None = None,
    special_tokens: SpecialTokens = None,
    out: str | Path | None = None,
) -> Activations:
    """Residuals of prompts at `hook_name` (default blocks.{n_layers // 2}.hook_resid_pre).

    At `attn.hook_z`, all heads of a position are one vector; `mlp.hook_in` is the MLP's input.
    Conversations are put in the chat template, plain text only if `chat` (TemplateSpec documents
    this and its options); answers follow prompts. `tokens`: all, last (the last prompt token, of
    conversations the assistant start), diagnostic (that one, code fences, math delimiters), or
    answer. Drops special tokens other than the last prompt token, and attention sinks: vectors with
    a norm above `max_norm` × the median of the others.
    `special_tokens`: whether plain text begins with BOS; None follows the checkpoint's tokenizer,
    an SAE its training contexts. `out`: write vectors to this folder as they are computed and read
    them from there, to bound memory. Raises InputError before any forward pass for an unknown hook
    or missing answers, and later if no vector is kept or a kept one is not finite.
    """
    kept: dict[str, object] = {"tokens": tokens, "max_norm": max_norm, "batch_size": batch_size}
    spec = checked(ActivationSpec, kept, "cache_activations")
    batch_size, max_norm = spec.batch_size, spec.max_norm
    hook_name = check_readable(model, hook_name or default_hook_name(model))
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template = template_of("cache_activations", *reading)
    encoded = encode_prompts(tokenizer_of(model), prompts, template, special_tokens)
    if tokens == "answer" and encoded and not any(e.answer for e in encoded):
        raise InputError(
            "tokens='answer' keeps only answers, but no prompt has one: give prompts with answers, "
            "as Prompt(…, answer=…) or rows of a file with `answer`"
        )
    if not encoded:
        raise InputError("no prompts to cache: the prompt set is empty")
    check_ids(encoded, model.cfg.d_vocab)
    start = start_of(tokenizer_of(model), encoded, special_tokens)
    begins = None if start is None else list(start.ids)
    found = _residuals(model, encoded, hook_name, tokens, batch_size)
    if out is None:
        held: list[Vectors] = []
        index, keep = _gather(model, encoded, found, held.append, max_norm)
        vectors = torch.cat(held)
        stay = vectors if bool(keep.all()) else vectors[keep]
        return Activations(stay, index, hook_name, int((~keep).sum()), begins, tokens)
    with replacing(Path(out)) as temporary:
        writer = ShardWriter(temporary)
        index, keep = _gather(model, encoded, found, writer.append, max_norm)
        writer.finish(index, hook_name, int((~keep).sum()), begins, tokens, keep)
    return Activations.load(out)


def with_answers(
    model: Any,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    *,
    template: TemplateSpec = TemplateSpec(),  # noqa: B008
    special_tokens: SpecialTokens = None,
    batch_size: int = 32,
    note: Note = unnoted,
) -> list[Prompt]:
    """Add the model's greedy answer to each prompt that has none.

    An answer is cut where retokenizing its text would change the model's tokens (`written_text`).
    `note` is called with the number of answers in each batch.
    """
    unanswered = [p for p in prompts if not p.answer]
    encoded = encode_prompts(tokenizer_of(model), unanswered, template, special_tokens)
    written: list[str] = []
    for start in range(0, len(encoded), batch_size):
        heads = [e.head for e in encoded[start : start + batch_size]]
        tokens, mask = pad_left(heads, tokenizer_of(model), model.cfg.device, model.cfg.d_vocab)
        new = generate(model, tokens, mask, max_new_tokens)
        if bool((new == UNDEFINED).any()):
            raise InputError("generation failed: the residual stream overflows; try dtype float32")
        written += [written_text(tokenizer_of(model), row) for row in new.tolist()]
        note(len(new))
    answers = iter(written)
    return [p if p.answer else replace(p, answer=next(answers)) for p in prompts]


def _gather(
    model: Any,
    encoded: Sequence[Encoded],
    found: Iterator[tuple[Vectors, list[Tensor]]],
    append: Callable[[Vectors], None],
    max_norm: float | None,
) -> tuple[pd.DataFrame, Tensor]:
    """Append all vectors; returns the index of those to keep, and their mask [n]."""
    norms, positions = [], list[Tensor]()
    for vectors, places in found:
        append(vectors)
        norms.append(vectors.norm(dim=-1))
        positions += places
    keep = _within(torch.cat(norms), max_norm)
    if not keep.any():
        raise InputError(f"no token of {len(encoded)} prompts was kept: choose other tokens")
    index = _index(encoded, positions, tokenizer_of(model))
    return index.loc[keep.numpy()].reset_index(drop=True), keep


def _residuals(
    model: Any, encoded: Sequence[Encoded], hook_name: str, choice: TokenChoice, size: int
) -> Iterator[tuple[Vectors, list[Tensor]]]:
    """Vectors of each window of prompts, in order, and the kept positions of each prompt."""
    with progress("activations", len(encoded)) as note:
        for start in range(0, len(encoded), WINDOW * size):
            window = encoded[start : start + WINDOW * size]
            by_length = sorted(range(len(window)), key=lambda i: len(window[i].ids))
            found: dict[int, tuple[Vectors, Tensor]] = {}
            for first in range(0, len(window), size):
                batch = by_length[first : first + size]
                rows = _batch(model, [window[i] for i in batch], hook_name, choice)
                found |= dict(zip(batch, rows, strict=True))
                note(len(batch))
            ordered = [found[i] for i in range(len(window))]
            yield torch.cat([v for v, _ in ordered]), [places for _, places in ordered]


def _batch(
    model: Any, batch: Sequence[Encoded], hook_name: str, choice: TokenChoice
) -> list[tuple[Vectors, Tensor]]:
    """Each prompt's kept vectors [n, d_model] and their positions [n]."""
    ids, cfg = [e.ids for e in batch], model.cfg
    tokens, mask = pad_left(ids, tokenizer_of(model), cfg.device, cfg.d_vocab)
    resid = run_to_hook(model, tokens, mask, hook_name)
    kept = kept_tokens(tokens, mask, [len(e.answer) for e in batch], choice, tokenizer_of(model))
    positions = torch.arange(tokens.shape[1], device=tokens.device) - (~mask).sum(1, keepdim=True)
    counts = kept.sum(1).tolist()
    chosen = resid[kept]
    if not chosen.isfinite().all():
        raise InputError(f"activations at {hook_name} are not finite: try model.dtype float32")
    vectors = chosen.cpu().float()
    return list(zip(vectors.split(counts), positions[kept].cpu().split(counts), strict=True))


def _index(encoded: Sequence[Encoded], positions: Sequence[Tensor], tokenizer: Any) -> pd.DataFrame:
    """One row per token; strings are categorical, so that a row needs about twenty bytes."""
    counts = [len(places) for places in positions]
    where = torch.cat(list(positions)).numpy()
    tokens = np.concatenate(
        [np.array(e.ids)[places.numpy()] for e, places in zip(encoded, positions, strict=True)]
    )
    prompt = np.repeat(np.arange(len(encoded)), counts)
    ends = np.array([len(e.head) - 1 for e in encoded])[prompt]
    vocabulary = np.unique(np.concatenate([e.ids for e in encoded]))
    texts = [tokenizer.decode([int(token)]) for token in vocabulary]
    return pd.DataFrame(
        {
            "prompt_id": _named([e.prompt.id for e in encoded], prompt),
            "domain": _named([e.prompt.domain for e in encoded], prompt),
            "position": where,
            "token": tokens,
            "text": _named(texts, np.searchsorted(vocabulary, tokens)),
            "part": pd.Categorical.from_codes(1 + np.sign(where - ends), PARTS),
        }
    )


def _named(names: Sequence[str], places: np.ndarray) -> pd.Categorical:
    """names[place] for each place."""
    codes, categories = pd.factorize(np.array(names, dtype=object))
    return pd.Categorical.from_codes(codes[places], categories)


def kept_tokens(
    tokens: Tokens, mask: Mask, answer_lengths: Sequence[int], choice: TokenChoice, tokenizer: Any
) -> Mask:
    """True at kept tokens of a left-padded batch, attention sinks included."""
    last = torch.tensor([tokens.shape[1] - 1 - n for n in answer_lengths], device=tokens.device)
    starts = torch.arange(tokens.shape[1], device=tokens.device) == last[:, None]
    ordinary = mask & (keep_ordinary(tokens, tokenizer) | starts)
    return ordinary & _chosen(tokens, mask, starts, choice, tokenizer)


def _chosen(tokens: Tokens, mask: Mask, starts: Mask, choice: TokenChoice, tokenizer: Any) -> Mask:
    if choice == "all":
        return mask
    if choice == "answer":
        return mask & (starts.cumsum(dim=1) > 0) & ~starts
    return starts if choice == "last" else starts | diagnostic_positions(tokens, mask, tokenizer)


def keep_ordinary(tokens: Tokens, tokenizer: Any) -> Mask:
    """False on special tokens."""
    special = torch.tensor(sorted(special_ids(tokenizer)), dtype=torch.long, device=tokens.device)
    return ~torch.isin(tokens, special)


def without_sinks(vectors: Vectors, max_norm: float | None) -> Tensor:
    """False on attention sinks, with norms above `max_norm` × the median of these vectors: [n]."""
    return _within(vectors.float().norm(dim=-1), max_norm)


def _within(norms: Float[Tensor, " n"], max_norm: float | None) -> Tensor:
    """False for norms above `max_norm` × their median; None keeps all. [n]"""
    if max_norm is None or len(norms) == 0:
        return torch.ones(len(norms), dtype=torch.bool, device=norms.device)
    return norms <= max_norm * norms.median()
