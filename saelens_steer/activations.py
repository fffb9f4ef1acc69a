"""Residuals at a hook through run_with_cache: which tokens are kept, where each came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from saelens_steer.data import (
    Encoded,
    Prompt,
    diagnostic_positions,
    encode_prompts,
    pad_left,
    written_text,
)
from saelens_steer.data.token_sets import special_ids
from saelens_steer.errors import InputError
from saelens_steer.files import write_with
from saelens_steer.model import check_hook_name, default_hook_name, generate, run_to_hook
from saelens_steer.progress import Note, unnoted
from saelens_steer.tensors import Mask, Tokens, Vectors

TokenChoice = Literal["all", "last", "diagnostic", "answer"]
SHARD_VECTORS = 65_536


@dataclass(frozen=True)
class Activations:
    """Vectors [n, d_model] (float32, CPU) at one hook, and an index with a row for each.

    The index has prompt_id, domain, position (0-based, padding not counted), token (id), text, and
    part: prompt, assistant_start (the last prompt token) or answer.
    """

    vectors: Vectors
    index: pd.DataFrame
    hook_name: str
    sinks_dropped: int = 0

    def __len__(self) -> int:
        return len(self.vectors)

    def save(self, folder: str | Path) -> Path:
        """Write safetensors shards and index.parquet into a folder, all or nothing."""
        return write_with(Path(folder), self._write)

    def _write(self, folder: Path) -> None:
        folder.mkdir()
        # one key: safetensors writes several in an order that changes from process to process
        about = {"hook_name": self.hook_name, "sinks_dropped": self.sinks_dropped}
        meta = {"about": json.dumps(about)}
        for number, part in enumerate(self.vectors.split(SHARD_VECTORS)):
            save_file(
                {"vectors": part.contiguous()}, folder / f"shard-{number:05d}.safetensors", meta
            )
        self.index.to_parquet(folder / "index.parquet", index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Activations:
        """Read what `save` wrote."""
        paths = sorted(Path(folder).glob("shard-*.safetensors"))
        if not paths:
            raise InputError(f"{folder} holds no cached activations")
        try:
            with safe_open(paths[0], framework="pt") as handle:
                about = json.loads(handle.metadata()["about"])
            parts = [load_file(path)["vectors"] for path in paths]
            index = pd.read_parquet(Path(folder) / "index.parquet")
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder} is damaged ({error}): delete it and run again") from None
        if len(index) != sum(map(len, parts)):
            raise InputError(f"{folder} is not whole: its shards do not fit its index")
        return cls(torch.cat(parts), index, about["hook_name"], about["sinks_dropped"])


def cache_activations(
    model: Any,
    prompts: Sequence[Prompt | str],
    *,
    hook_name: str | None = None,
    tokens: TokenChoice = "all",
    max_norm: float | None = 10.0,
    batch_size: int = 32,
    system: str | None = None,
    chat: bool = True,
) -> Activations:
    """The residual at `hook_name` (default blocks.{n_layers // 2}.hook_resid_pre) of each prompt.

    Prompts are put in the chat template (`chat=False`: left as they stand); where a prompt has an
    answer, its tokens follow the assistant start. `tokens`: all, last (the assistant start),
    diagnostic (assistant start, code fences, math delimiters), or answer (the answers' alone).
    Special tokens other than the assistant start are left out, and so are attention sinks: vectors
    of a norm over `max_norm` times the median of what was kept. Raises InputError for an unknown
    hook or answers that are not there, before any forward pass, when nothing is kept, or when what
    is kept is not finite.
    """
    hook_name = check_hook_name(model, hook_name or default_hook_name(model))
    encoded = encode_prompts(model.tokenizer, prompts, system=system, chat=chat)
    if tokens == "answer" and encoded and not any(e.answer for e in encoded):
        raise InputError(
            "activations.tokens: answer keeps the tokens of answers, and no prompt has one: "
            "give prompts with an answer, or let the model write them (select.at: answer)"
        )
    parts = list(_batches(model, encoded, hook_name, tokens, batch_size))
    if not parts:
        raise InputError("no prompts to cache activations of: the prompt set is empty")
    vectors = torch.cat([v for v, _ in parts])
    index = pd.concat([i for _, i in parts], ignore_index=True)
    if not vectors.isfinite().all():
        raise InputError(f"residuals at {hook_name} are not finite: try model.dtype float32")
    keep = without_sinks(vectors, max_norm)
    if not keep.any():
        raise InputError(f"no token was kept of {len(prompts)} prompts with tokens={tokens}")
    index = index.loc[keep.numpy()].reset_index(drop=True)
    return Activations(vectors[keep], index, hook_name, int((~keep).sum()))


def with_answers(
    model: Any,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    *,
    system: str | None = None,
    chat: bool = True,
    batch_size: int = 32,
    note: Note = unnoted,
) -> list[Prompt]:
    """The prompts, those without an answer given the model's own greedy one.

    An answer ends early where its text would not be tokenised as the model wrote it
    (`written_text`), so that activations are of the model's own tokens. Calls `note` with the
    number of answers just written.
    """
    open_ones = [p for p in prompts if not p.answer]
    encoded = encode_prompts(model.tokenizer, open_ones, system=system, chat=chat)
    written: list[str] = []
    for start in range(0, len(encoded), batch_size):
        heads = [e.head for e in encoded[start : start + batch_size]]
        tokens, mask = pad_left(heads, model.tokenizer, model.cfg.device)
        new = generate(model, tokens, mask, max_new_tokens)
        written += [written_text(model.tokenizer, row) for row in new.tolist()]
        note(len(new))
    answers = iter(written)
    return [p if p.answer else replace(p, answer=next(answers)) for p in prompts]


def _batches(
    model: Any, encoded: Sequence[Encoded], hook_name: str, choice: TokenChoice, size: int
) -> Iterator[tuple[Vectors, pd.DataFrame]]:
    for start in range(0, len(encoded), size):
        batch = encoded[start : start + size]
        rows = [e.ids for e in batch]
        tokens, mask = pad_left(rows, model.tokenizer, device=model.cfg.device)
        resid = run_to_hook(model, tokens, mask, hook_name)
        starts = _assistant_starts(tokens, [len(e.answer) for e in batch])
        kept = mask & (keep_ordinary(tokens, model.tokenizer) | starts)
        kept &= _chosen(tokens, mask, starts, choice, model.tokenizer)
        yield resid[kept].float().cpu(), _index(batch, tokens.cpu(), kept.cpu(), model.tokenizer)


def _assistant_starts(tokens: Tokens, answer_lengths: Sequence[int]) -> Mask:
    """True at the last prompt token of each row."""
    columns = torch.tensor([tokens.shape[1] - 1 - n for n in answer_lengths], device=tokens.device)
    return torch.arange(tokens.shape[1], device=tokens.device) == columns[:, None]


def _chosen(tokens: Tokens, mask: Mask, starts: Mask, choice: TokenChoice, tokenizer: Any) -> Mask:
    if choice == "all":
        return mask
    if choice == "answer":
        return mask & (starts.cumsum(dim=1) > 0) & ~starts
    return starts if choice == "last" else starts | diagnostic_positions(tokens, mask, tokenizer)


def _index(batch: Sequence[Encoded], tokens: Tokens, kept: Mask, tokenizer: Any) -> pd.DataFrame:
    width, rows = tokens.shape[1], []
    for encoded, ids, keep in zip(batch, tokens, kept, strict=True):
        padding = width - len(encoded.ids)
        for column in keep.nonzero().flatten().tolist():
            position, token = column - padding, int(ids[column])
            part = encoded.part(position)
            place = (encoded.prompt.id, encoded.prompt.domain, position, token)
            rows.append((*place, tokenizer.decode([token]), part))
    columns = ["prompt_id", "domain", "position", "token", "text", "part"]
    return pd.DataFrame(rows, columns=columns)


def keep_ordinary(tokens: Tokens, tokenizer: Any) -> Mask:
    """False on special tokens."""
    special = torch.tensor(sorted(special_ids(tokenizer)), dtype=torch.long, device=tokens.device)
    return ~torch.isin(tokens, special)


def without_sinks(vectors: Vectors, max_norm: float | None) -> torch.Tensor:
    """False on attention sinks: norm over `max_norm` × the median norm of these vectors. [n]"""
    norms = vectors.float().norm(dim=-1)
    if max_norm is None or len(norms) == 0:
        return torch.ones(len(norms), dtype=torch.bool, device=vectors.device)
    return norms <= max_norm * norms.median()
