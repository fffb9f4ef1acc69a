"""Checks that refuse a bad run before it does any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_lens import SAE

from saelens_steer.config import RunSpec, TrainSpec
from saelens_steer.data import check_disjoint, encode_prompts, load_corpus
from saelens_steer.directions import check_causal, margin_sets
from saelens_steer.errors import InputError, or_known
from saelens_steer.labels import check_labeller, text_study
from saelens_steer.model import check_length, check_steerable, hook_width, same_places
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.step_table import STEPS, step
from saelens_steer.sae import (
    check_encoder,
    check_feature,
    check_positive,
    check_sae,
    check_unsigned,
    is_transcoder,
    reads_at,
    steers_at,
)
from saelens_steer.sweeps import check_comparable


def check_step(spec: RunSpec, name: str) -> None:
    """Raise InputError for an unknown step, or one that the config does not ask for."""
    if name not in (names := [one.name for one in STEPS]):
        raise InputError(f"there is no step {name!r}; {or_known(name, names)}")
    if not (asked := step(name)).is_wanted(spec):
        hint = f": add {asked.section_hint}" if asked.section_hint else f", which {name} needs"
        raise InputError(f"the config has no section {asked.section}{hint}")


def checked_context(spec: RunSpec, out: str | Path) -> RunContext:
    """Load model and prompts, check everything, and only then make `out` a run folder.

    Raises InputError for anything in the config, prompts, SAE or folder that would stop the run.
    """
    run = RunContext.load(spec, out)
    run.measurement().check()
    _ = run.custom_version  # raises if a function or a file of vectors is missing
    _check_apart(run)
    _check_domains(run)
    _check_text_files(run)
    _check_topic(run)
    _check_compare_edits(run)
    _check_sae(run)
    for score in {spec.select.score, *spec.sources}:
        check_causal(str(score), run.hook_name)
    if "direct_logit" in {spec.select.score, *spec.sources}:
        margin_sets(run.measurement().logit_metrics[0])  # raises unless it is a margin
    _check_compare_directions(run)
    _check_label(run)
    _check_tradeoffs(run)
    run.mark()
    return run


def _sides(run: RunContext) -> tuple[str, str]:
    return run.spec.select.positive, run.spec.select.negative


def _check_apart(run: RunContext) -> None:
    """No steered prompt is read as the same tokens as a selection prompt, however it is given."""
    selecting = encode_prompts(run.model.tokenizer, run.selection_prompts, **run.encoding)
    ids = {e.head: e.prompt.id for e in selecting}
    for one in run.measurement().encoded:
        if one.head in ids:
            raise InputError(
                f"the steered prompt {one.prompt.id!r} and the selection prompt {ids[one.head]!r} "
                "are the same tokens: select features on other prompts than those that effects "
                "are measured on"
            )


def _check_domains(run: RunContext) -> None:
    known = sorted({p.domain for p in run.selection_prompts})
    for domain in _sides(run):
        if domain not in known:
            raise InputError(
                f"{run.spec.select.prompts} has no prompt of domain {domain!r}; "
                f"its domains are {', '.join(known)}"
            )


def _check_text_files(run: RunContext) -> None:
    if run.spec.sweep.completions.files and not run.measurement().text_metrics:
        raise InputError(
            "sweep.completions.files needs completions, which are only written for text metrics: "
            "add one to metrics, such as latex_first or mentions"
        )


def _check_topic(run: RunContext) -> None:
    encoded = encode_prompts(run.model.tokenizer, run.topic_prompts, **run.encoding)
    check_length(run.model, max((len(e.ids) for e in encoded), default=0))


def _check_compare_edits(run: RunContext) -> None:
    spec = run.spec.compare_edits
    if spec is None:
        return
    check_comparable(run.model, run.measurement().encoded[: spec.limit], spec)
    for edit in spec.edits:
        given = edit.options.features
        if isinstance(given, str) and given not in _sides(run):
            raise InputError(
                f"compare_edits: no candidates are chosen for {given!r}; "
                f"{or_known(given, _sides(run))}"
            )
        check_steerable(run.model, edit.options.hook_name or run.hook_name)


def _check_sae(run: RunContext) -> None:
    """Named features exist, and the SAE fits the model wherever it is used."""
    spec = run.spec
    edits = spec.compare_edits.edits if spec.compare_edits else []
    encoding = [edit for edit in edits if "encoder" in edit.options.needs]
    encoded_at = {edit.options.hook_name or run.hook_name for edit in encoding}
    pushed_at = {edit.options.hook_name for edit in edits if edit.kind in ("add", "project_out")}
    if spec.sae.train:
        _check_future_sae(run, spec.sae.train, encoded_at)
        _check_widths(run, run.model.cfg.d_model, pushed_at)
        return
    sae, sweep = run.source_sae, spec.sweep
    _refuse_transcoder(sae)
    _check_widths(run, sae.W_dec.shape[1], pushed_at)
    check_sae(sae, run.model, run.hook_name)
    for feature in spec.named_features:
        check_feature(sae, feature)
    for hook_name in sorted(encoded_at):
        check_sae(sae, run.model, hook_name)
    if _counts_firing(spec):
        check_positive(sae)
    if any(edit.needs_encoder for edit in (*edits, sweep.edit)):
        check_encoder(sae)


def _counts_firing(spec: RunSpec) -> bool:
    """Whether the run needs to know how strongly and how often features fire."""
    sweep = spec.sweep
    return not sweep.named or sweep.alpha_unit == "max_act" or "feature" in sweep.families


def _refuse_transcoder(sae: SAE[Any]) -> None:
    """Raise InputError: a run caches one hook, and selects, steers and measures there."""
    if is_transcoder(sae):
        raise InputError(
            f"sae.load is a transcoder, which reads {reads_at(sae)} and writes at "
            f"{steers_at(sae)}, but a run works at one hook: use the Python functions "
            "(cache_activations and select_features at the first, sweep at the second)"
        )


def _check_widths(run: RunContext, width: int, pushed_at: set[str | None]) -> None:
    """Decoder rows fit the hooks at which they are added or projected out."""
    for hook_name in pushed_at - {None, run.hook_name}:
        if (at_hook := hook_width(run.model, str(hook_name))) != width:
            raise InputError(
                f"compare_edits: the SAE's directions have {width} entries, but {hook_name} has "
                f"{at_hook}: leave hook_name out"
            )


def _check_future_sae(run: RunContext, train: TrainSpec, encoded_at: set[str]) -> None:
    load_corpus(train.corpus, run.model.tokenizer, 1, train.seed)  # raises if it has no text
    if _counts_firing(run.spec):
        check_unsigned(train.architecture)
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


def _check_compare_directions(run: RunContext) -> None:
    spec = run.spec.compare_directions
    if spec is None:
        return
    for side, words in spec.ask.items():
        if side not in _sides(run):
            raise InputError(
                f"compare_directions.ask: {side!r} is not a side of select; "
                f"{or_known(side, _sides(run))}"
            )
        asked = tuple(p.followed_by(words) for p in run.prompts)
        replace(run.measurement(), prompts=asked).check()


def _check_label(run: RunContext) -> None:
    spec = run.spec.label
    if spec is None:
        return
    if not run.folder.path("labels.json").exists():  # a finished run needs no server
        check_labeller(spec)
    try:
        check_disjoint(run.label_prompts, run.selection_prompts)
    except InputError as error:
        raise InputError(f"label.prompts: {error}") from None
    prompts = run.label_prompts, spec, run.spec.sweep, spec.prompts or run.spec.prompts
    start = run.special_tokens
    text_study(run.model, run.hook_name, *prompts, special_tokens=start).check()


def _check_tradeoffs(run: RunContext) -> None:
    spec, sides = run.spec.tradeoffs, _sides(run)
    if spec is None:
        return
    if spec.target not in (None, *sides):
        raise InputError(f"tradeoffs.target must be {sides[0]} or {sides[1]}, not {spec.target!r}")
    prompts, sweep = run.tradeoff_prompts, run.spec.sweep
    check_disjoint(prompts, run.selection_prompts)
    check_disjoint(prompts, run.prompts)
    length = {"max_new_tokens": max(1, spec.max_new_tokens)}
    texts = {"completions": sweep.completions.model_copy(update=length)}
    measurement = replace(run.measurement(), prompts=prompts, spec=sweep.model_copy(update=texts))
    measurement.check()
    if not any(m.name == "kl" for m in measurement.logit_metrics):
        raise InputError("tradeoffs measures damage by kl: add kl to metrics")
