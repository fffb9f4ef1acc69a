"""What a config can be refused for before a model is loaded: all of it at once, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from huggingface_hub import constants

from saelens_steer.config import (
    METRICS,
    Draft,
    MarginMetric,
    RunSpec,
    check_architecture,
    check_columns,
    check_labeller,
    check_loggers,
    check_margin,
    check_sae_source,
    is_file,
)
from saelens_steer.config.run import SOURCE_KEYS
from saelens_steer.data.prompt import Prompt
from saelens_steer.data.prompts import (
    check_disjoint,
    first_of_domains,
    load_prompts,
    some_prompts,
    steered_prompts,
)
from saelens_steer.data.sources import check_corpus
from saelens_steer.errors import InputError, all_mistakes, existing, is_there, or_known
from saelens_steer.functions import imported
from saelens_steer.model.gguf.header import find_gguf
from saelens_steer.model.names import hub_ids
from saelens_steer.model.snapshot import find_snapshot
from saelens_steer.pipeline.case import Case, Rule, RunPrompts, metric_facts, prompts_rule
from saelens_steer.pipeline.sizes import absurd_sizes
from saelens_steer.pipeline.step_table import STEPS, needed, step
from saelens_steer.run_folder import WRITTEN_ALWAYS, RunFolder


def check_config(
    draft: Draft[RunSpec], out: str | Path | None = None, until: str = "report"
) -> RunPrompts:
    """The prompts of a config that can run up to the step `until` in the folder `out`.

    Raises InputError with every mistake that can be found without a model.
    """
    case, found = Case(draft, Path(out) if out is not None else None, until), [*draft.mistakes]
    for keys, rule in RULES:
        try:
            found += (rule(case) or ()) if case.draft.states(*keys) else ()
        except InputError as error:
            found.append(str(error))
    if found:
        raise all_mistakes(draft.source, list(dict.fromkeys(found)))
    return case.prompts


def _step(case: Case) -> Iterator[str]:
    if case.until not in (names := [one.name for one in STEPS]):
        yield f"there is no step {case.until!r}; {or_known(case.until, names)}"
        return
    asked = step(case.until)
    if not asked.is_wanted(case.spec) and case.draft.states(str(asked.section)):
        hint = (
            f": add {asked.section_hint}" if asked.section_hint else f", which {asked.name} needs"
        )
        yield f"the config has no section {asked.section}{hint}"


def _folder(case: Case) -> None:
    if case.out is None or case.until not in [one.name for one in STEPS]:
        return
    folder, spec = RunFolder(case.out), case.spec
    folder.check()
    folder.check_computed("give another --out")
    outputs = [one.writes(spec) for one in needed(case.until) if one.is_wanted(spec)]
    folder.check_free([*WRITTEN_ALWAYS, *(name for names in outputs for name in names)])


def _device(case: Case) -> None:
    if (device := case.spec.model.device) not in ("auto", "cpu"):
        from saelens_steer.tensors import usable_device  # imports torch

        usable_device(device)


def _model(case: Case) -> None:
    """Downloads nothing; if the hub is off, its models must be cached."""
    name, fetch = case.spec.model.name, case.spec.model.fetch_with
    if fetch and not is_there(name):
        raise InputError(f"model.name {name} is missing: to fetch it, run {fetch}")
    on_hub = name.endswith(".gguf") or hub_ids(name)
    if is_there(name) or constants.HF_HUB_OFFLINE or not on_hub:
        file = find_gguf(name)
        existing(file) if file else find_snapshot(name)


def _training(case: Case) -> Iterator[str]:
    sae = case.spec.sae
    for name, one in {"sae.train": sae.train, **sae.grid_specs}.items():
        try:
            if one:
                check_architecture(one)
        except InputError as error:
            yield f"{name}: {error}"
    check_loggers(sae.log.tensorboard)


def _features(case: Case) -> Iterator[str]:
    train = case.spec.sae.train
    for feature in case.spec.named_features:
        if feature < 0:
            yield f"feature {feature} is out of range: features are counted from 0"
        elif train and feature >= train.d_sae:
            last = train.d_sae - 1
            yield f"feature {feature} is out of range: the SAE will have features 0 to {last}"


def _loading(case: Case) -> None:
    if load := case.spec.sae.load:
        check_sae_source(load.source, load.sae_id)


def _corpus(case: Case) -> None:
    sae = case.spec.sae.train or case.spec.sae.load
    if sae and sae.corpus:
        check_corpus(sae.corpus)


def _apart(case: Case) -> None:
    check_disjoint(case.prompts.steered, case.prompts.selection)


def _label_apart(case: Case) -> Iterator[str]:
    if case.spec.label and case.spec.label.prompts:
        try:
            check_disjoint(case.prompts.label, case.prompts.selection)
        except InputError as error:
            yield f"label.prompts: {error}"


def _tradeoffs_apart(case: Case) -> None:
    check_disjoint(case.prompts.tradeoffs, case.prompts.selection)
    check_disjoint(case.prompts.tradeoffs, case.prompts.steered)


def _domains(case: Case) -> Iterator[str]:
    known = sorted({p.domain for p in case.prompts.selection} - {""})
    hint = f"its domains are {', '.join(known)}" if known else "give each of its rows a domain"
    for domain in filter(None, (*case.sides, case.spec.select.reference)):
        if domain not in known:
            yield f"{case.spec.select.prompts} has no prompt of domain {domain!r}; {hint}"


def _tradeoff_domains(case: Case) -> Iterator[str]:
    known, spec = {p.domain for p in case.prompts.tradeoffs}, case.spec.tradeoffs
    if spec and (spec.domain not in known or len(known) < 2):
        yield (
            f"tradeoffs: {spec.prompts} needs prompts of domain {spec.domain!r} and of at "
            f"least one other; its domains are {', '.join(sorted(known))}"
        )


def _sides(case: Case) -> Iterator[str]:
    spec, sides = case.spec, case.sides
    for edit in spec.compare_edits.edits if spec.compare_edits else ():
        given = edit.options.features
        if isinstance(given, str) and given not in sides:
            yield (
                f"compare_edits: no candidates are chosen for {given!r}; {or_known(given, sides)}"
            )
    for side in spec.compare_directions.ask if spec.compare_directions else ():
        if side not in sides:
            yield (
                f"compare_directions.ask: {side!r} is not a side of select; {or_known(side, sides)}"
            )
    if spec.tradeoffs and spec.tradeoffs.target not in (None, *sides):
        yield f"tradeoffs.target must be {sides[0]} or {sides[1]}, not {spec.tradeoffs.target!r}"


def _each_metric(case: Case) -> Iterator[str]:
    for metric in case.spec.metrics:
        try:
            metric_facts(metric)
        except InputError as error:
            case.lose("metrics")
            yield str(error)


def _metrics(case: Case) -> None:
    own = [facts for spec, facts in case.metrics if not (isinstance(spec, str) and spec in METRICS)]
    found = [facts for _, facts in case.metrics]
    check_columns(*([column for one in some for column in one.columns] for some in (found, own)))
    spec, facts = case.outcome
    if "direct_logit" in {case.spec.select.score, *case.spec.sources}:
        check_margin(facts.columns[0], isinstance(spec, MarginMetric))


def _metrics_of_sections(case: Case) -> Iterator[str]:
    facts = [facts for _, facts in case.metrics]
    if case.spec.tradeoffs and METRICS["kl"] not in facts:
        yield "tradeoffs measures damage by kl: add kl to metrics"
    if case.spec.sweep.completions.files and not any(one.of == "text" for one in facts):
        yield (
            "sweep.completions.files needs completions, which are only written for text metrics: "
            "add one to metrics, such as latex_first or mentions"
        )


def _elsewhere(case: Case) -> Iterator[str]:
    for name in case.spec.from_elsewhere:
        try:
            existing(Path(name)) if is_file(name) else imported(name, "function")
        except InputError as error:
            yield str(error)


def _sizes(case: Case) -> Iterator[str]:
    texts = any(facts.of == "text" for _, facts in case.metrics)
    train = case.spec.sae.train
    yield from absurd_sizes(case.spec, case.prompts, texts, train.d_sae if train else None)


def _label(case: Case) -> None:
    done = case.out is not None and RunFolder(case.out).has("labels.json")
    if case.spec.label and not done:  # a finished run needs no server
        check_labeller(case.spec.label)


def _topic(case: Case) -> Iterable[Prompt]:
    return load_prompts(case.spec.features.topic) if case.spec.features.topic else ()


def _labelled(case: Case) -> Iterable[Prompt]:
    if (spec := case.spec.label) is None:
        return ()
    if spec.prompts:
        return steered_prompts(spec.prompts)
    return some_prompts(case.prompts.steered, spec.n_prompts, spec.seed)


def _traded(case: Case) -> Iterable[Prompt]:
    if (spec := case.spec.tradeoffs) is None:
        return ()
    return first_of_domains(load_prompts(spec.prompts), spec.limit)


RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    ((), _step),
    ((), _folder),
    (("model.device",), _device),
    (("model.name",), _model),
    (("prompts",), prompts_rule("steered", "prompts", lambda c: steered_prompts(c.spec.prompts))),
    (
        ("select.prompts",),
        prompts_rule("selection", "select.prompts", lambda c: load_prompts(c.spec.select.prompts)),
    ),
    (("features.topic",), prompts_rule("topic", "features.topic", _topic)),
    (
        ("label.prompts", "label.n_prompts", "label.seed"),
        prompts_rule("label", "label.prompts", _labelled),
    ),
    (
        ("tradeoffs.prompts", "tradeoffs.limit"),
        prompts_rule("tradeoffs", "tradeoffs.prompts", _traded),
    ),
    (("prompts", "select.prompts"), _apart),
    (("label.prompts", "select.prompts"), _label_apart),
    (("tradeoffs.prompts", "prompts", "select.prompts"), _tradeoffs_apart),
    (("select.positive", "select.negative", "select.reference", "select.prompts"), _domains),
    (("tradeoffs.prompts", "tradeoffs.limit", "tradeoffs.domain"), _tradeoff_domains),
    (("select.positive", "select.negative"), _sides),
    ((), _each_metric),
    (("metrics", *SOURCE_KEYS), _metrics),
    (("metrics",), _metrics_of_sections),
    (("sweep", "prompts", "metrics", "sae", "select", "label", "tradeoffs"), _sizes),
    (("sae.train", "sae.grid"), _training),
    (("sae.train",), _features),
    (("sae.load",), _loading),
    ((), _corpus),
    ((), _elsewhere),
    ((), _label),
)
"""The dotted keys whose defaults a rule would misjudge, and the rule.

It yields its mistakes, or raises InputError.
"""
