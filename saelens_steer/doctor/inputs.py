"""Self-tests of what a config brings: its SAE, and its prompts in the chat template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from saelens_steer.data import Prompt, encode_prompts, generation_prompt, special_ids
from saelens_steer.doctor.case import Case, captured
from saelens_steer.doctor.findings import Finding, judged, off
from saelens_steer.model import last_token_logits, run_to_hook
from saelens_steer.sae import check_sae
from saelens_steer.stages import template
from saelens_steer.steering import add, steered


def sae_hook(case: Case) -> Finding:
    """The SAE reads what is steered: a push changes that by the push and by nothing else."""
    read, said = case.hook_name, "trained at the hook that is steered"
    if case.run.spec.sae.load:
        sae = case.run.load_sae()
        check_sae(sae, case.model, case.hook_name)
        made_for = sae.cfg.metadata.hook_name
        read, said = made_for or read, f"made for {made_for or 'a hook that it does not name'}"
    tokens, mask = case.batch
    before, its_own = (run_to_hook(case.model, tokens, mask, at) for at in (case.hook_name, read))
    edit = add(case.own_pushes)
    with steered(case.model, edit, case.hook_name), captured(case.model, case.hook_name) as seen:
        last_token_logits(case.model, tokens, mask)
    pushed = its_own + case.own_pushes.to(its_own)[:, None]
    worst = max(off(its_own[mask], before[mask]), off(seen[0][mask], pushed[mask]))
    return judged("SAE hook", worst, case.allowed, f"{said}; what it reads moves by the push")


def chat_template(case: Case) -> Finding:
    """Every prompt, steered or for selection, is one rendering of the template, and ends at the
    assistant start."""
    spec, tokenizer = case.run.spec, case.model.tokenizer
    steered_as = {"system": spec.prompts.system, "chat": spec.prompts.chat}
    wrong = [
        *_wrong(tokenizer, case.run.prompts, **steered_as),
        *_wrong(tokenizer, case.run.selecting, **template(spec)),
    ]
    n = len(case.run.prompts) + len(case.run.selecting)
    said = f"{n} prompts, {_as_rendered(tokenizer, spec.prompts.chat or template(spec)['chat'])}"
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return judged("chat template", float(len(wrong)), 0.0, wrong[0] + more if wrong else said)


def _as_rendered(tokenizer: PreTrainedTokenizerBase, chat: bool) -> str:
    """What is true of prompts with which nothing is wrong."""
    if not chat:
        return "in no template (chat: false); none begins twice"
    if not generation_prompt(tokenizer):
        return "each rendered once; where the answer starts, this template does not say"
    return "each rendered once and up to the assistant start"


def _wrong(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], system: str | None, chat: bool
) -> Iterator[str]:
    """What is wrong with prompts that hold the template's special tokens, or do not end as it does.

    How often a rendering has each is known from one of a text without any.
    """
    plain = None if system is None else "x"
    (once,) = encode_prompts(tokenizer, [Prompt("", "x")], system=plain, chat=chat)
    marks = {i: n for i, n in Counter(once.head).items() if i in special_ids(tokenizer)}
    start = tuple(generation_prompt(tokenizer)) if chat else ()
    bare = [replace(prompt, answer=None) for prompt in prompts]
    for each in encode_prompts(tokenizer, bare, system=system, chat=chat):
        found, named = Counter(each.head), f"prompt {each.prompt.id!r}"
        twice = next((i for i, n in marks.items() if found[i] != n), None)
        if twice is not None:
            mark, n = tokenizer.convert_ids_to_tokens(twice), marks[twice]
            yield f"{named} has {mark} {found[twice]} times, where a rendering has {n}"
        elif start and each.head[-len(start) :] != start:
            yield f"{named} does not end at the assistant start"
