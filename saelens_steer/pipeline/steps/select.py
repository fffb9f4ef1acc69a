"""Cache activations of the selection prompts, and select features on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from sae_lens import SAE

from saelens_steer.activations import cache_activations, with_answers
from saelens_steer.config import EditSpec
from saelens_steer.data import Prompt
from saelens_steer.directions import (
    CausalScoring,
    DirectionFinder,
    difference_of_means,
    probe_between,
    vectors_of,
)
from saelens_steer.features import measured_scale
from saelens_steer.files import write_json
from saelens_steer.pipeline.context import RunContext
from saelens_steer.progress import say
from saelens_steer.sae import counts_firing, sae_fingerprint
from saelens_steer.steering import EditContext


def cache(run: RunContext) -> None:
    """Cache activations of the selection prompts, with their answers if these are read."""
    where = {"hook_name": run.hook_name, "out": run.folder.path("activations")}
    cache_activations(run.model, answered(run), **run.caching, **where)


def answered(run: RunContext) -> tuple[Prompt, ...]:
    """The selection prompts; if answers are read, the model writes missing ones."""
    spec, prompts = run.spec, run.selection_prompts
    if not spec.reads_answers:
        return prompts
    options = {**run.encoding, "batch_size": spec.activations.batch_size}
    return tuple(with_answers(run.model, prompts, spec.select.answer_tokens, **options))


def select(run: RunContext) -> None:
    """Write features.json: candidates of both sides, mean ‖x‖, and A_max of features to steer.

    There are no candidates if the config names features and the SAE's firing cannot be counted.
    """
    s, sae, named = run.spec.select, run.sae, run.spec.sweep.named
    load, cfg = run.spec.sae.load, sae.cfg
    about = {
        "source": load.source if load else "sae",
        "sae_id": load.sae_id if load else None,
        "hash": sae_fingerprint(run.folder.path("sae")),
        "d_sae": cfg.d_sae,
        "d_in": cfg.d_in,
        "architecture": cfg.architecture(),
    }
    if named and not counts_firing(sae):
        sides = {"positive": s.positive, "negative": s.negative, "at": s.at, "score": s.score}
        nothing = {f"{s.positive}_candidates": [], f"{s.negative}_candidates": [], "scores": {}}
        content = {"hook_name": run.hook_name, "sae": about, **sides, **nothing}
        scale = measured_scale(run.activations)
    else:
        found = direction_finder(run, sae).selection(s.score, s.k)
        content = found.to_json(run.hook_name, about)
        content["doubts"] = [] if named else found.doubts
        for doubt in content["doubts"]:
            say(f"warning: {doubt}")
        scale = found.scale.of(sorted({*found.features, *named}))
    max_act = {str(feature): value for feature, value in scale.max_act.items()}
    content |= {"resid_norm": scale.resid_norm, "max_act": max_act}
    write_json(run.folder.path("features.json"), content)


def direction_finder(run: RunContext, sae: SAE[Any] | None = None) -> DirectionFinder:
    """The run's finder of directions, for its SAE unless another is given."""
    select = run.spec.select
    sides = (select.positive, select.negative)
    prompts: list[Prompt] = []
    for side in sides:
        prompts += [p for p in run.selection_prompts if p.domain == side][: select.push_prompts]
    given = {"prompts": tuple(prompts), "template": run.spec.template}
    measurement = replace(run.measurement(), **given)
    sae = run.sae if sae is None else sae
    return DirectionFinder(sae, run.activations, select, CausalScoring(measurement, sae, *sides))


def edit_context(run: RunContext, sae: SAE[Any], edits: Iterable[EditSpec]) -> EditContext:
    """Inputs of edits: the SAE and, if needed, a probe between steered and selection prompts, and
    directions towards the selection domains other than the two sides."""
    needs = {need for edit in edits for need in edit.options.needs}
    sides = [run.spec.select.positive, run.spec.select.negative]
    probe = domains = None
    if not needs & {"probe", "domains"}:
        return EditContext(sae)
    activations = run.activations
    all_domains = sorted(set(activations.index["domain"]))
    if "probe" in needs:
        options = {**run.spec.prompts.options, "special_tokens": run.special_tokens}
        options |= {"tokens": "last"}
        last = cache_activations(run.model, list(run.prompts), hook_name=run.hook_name, **options)
        probe = probe_between(last.vectors, vectors_of(activations, all_domains))
    if "domains" in needs:
        reference = run.spec.select.reference
        others = [domain for domain in all_domains if domain not in (*sides, reference)]
        led = [difference_of_means(activations, [domain], sides) for domain in others]
        domains = torch.stack(led) if led else None
    return EditContext(sae, probe, domains)
