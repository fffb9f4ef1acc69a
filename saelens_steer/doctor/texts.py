"""Self-test by generation: with a KV cache steering does what it does without one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_steer.doctor.case import Case, captured
from saelens_steer.doctor.findings import Finding, judged, off
from saelens_steer.model import generate, last_token_logits, stop_token_ids, unembed
from saelens_steer.steering import add, steered
from saelens_steer.tensors import Logits

WRITTEN = 8
"""Tokens that are written after each prompt."""
NewTokens = Int[Tensor, "batch new_pos"]


def kv_cache(case: Case) -> Finding:
    """Greedy texts under a push at all positions: the logits of each cached step, and the token it
    chose, against a whole pass over everything up to there."""
    room = min(WRITTEN, case.model.cfg.n_ctx - case.batch[0].shape[1])
    if room < 2:
        return Finding("kv cache", "the longest prompt leaves no room for new tokens", "note")
    new, cached = _written(case, room)
    live = _unfinished(new, stop_token_ids(case.model))
    if not live[:, 1:].any():
        return Finding("kv cache", "never used: every text ended at its first token", "note")
    plain, cached = (unembed(case.model, resid[live]) for resid in (_whole(case, new), cached))
    gap, equal = _choices(plain, new[live])
    said = f"{equal} of {len(plain)} greedy tokens, and their logits, as in whole passes"
    return judged("kv cache", max(off(cached, plain), gap), case.allowed, said)


def _written(case: Case, n: int) -> tuple[NewTokens, Float[Tensor, "batch new_pos d_model"]]:
    """New tokens, and the final residual that each was chosen from."""
    edit = add(case.own_pushes)
    with steered(case.model, edit, case.hook_name), captured(case.model, _top(case)) as steps:
        new = generate(case.model, *case.batch, n)
    return new, torch.stack([step[:, -1] for step in steps], 1)


def _whole(case: Case, new: NewTokens) -> Float[Tensor, "batch new_pos d_model"]:
    """The same residuals in one pass over prompts and new tokens."""
    (tokens, mask), n = case.batch, new.shape[1]
    tokens, mask = torch.cat([tokens, new[:, :-1]], 1), F.pad(mask, (0, n - 1), value=True)
    edit = add(case.own_pushes)
    with steered(case.model, edit, case.hook_name), captured(case.model, _top(case)) as seen:
        last_token_logits(case.model, tokens, mask)
    return seen[0][:, -n:]


def _top(case: Case) -> str:
    return f"blocks.{case.model.cfg.n_layers - 1}.hook_resid_post"


def _choices(plain: Logits, chosen: Int[Tensor, " batch"]) -> tuple[float, int]:
    """How far the chosen tokens lie below the likeliest, as a share of the largest logit, and how
    many are the likeliest: rounding decides between those that are as likely."""
    best, largest = plain.max(-1).values, plain.abs().max(-1).values
    own = plain.gather(1, chosen[:, None])[:, 0]
    return float(((best - own) / largest).max()), int((plain.argmax(-1) == chosen).sum())


def _unfinished(new: NewTokens, stops: list[int]) -> Bool[Tensor, "batch new_pos"]:
    """Whether a text had not ended before each of its tokens."""
    stopped = torch.isin(new, torch.tensor(stops, device=new.device)).long().cumsum(1)
    return F.pad(stopped[:, :-1], (1, 0)) == 0
