"""Checks that stop a bad run before it does any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saelens_steer.config import RunSpec
from saelens_steer.data import check_disjoint, encode_prompts, load_corpus
from saelens_steer.directions import margin_sets
from saelens_steer.errors import InputError, or_known
from saelens_steer.labels import check_labeller, text_study
from saelens_steer.model import check_length, check_stream, same_places
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.step_table import STEPS, step
from saelens_steer.sae import check_encoder, check_feature, check_sae
from saelens_steer.sweeps import check_comparable


def check_asked(spec: RunSpec, until: str) -> None:
    """Raise InputError for an unknown step, or one whose config section is missing."""
    if until not in (names := [one.name for one in STEPS]):
        raise InputError(f"there is no step {until!r}; {or_known(until, names)}")
    if not (asked := step(until)).is_wanted(spec):
        if not asked.ask:
            raise InputError(f"there is nothing to do for {until}: the config does not ask for it")
        raise InputError(f"the config has no section {asked.section}: say {asked.ask}")


def begin(spec: RunSpec, out: str | Path) -> RunContext:
    """A run under way in the folder `out`: everything loaded, and checked before any work."""
    run = RunContext.load(spec, out)
    check_run(run)
    run.mark()
    return run


def check_run(run: RunContext) -> None:
    """Raise InputError for a prompt, domain, feature, hook or corpus that will not do."""
    run.measurement().check()
    _check_domains(run)
    _check_texts(run)
    _check_topic(run)
    _check_compare_edits(run)
    _check_sae(run)
    _check_scores(run)
    _check_compare(run)
    _check_label(run)
    check_tradeoffs(run)


def _check_domains(run: RunContext) -> None:
    select = run.spec.select
    known = sorted({p.domain for p in run.selecting})
    for domain in (select.positive, select.negative):
        if domain not in known:
            raise InputError(
                f"{select.prompts} has no prompt of domain {domain!r}; "
                f"its domains are {', '.join(known)}"
            )


def _check_texts(run: RunContext) -> None:
    if run.spec.sweep.completions.files and not run.measurement().text_metrics:
        raise InputError(
            "sweep.completions.files needs completions, which come with a metric of texts: add one "
            "such as latex_first or mentions to metrics"
        )


def _check_topic(run: RunContext) -> None:
    """The topic's prompts fit into the model."""
    encoded = encode_prompts(run.model.tokenizer, run.topic, **run.spec.template)
    check_length(run.model, max((len(e.ids) for e in encoded), default=0))


def _check_compare_edits(run: RunContext) -> None:
    if run.spec.compare_edits is None:
        return
    check_comparable(
        run.model, run.measurement().encoded[: run.spec.compare_edits.limit], run.spec.compare_edits
    )
    sides = (run.spec.select.positive, run.spec.select.negative)
    for edit in run.spec.compare_edits.edits:
        given = edit.options.features
        if isinstance(given, str) and given not in sides:
            raise InputError(
                f"compare_edits: no candidates are chosen for {given!r}; {or_known(given, sides)}"
            )
        check_stream(run.model, edit.options.hook_name or run.hook_name)


def _check_sae(run: RunContext) -> None:
    patched = run.spec.compare_edits.edits if run.spec.compare_edits else []
    encoded_at = {
        edit.options.hook_name or run.hook_name
        for edit in patched
        if "encoder" in edit.options.needs
    }
    if train := run.spec.sae.train:
        load_corpus(train.corpus, run.model.tokenizer, 1, train.seed)  # is there a text?
        for feature in run.spec.named_features:
            if not 0 <= feature < train.d_sae:
                raise InputError(
                    f"feature {feature} is out of range: the SAE will have 0 to {train.d_sae - 1}"
                )
        for hook_name in encoded_at - {*same_places(run.hook_name)}:
            raise InputError(
                f"compare_edits: the SAE will be trained at {run.hook_name}, so it cannot encode "
                f"at {hook_name}: leave hook_name out, or use add or project_out there"
            )
        return
    sae = run.load_sae()
    check_sae(sae, run.model, run.hook_name)
    for feature in run.spec.named_features:
        check_feature(sae, feature)
    for hook_name in sorted(encoded_at):
        check_sae(sae, run.model, hook_name)
    sweep = run.spec.sweep
    encodes = not sweep.named or sweep.alpha_unit == "max_act" or "feature" in sweep.families
    if encodes or any(edit.needs_encoder for edit in (*patched, sweep.edit)):
        check_encoder(sae)


def _check_scores(run: RunContext) -> None:
    """direct_logit takes a margin as the first logit metric."""
    if "direct_logit" in {run.spec.select.score, *run.spec.sources}:
        margin_sets(run.measurement().logit_metrics[0])


def _check_compare(run: RunContext) -> None:
    compare, sides = (
        run.spec.compare_directions,
        (run.spec.select.positive, run.spec.select.negative),
    )
    if compare is None:
        return
    for side, words in compare.ask.items():
        if side not in sides:
            raise InputError(
                f"compare_directions.ask: {side!r} is no side of select; {or_known(side, sides)}"
            )
        asked = tuple(replace(p, text=f"{p.text} {words}") for p in run.prompts)
        replace(run.measurement(), prompts=asked).check()


def _check_label(run: RunContext) -> None:
    spec = run.spec.label
    if spec is None:
        return
    if not run.folder.path("labels.json").exists():  # else all may be answered already
        check_labeller(spec)
    try:
        check_disjoint(run.naming, run.selecting)
    except InputError as error:
        raise InputError(f"label.prompts: {error}") from None
    where = run.spec.sweep, spec.prompts or run.spec.prompts
    text_study(run.model, run.hook_name, run.naming, spec, *where).check()


def check_tradeoffs(run: RunContext) -> None:
    """Raise InputError for trade-off settings that can be rejected before any work."""
    spec = run.spec.tradeoffs
    if spec is None:
        return
    sides = (run.spec.select.positive, run.spec.select.negative)
    if spec.target not in (None, *sides):
        raise InputError(f"tradeoffs.target must be {sides[0]} or {sides[1]}, not {spec.target!r}")
    prompts = run.tradeoff_prompts
    check_disjoint(prompts, run.selecting)
    check_disjoint(prompts, run.prompts)
    texts = run.spec.sweep.completions.model_copy(
        update={"max_new_tokens": max(1, spec.max_new_tokens)}
    )
    sweep = run.spec.sweep.model_copy(update={"completions": texts})
    measurement = replace(run.measurement(), prompts=prompts, spec=sweep)
    measurement.check()
    if not any(m.name == "kl" for m in measurement.logit_metrics):
        raise InputError("tradeoffs measures damage by kl: add kl to metrics")
