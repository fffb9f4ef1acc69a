"""The self-tests, which run on the config's own model, hook and prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from saelens_steer.data import Prompt, PromptReader, bos_id, generation_prompt, special_ids
from saelens_steer.doctor.case import SelfTestCase
from saelens_steer.doctor.findings import Finding, judged, relative_error
from saelens_steer.doctor.resources import free_bytes, weight_bytes
from saelens_steer.model import (
    checkpoint_of,
    compare_on,
    generate,
    last_token_logits,
    origin_of,
    run_to_hook,
    stop_token_ids,
    tolerance,
    unembed,
)
from saelens_steer.numbers import count, percent
from saelens_steer.pipeline.steps.sae import audited
from saelens_steer.sae import LEAST_EXPLAINED, check_sae, reads_at
from saelens_steer.steering import add, add_rows, plain_directions
from saelens_steer.sweeps import LogitSweep, grid, measure
from saelens_steer.tensors import Logits

PADDING = 7
"""Positions of padding added before a prompt."""
CHECKPOINT_ROOM = 1.2
"""The checkpoint is reloaded only if free memory is at least this multiple of the model's size."""
NEW_TOKENS = 8
"""Tokens generated after each prompt."""


def parity(case: SelfTestCase) -> Finding:
    """Logits and residuals agree with those of the checkpoint in transformers.

    If there is no room for the checkpoint next to the model, report the proof made at loading.
    """
    dtype, source, free = case.model.cfg.dtype, origin_of(case.model), free_bytes(case.model)
    allowed = tolerance(dtype)
    if source and free is not None and free < CHECKPOINT_ROOM * weight_bytes(case.model):
        detail = "no room for the checkpoint next to the model: result from when it was loaded"
        return judged("parity", source.parity.worst(dtype), allowed, detail)
    found = compare_on(case.model, checkpoint_of(case.model), *case.batch)
    lengths = [len(ids) for ids in case.measurement.ids]
    prompts = f"{count(len(lengths), 'prompt')} ({min(lengths)} to {max(lengths)} tokens)"
    figure = "worst" if dtype == torch.float32 else "median"
    detail = f"vs. transformers, {figure} position of {prompts}"
    return judged("parity", found.worst(dtype), allowed, detail)


def identity(case: SelfTestCase) -> Finding:
    """α = 0 changes nothing and leaves no hook behind."""
    before, hooks = last_token_logits(case.model, *case.batch), _hooks(case.model)
    after = case.under(add_rows(0 * case.own_pushes), *case.batch).logits
    left = _hooks(case.model) - hooks
    same = "bit-identical" if torch.equal(before, after) else "not bit-identical"
    detail = f"{same}; {left} hooks left"
    return judged("alpha 0", relative_error(after, before), case.allowed, detail, left == 0)


def _hooks(model: Any) -> int:
    """The number of hooks attached to the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def kv_cache(case: SelfTestCase) -> Finding:
    """Greedy decoding with a KV cache, under a push at all positions, agrees with full passes."""
    room = min(NEW_TOKENS, case.model.cfg.n_ctx - case.batch[0].shape[1])
    if room < 2:
        return Finding("kv cache", "the longest prompt leaves no room for new tokens", "note")
    top = f"blocks.{case.model.cfg.n_layers - 1}.hook_resid_post"
    with case.pushed(top) as steps:
        new = generate(case.model, *case.batch, room)
    live = _unfinished(new, stop_token_ids(case.model))
    if not live[:, 1:].any():
        return Finding("kv cache", "not tested: every text ended at its first token", "note")
    (tokens, mask), n = case.batch, new.shape[1]
    tokens, mask = torch.cat([tokens, new[:, :-1]], 1), F.pad(mask, (0, n - 1), value=True)
    with case.pushed(top) as whole:
        last_token_logits(case.model, tokens, mask)
    plain = unembed(case.model, whole[0][:, -n:][live])
    cached = unembed(case.model, torch.stack([step[:, -1] for step in steps], 1)[live])
    gap, equal = _choices(plain, new[live])
    detail = f"logits vs. full passes; {equal} of {len(plain)} greedy tokens agree"
    return judged("kv cache", max(relative_error(cached, plain), gap), case.allowed, detail)


def _choices(plain: Logits, chosen: Int[Tensor, " batch"]) -> tuple[float, int]:
    """The largest gap from a chosen token's logit to the best, relative to the largest |logit|, and
    how many chosen tokens are the best. Rounding decides near-ties, so tokens may differ."""
    best, largest = plain.max(-1).values, plain.abs().max(-1).values
    picked = plain.gather(1, chosen[:, None])[:, 0]
    return float(((best - picked) / largest).max()), int((plain.argmax(-1) == chosen).sum())


def _unfinished(
    new: Int[Tensor, "batch new_pos"], stops: list[int]
) -> Bool[Tensor, "batch new_pos"]:
    """True at tokens up to and including a row's stop token."""
    stopped = torch.isin(new, torch.tensor(stops, device=new.device)).long().cumsum(1)
    return F.pad(stopped[:, :-1], (1, 0)) == 0


