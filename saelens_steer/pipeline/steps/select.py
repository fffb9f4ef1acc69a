"""Cache activations of the selection prompts, and select features on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from sae_lens import SAE

from saelens_steer.activations import cache_activations, with_answers
from saelens_steer.config import EditSpec, PromptSpec
from saelens_steer.data import Prompt
from saelens_steer.directions import (
    CausalScoring,
    DirectionFinder,
    difference_of_means,
    probe_between,
    vectors_of,
)
from saelens_steer.features import Scale, measured_scale
from saelens_steer.files import write_json
from saelens_steer.pipeline.context import RunContext
from saelens_steer.sae import sae_fingerprint
from saelens_steer.steering import EditContext


def cache(run: RunContext) -> None:
    """Cache activations of the selection prompts, answers included if they are read."""
    options = {**run.spec.activations.model_dump(), **run.spec.template}
    options |= {"hook_name": run.hook_name, "out": run.folder.path("activations")}
    cache_activations(run.model, answered(run), **options)


def answered(run: RunContext) -> tuple[Prompt, ...]:
    """The selection prompts; if answers are read, the model writes missing ones."""
    if not run.spec.reads_answers:
        return run.selection_prompts
    size, n_tokens = run.spec.activations.batch_size, run.spec.select.answer_tokens
    options = {**run.spec.template, "batch_size": size}
    return tuple(with_answers(run.model, run.selection_prompts, n_tokens, **options))


def select(run: RunContext) -> None:
    """Write features.json with the candidates of both sides."""
    s, sae, named = run.spec.select, run.sae, run.spec.sweep.named
    if sae.cfg.metadata.decoder_only and run.spec.sweep.named:
        write_json(run.folder.path("features.json"), _unselected(run, sae))
        return
    found = direction_finder(run, sae).selection(s.score, s.k)
    about = found.to_json(run.hook_name, _about(run, sae))
    size = _size(found.scale.of(sorted({*found.features, *named})))
    write_json(run.folder.path("features.json"), about | size)


def direction_finder(run: RunContext, sae: SAE[Any] | None = None) -> DirectionFinder:
    """The finder of a run, for its SAE unless another is given."""
    select = run.spec.select
    sides = (select.positive, select.negative)
    prompts: list[Prompt] = []
    for side in sides:
        prompts += [p for p in run.selection_prompts if p.domain == side][: select.push_prompts]
    prompt_spec = PromptSpec(**run.spec.template)
    measurement = replace(run.measurement(), prompts=tuple(prompts), prompt_spec=prompt_spec)
    sae = sae if sae is not None else run.sae
    return DirectionFinder(sae, run.activations, select, CausalScoring(measurement, sae, *sides))


def edit_context(run: RunContext, sae: SAE[Any], edits: Iterable[EditSpec]) -> EditContext:
    """Inputs of edits: the SAE and, if needed, a probe between steered and selection prompts and
    directions towards the other selection domains."""
    needs = {need for edit in edits for need in edit.options.needs}
    sides = [run.spec.select.positive, run.spec.select.negative]
    probe = domains = None
    if not needs & {"probe", "domains"}:
        return EditContext(sae)
    activations = run.activations
    all_domains = sorted(set(activations.index["domain"]))
    if "probe" in needs:
        prompts = run.spec.prompts
        options = {"tokens": "last", "system": prompts.system, "chat": prompts.chat}
        last = cache_activations(run.model, list(run.prompts), hook_name=run.hook_name, **options)
        probe = probe_between(last.vectors, vectors_of(activations, all_domains))
    if "domains" in needs:
        others = [domain for domain in all_domains if domain not in sides]
        led = [difference_of_means(activations, [domain], sides) for domain in others]
        domains = torch.stack(led) if led else None
    return EditContext(sae, probe, domains)


def _unselected(run: RunContext, sae: SAE[Any]) -> dict[str, Any]:
    """features.json for an SAE without an encoder, with features named in the config."""
    s = run.spec.select
    sides = {"positive": s.positive, "negative": s.negative, "at": s.at, "score": s.score}
    nothing = {f"{s.positive}_candidates": [], f"{s.negative}_candidates": [], "scores": {}}
    about = {"hook_name": run.hook_name, "sae": _about(run, sae), **sides, **nothing}
    return about | _size(measured_scale(run.activations))


def _size(scale: Scale) -> dict[str, Any]:
    """Mean ‖x‖ at the hook, and A_max of features that may be steered."""
    max_act = {str(feature): value for feature, value in scale.max_act.items()}
    return {"resid_norm": scale.resid_norm, "max_act": max_act}


def _about(run: RunContext, sae: SAE[Any]) -> dict[str, Any]:
    load = run.spec.sae.load
    return {
        "source": load.source if load else "sae",
        "sae_id": load.sae_id if load else None,
        "hash": sae_fingerprint(run.folder.path("sae")),
        "d_sae": sae.cfg.d_sae,
        "d_in": sae.cfg.d_in,
        "architecture": sae.cfg.architecture(),
    }
