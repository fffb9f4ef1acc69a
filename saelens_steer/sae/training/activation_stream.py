"""The activations an SAE is trained on, fresh or cached."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelens_steer.activations import keep_ordinary, without_sinks
from saelens_steer.config import TrainSpec
from saelens_steer.data import diagnostic_positions
from saelens_steer.errors import InputError, one_line
from saelens_steer.files import remove_leftovers, write_with
from saelens_steer.progress import say
from saelens_steer.tensors import Mask, Tokens, Vectors

Cache = Float[Tensor, "cached d_in"]

SHARD = 16_384
"""Least number of vectors in a shard, except for the last of a corpus."""
SHARD_KEYS = {"vectors", "first_batch", "end_batch", "sinks_dropped"}
"""What a shard holds: its vectors, the batches of the corpus that it covers, and the number of
sinks dropped in them."""

EMPTY_BATCHES = 200
"""Consecutive batches without a token to train on before giving up."""


class ActivationStream:
    """Activations of the tokens to train on, in corpus order, [n, d_in] in float32.

    Special tokens (including BOS and padding) and attention sinks are dropped.
    """

    def __init__(self, store: Any, tokenizer: Any, spec: TrainSpec) -> None:
        self.store = store
        self.tokenizer = tokenizer
        self.spec = spec
        self.sinks_dropped = self.batches_read = 0

    @torch.no_grad()
    def kept(self, *, repeat: bool) -> Iterator[Vectors]:
        """Yield non-empty batches, cycling through the corpus if `repeat`.

        Raises InputError if many consecutive batches have no token to train on.
        """
        empty = 0
        while not repeat or empty < EMPTY_BATCHES:
            try:
                tokens = self._tokens(repeat)
            except StopIteration:
                return
            wanted = self._wanted(tokens)
            empty += 1
            if wanted.any():
                vectors = self._activations(tokens, wanted)
                if len(vectors):
                    empty = 0
                    yield vectors
        raise InputError(
            f"{EMPTY_BATCHES} consecutive batches of the corpus have no token to train on: tokens "
            f"is {self.spec.tokens}, max_norm is {self.spec.max_norm}; change these or the corpus"
        )

    def skip(self, batches: int) -> None:
        """Advance past this many batches of the corpus, without computing activations."""
        while self.batches_read < batches:
            try:
                self._tokens(repeat=False)
            except StopIteration:
                raise InputError(
                    f"the corpus has {self.batches_read} batches, and cached activations are of "
                    f"{batches}: delete the folder sae.train.cache_folder"
                ) from None

    def _tokens(self, repeat: bool) -> Tokens:
        tokens: Tokens = self.store.get_batch_tokens(raise_at_epoch_end=not repeat)
        self.batches_read += 1
        return tokens

    def _activations(self, tokens: Tokens, wanted: Mask) -> Vectors:
        vectors = self.store.get_activations(tokens)[wanted.to(self.store.device)]
        kept = without_sinks(vectors, self.spec.max_norm)
        self.sinks_dropped += int((~kept).sum())
        return vectors[kept]

    def _wanted(self, tokens: Tokens) -> Mask:
        wanted = keep_ordinary(tokens, self.tokenizer)
        if self.spec.tokens == "all":
            return wanted
        inside = torch.ones_like(wanted)
        inside[:, -1] = False  # contexts are cut anywhere, so their end is not an assistant start
        return wanted & diagnostic_positions(tokens, inside, self.tokenizer)


def at_least(kept: Iterable[Vectors], n: int) -> list[Vectors]:
    """The first batches that hold at least `n` vectors; fewer if the stream ends."""
    parts: list[Vectors] = []
    have = 0
    for part in kept:
        parts.append(part)
        have += len(part)
        if have >= n:
            break
    return parts


def kept_in(folder: Path, stream: ActivationStream, dtype: torch.dtype) -> Iterator[Vectors]:
    """Yield the stream in shards: read those in the folder, compute and write the others.

    Raises InputError for a shard that is damaged or does not continue the one before.
    """
    remove_leftovers(folder)
    say(f"{'reading' if any(folder.glob('*')) else 'keeping'} cached activations in {folder}")
    kept, ended = stream.kept(repeat=False), 0
    for number in itertools.count():
        file = folder / f"{number:05}.safetensors"
        if file.is_file():
            shard = _shard_in(file, str(stream.store.device))
            if int(shard["first_batch"]) != ended:
                raise InputError(f"{file} does not continue the shard before it: delete {folder}")
            stream.sinks_dropped += int(shard["sinks_dropped"])
        else:
            stream.skip(ended)
            sinks = stream.sinks_dropped
            if not (parts := at_least(kept, SHARD)):
                return
            counts = {
                "first_batch": ended,
                "end_batch": stream.batches_read,
                "sinks_dropped": stream.sinks_dropped - sinks,
            }
            about = {key: torch.tensor(n) for key, n in counts.items()}
            shard = {"vectors": torch.cat(parts).to(dtype), **about}
            write_with(file, partial(save_file, shard))
        ended = int(shard["end_batch"])
        yield shard["vectors"]


def _shard_in(file: Path, device: str) -> dict[str, Tensor]:
    try:
        shard = load_file(file, device=device)
    except SafetensorError as error:
        why = one_line(error)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {one_line(error)}") from None
    else:
        if not (lacking := SHARD_KEYS - {*shard}):
            return shard
        why = f"it lacks {', '.join(sorted(lacking))}"
    raise InputError(
        f"{file} is not a shard of cached activations ({why}): delete it, and it will be computed "
        "again"
    )


def cached(kept: Iterable[Vectors], n: int, dtype: torch.dtype) -> Cache:
    """The first `n` vectors as one tensor of `dtype`. Raises InputError if there are fewer."""
    cache, have = torch.empty(0), 0
    for part in kept:
        cache = cache if have else _empty_cache(n, part, dtype)
        part = part[: n - have]
        cache[have : have + len(part)] = part
        have += len(part)
        if have == n:
            return cache
    raise InputError(
        f"the corpus gives only {have} activations, not {n} (cached_tokens plus a held-out share; "
        "special tokens and sinks do not count): lower sae.train.cached_tokens or use a larger "
        "corpus"
    )


def _empty_cache(n: int, like: Vectors, dtype: torch.dtype) -> Cache:
    try:
        return torch.empty(n, like.shape[1], dtype=dtype, device=like.device)
    except RuntimeError:
        size = n * like.shape[1] * dtype.itemsize / 1e9
        raise InputError(
            f"{n} cached activations take {size:.1f} GB, more than is free on {like.device}: lower "
            "sae.train.cached_tokens"
        ) from None


def epochs(cache: Cache, batch: int, seed: int, skip: int = 0) -> Iterator[Vectors]:
    """Endless batches [batch, d_in] of the cache, reshuffled each epoch with `seed`.

    Leftovers of an epoch open the next one's first batch, so each vector comes once per epoch.
    `skip`: number of batches to skip, already trained on.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    while True:
        order = torch.cat([order, torch.randperm(len(cache), generator=generator)])
        whole = len(order) // batch * batch
        for rows in order[:whole].split(batch):
            if skip > 0:
                skip -= 1
            else:
                yield cache[rows.to(cache.device)]
        order = order[whole:]