def batches(case: SelfTestCase) -> Finding:
    """Left-padded rows, each under its own push, agree with the same rows run one by one."""
    together = case.under(add_rows(case.own_pushes), *case.batch)
    rows = [case.under(add(push), *case.alone(row)) for row, push in enumerate(case.own_pushes)]
    alone, positions = torch.cat([row.logits for row in rows]), sum(row.positions for row in rows)
    moved = relative_error(alone, last_token_logits(case.model, *case.batch))
    detail = f"logits of a batch vs. one by one; the push moves them by {moved:.2g}"
    if positions != together.positions:
        detail = f"{together.positions} positions are steered in a batch, {positions} one by one"
    worst, holds = relative_error(together.logits, alone), positions == together.positions
    return judged("batches", worst, case.allowed, detail, holds)


def padding(case: SelfTestCase) -> Finding:
    """Padding before a prompt changes neither logits, activations nor the steered positions."""
    worst, more, pad = 0.0, 0, case.model.tokenizer.pad_token_id
    for row, push in enumerate(case.own_pushes):
        tokens, mask = case.alone(row)
        n = min(PADDING, case.model.cfg.n_ctx - tokens.shape[1])
        bare = case.under(add(push), tokens, mask)
        behind = F.pad(tokens, (n, 0), value=pad), F.pad(mask, (n, 0), value=False)
        padded = case.under(add(push), *behind)
        more += padded.positions - bare.positions
        of_logits = relative_error(padded.logits, bare.logits)
        worst = max(worst, of_logits, relative_error(padded.at_hook, bare.at_hook))
    detail = f"logits and activations with vs. without {PADDING} positions of padding"
    if more:
        detail = f"{more:+d} positions are steered after {PADDING} positions of padding"
    return judged("padding", worst, case.allowed, detail, more == 0)


def sae_hook(case: SelfTestCase) -> Finding:
    """The SAE's input is the steered activation: a push changes it by exactly that push."""
    read, origin = case.hook_name, "trained at the steered hook"
    if case.run.spec.sae.load:
        sae = case.run.source_sae
        check_sae(sae, case.model, case.hook_name)
        made_for = reads_at(sae)
        read, origin = made_for or read, f"made for {made_for or 'an unnamed hook'}"
    tokens, mask = case.batch
    before, sae_in = (run_to_hook(case.model, tokens, mask, at) for at in (case.hook_name, read))
    with case.pushed(case.hook_name) as seen:
        last_token_logits(case.model, tokens, mask)
    pushed = sae_in + case.own_pushes.to(sae_in)[:, None]
    unpushed = relative_error(sae_in[mask], before[mask])
    worst = max(unpushed, relative_error(seen[0][mask], pushed[mask]))
    return judged(
        "SAE hook", worst, case.allowed, f"{origin}; its input under a push vs. input + push"
    )


def sae_fit(case: SelfTestCase) -> Finding:
    """The SAE fits the model and hook, on the selection prompts (or sae.load.corpus)."""
    if not case.run.spec.sae.load:
        return Finding("SAE fit", "the run audits the SAE after training it", "note")
    found = audited(case.run, case.run.source_sae)
    if "explained_variance" not in found.figures:
        return Finding("SAE fit", str(found), "note" if found.passed else "FAIL")
    explained = found.figures["explained_variance"]
    shown = percent(explained), f"≥ {percent(LEAST_EXPLAINED)}"
    judgement = judged("SAE fit", 1 - explained, 1 - LEAST_EXPLAINED, str(found), found.passed)
    return replace(judgement, shown=shown)


