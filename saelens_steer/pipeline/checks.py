"""Checks that refuse a bad run before it does any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_lens import SAE

from saelens_steer.config import Draft, RunSpec, TrainSpec, is_file
from saelens_steer.data import encode_prompts, load_corpus
from saelens_steer.directions import check_causal
from saelens_steer.errors import InputError, all_mistakes
from saelens_steer.labels import text_study
from saelens_steer.model import check_length, check_steerable, find_model, hook_width, same_places
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.rules import RunPrompts, check_config
from saelens_steer.pipeline.sizes import absurd_sizes
from saelens_steer.sae import (
    check_contexts,
    check_encoder,
    check_feature,
    check_positive,
    check_sae,
    check_train_spec,
    check_unsigned,
    is_transcoder,
    reads_at,
    steers_at,
)
from saelens_steer.steering import vectors_at
from saelens_steer.sweeps import check_comparable, check_room


def checked_context(
    spec: RunSpec, out: str | Path, prompts: RunPrompts | None = None
) -> RunContext:
    """Check everything, then load the model. Writes nothing.

    prompts: what `check_config` returned for this spec and folder; None: call it. What needs only
    the model's config and tokenizer is checked before its weights are read. Raises InputError for
    anything in the config, prompts, SAE or folder that would stop the run.
    """
    prompts, m = prompts or check_config(Draft(spec), out), spec.model
    found = find_model(m.name, model_class=m.class_, dtype=m.dtype, device=m.device)
    run = RunContext.of(spec, out, prompts, found.weightless)
    mistakes = list(dict.fromkeys(_mistakes(run)))
    if mistakes:
        raise all_mistakes("config", mistakes) if len(mistakes) > 1 else InputError(mistakes[0])
    run.model = found.loaded
    if spec.sae.load:
        check_sae(run.source_sae, run.model, run.hook_name)  # whether the weights are centred
    return run


def _mistakes(run: RunContext) -> Iterator[str]:
    """What each check of the run finds."""
    for check in CHECKS:
        try:
            check(run)
        except InputError as error:
            yield str(error)


def _check_measurement(run: RunContext) -> None:
    run.measurement().check()


def _check_versions(run: RunContext) -> None:
    """The custom functions have source code, and the files hold vectors of the hook."""
    _ = run.custom_version
    for name in filter(is_file, run.spec.from_elsewhere):
        vectors_at(name, run.hook_name, hook_width(run.model, run.hook_name))


def _check_scores(run: RunContext) -> None:
    for score in {run.spec.select.score, *run.spec.sources}:
        check_causal(str(score), run.hook_name)


def _check_apart(run: RunContext) -> None:
    """No steered prompt is read as the same tokens as a selection prompt, however it is given."""
    ids = {e.head: e.prompt.id for e in run.encoded_selection}
    for one in run.measurement().encoded:
        if one.head in ids:
            raise InputError(
                f"the steered prompt {one.prompt.id!r} and the selection prompt {ids[one.head]!r} "
                "have the same tokens: select features on different prompts"
            )


def _check_answers(run: RunContext) -> None:
    """Selection prompts leave room for the answers that the model is to write."""
    if not run.spec.reads_answers:
        return
    if unanswered := [one for one in run.encoded_selection if not one.answer]:
        key, n = "select.answer_tokens", run.spec.select.answer_tokens
        check_room(run.model, unanswered, n, key)


def _check_sizes(run: RunContext) -> None:
    """What the features of a loaded SAE would take; the rules know those of a future one."""
    if run.spec.sae.load:
        texts, d_sae = bool(run.measurement().text_metrics), run.source_sae.cfg.d_sae
        prompts = run.prompts, run.selection_prompts, run.topic_prompts, run.label_prompts
        given = RunPrompts(*prompts, run.tradeoff_prompts)
        if found := [*absurd_sizes(run.spec, given, texts, d_sae)]:
            raise all_mistakes("config", found)


def _check_topic(run: RunContext) -> None:
    encoded = encode_prompts(run.model.tokenizer, run.topic_prompts, **run.encoding)
    check_length(run.model, max((len(e.ids) for e in encoded), default=0))


def _check_compare_edits(run: RunContext) -> None:
    spec = run.spec.compare_edits
    if spec is None:
        return
    encoded = run.measurement().encoded[: spec.limit]
    check_comparable(run.model, encoded, spec, len(spec.variants), "compare_edits.")
    for edit in spec.edits:
        check_steerable(run.model, edit.options.hook_name or run.hook_name)


def _check_sae(run: RunContext) -> None:
    """Named features exist, and the SAE fits the model wherever it is used."""
    _check_compare_edits(run)
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
            f"sae.load is a transcoder, which reads from {reads_at(sae)} and writes to "
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
    check_contexts(run.model, train)
    check_train_spec(train)
    load_corpus(train.corpus, run.model.tokenizer, 1, train.texts_seed)  # raises if it has no text
    if _counts_firing(run.spec):
        check_unsigned(train.architecture)
    for hook_name in encoded_at - {*same_places(run.hook_name)}:
        raise InputError(
            f"compare_edits: the SAE will be trained at {run.hook_name}, so it cannot encode "
            f"at {hook_name}: leave hook_name out, or use add or project_out there"
        )


def _check_compare_directions(run: RunContext) -> None:
    spec = run.spec.compare_directions
    if spec is None:
        return
    for words in spec.ask.values():
        run.measurement().asking(words).check()


def _check_label(run: RunContext) -> None:
    spec = run.spec.label
    if spec is None:
        return
    prompts = run.label_prompts, spec, run.spec.sweep, spec.prompts or run.spec.prompts
    start = run.special_tokens
    text_study(run.model, run.hook_name, *prompts, special_tokens=start).check()


def _check_tradeoffs(run: RunContext) -> None:
    if (spec := run.spec.tradeoffs) is None:
        return
    prompts, sweep = run.tradeoff_prompts, run.spec.sweep
    length = {"max_new_tokens": max(1, spec.max_new_tokens)}
    texts = {"completions": sweep.completions.model_copy(update=length)}
    measurement = replace(run.measurement(), prompts=prompts, spec=sweep.model_copy(update=texts))
    measurement.check()


CHECKS: tuple[Callable[[RunContext], None], ...] = (
    _check_measurement,
    _check_versions,
    _check_apart,
    _check_answers,
    _check_sizes,
    _check_topic,
    _check_sae,
    _check_scores,
    _check_compare_directions,
    _check_label,
    _check_tradeoffs,
)
"""The checks that need the model's config, hooks or tokenizer, but not its weights."""