def chat_template(case: SelfTestCase) -> Finding:
    """Every steered or selection prompt is rendered once and ends where it should."""
    run, tokenizer = case.run, case.model.tokenizer
    pairs = [
        (PromptReader(tokenizer, template, run.special_tokens), replace(prompt, answer=None))
        for prompts, template in (
            (run.prompts, run.spec.prompts),
            (run.selection_prompts, run.spec.template),
        )
        for prompt in prompts
    ]
    wrong = [complaint for reader, prompt in pairs for complaint in _wrong(reader, prompt)]
    plain = sum(reader.kind(prompt) == "plain" for reader, prompt in pairs)
    detail = count(len(pairs), "prompt")
    if wrong:
        detail = wrong[0] + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
    elif plain == len(pairs):
        detail += ", all plain text (no template); no BOS is repeated"
    else:
        detail += f", {plain} of them plain text" if plain else ""
        detail += ", each rendered once"
        known = generation_prompt(tokenizer)
        detail += "" if known else "; this template does not mark the answer's start"
    return judged("chat template", float(len(wrong)), 0.0, detail)


def _wrong(reader: PromptReader, prompt: Prompt) -> Iterator[str]:
    """Complaints about special tokens inside a prompt, and about another end than the answer's.

    The same turns with other words show how often each special token should occur.
    """
    each, tokenizer, bos = reader.encoded(prompt), reader.tokenizer, bos_id(reader.tokenizer)
    named, found = f"prompt {prompt.id!r}", Counter(each.head)
    if each.kind in ("templated", "ids"):
        if bos is not None and each.head[:2] == (bos, bos):
            yield f"{named} begins with {tokenizer.convert_ids_to_tokens(bos)} twice"
        return
    turns = prompt.messages and [{**turn, "content": "x"} for turn in prompt.messages]
    wanted = Counter(
        reader.encoded(replace(prompt, text="" if turns else "x", messages=turns)).head
    )
    special = special_ids(tokenizer)
    twice = next((i for i, n in found.items() if i in special and n != wanted[i]), None)
    options = reader.template.chat_template_kwargs
    start = tuple(generation_prompt(tokenizer, options)) if each.at_start else ()
    if twice is not None:
        mark, n = tokenizer.convert_ids_to_tokens(twice), wanted[twice]
        yield f"{named} has {mark} {found[twice]} times, not {n}: remove it from the text"
    elif start and each.head[-len(start) :] != start:
        yield f"{named} does not end at the assistant start"


def engine(case: SelfTestCase) -> Finding:
    """Sweep rows computed from the hook on agree with full passes with a hook, one by one."""
    if why := case.measurement.unsteered_pass.full_pass_reason:
        return Finding("engine", f"rows use full passes with a hook: {why}", "note")
    sweep = LogitSweep(
        unsteered_pass=case.measurement.unsteered_pass,
        directions=plain_directions(case.pushes[:2]),
        cells=grid(2, (-1.0, 1.0)),
        metrics=case.measurement.logit_metrics,
        all_logits=True,
    )
    worst = 0.0
    padded = sweep.padded
    plan = sweep.plan(range(len(sweep.cells)), padded)
    for batch in plan:
        rows = zip(batch.row_cells, batch.row_prompts, strict=True)
        plain = [case.under(add(sweep.pushes([c])[0]), *case.alone(p)).logits for c, p in rows]
        found = measure(sweep, padded, batch)["logits"]
        worst = max(worst, relative_error(found, torch.cat(plain)))
    detail = f"{sum(map(len, plan))} rows from the hook on vs. full passes with a hook"
    return judged("engine", worst, case.allowed, detail)


SELFTESTS: dict[str, Callable[[SelfTestCase], Finding]] = {
    "parity": parity,
    "alpha 0": identity,
    "kv cache": kv_cache,
    "batches": batches,
    "padding": padding,
    "SAE hook": sae_hook,
    "SAE fit": sae_fit,
    "chat template": chat_template,
    "engine": engine,
}
"""In the order in which they run."""
