"""The steps of a run, one entry each, in the order of the story.

The table decides what a run does, what a changed setting does again, and which commands there are.
To add a step: an entry here, and the module that its `build` names. Importable without torch.
"""

from __future__ import annotations

from collections.abc import Callable

from saelens_steer.config import CAUSAL, RunSpec
from saelens_steer.pipeline.step import Fact, Step

STEPS_PACKAGE = "saelens_steer.pipeline.steps"


MODEL, HOOK, METRICS = Fact("model_key"), Fact("hook_name"), Fact("metrics_version")
STEERED, SELECTING = Fact("steered_hash"), Fact("selecting_hash")


def grid_specs(spec: RunSpec) -> dict[str, object]:
    """What decides each SAE of the grid."""
    return {name: one.model_dump(exclude={"resume"}) for name, one in spec.sae.grid_specs.items()}


def _cache(spec: RunSpec) -> list[object]:
    answers = [spec.select.answer_tokens] if spec.reads_answers else []
    return [MODEL, HOOK, SELECTING, spec.activations, spec.template, answers]


def _train(spec: RunSpec) -> list[object]:
    # not whether a stopped training may be resumed, nor what quality is measured on
    made_from = spec.sae.model_dump(include={"train", "load"}, exclude=_NOT_THE_SAE)
    return [MODEL, HOOK, made_from, Fact("sae_source")]


_NOT_THE_SAE = {"train": {"resume"}, "load": {"corpus"}}


def _select(spec: RunSpec) -> list[object]:
    tried = [spec.where_steered, METRICS] if spec.select.score in CAUSAL else []
    return [spec.select, spec.sweep.named, *tried]


def _compared(spec: RunSpec) -> list[object]:
    return [STEERED, spec.prompts, spec.select, spec.where_steered, METRICS]


def _features(spec: RunSpec) -> list[object]:
    pages = [spec.features, Fact("topic_hash"), spec.template, spec.sweep.named]
    return [*pages, spec.activations]


NAMING = {"provider", "server", "neuronpedia"}
"""Settings of labels that decide who names, and nothing of what is shown."""
HOW_ASKED = {
    *("base_url", "key_env", "concurrency", "timeout", "retries", "backoff"),
    *("max_requests", "max_tokens"),
}
"""Settings of a server that decide how it is asked, and nothing of its answers."""


def _label_evidence(spec: RunSpec) -> list[object]:
    assert spec.label is not None
    shown = [spec.sweep.named, spec.features.also, spec.activations, spec.template]
    texts = [Fact("naming_hash"), spec.label.prompts or spec.prompts, spec.where_steered]
    return [*shown, *texts, spec.label.model_dump(exclude=NAMING)]


def _label(spec: RunSpec) -> list[object]:
    assert spec.label is not None
    return [spec.label.model_dump(include=NAMING, exclude={"server": HOW_ASKED})]


def _sweep_files(spec: RunSpec) -> tuple[str, ...]:
    tables = "interference.csv", "interference.json", "claims.csv", "warnings.json"
    controls = ("controls.csv",) if spec.sweep.families else ()
    texts = ("generated_texts",) if spec.sweep.completions.files else ()
    return ("sweep", "completions.jsonl", *tables, *controls, *texts)


def files(*names: str) -> Callable[[RunSpec], tuple[str, ...]]:
    """The same files whatever the config."""
    return lambda _: names


BASELINE = "frozen_decoder_baseline"
"""Step, and folder, of the SAE whose decoder was never trained."""

STEPS: tuple[Step, ...] = (
    Step(
        "cache",
        "Cache the activations of the selection prompts.",
        build=f"{STEPS_PACKAGE}.select:cache",
        writes=files("activations"),
        reads=_cache,
        section="activations",
    ),
    Step(
        "train",
        "Train the SAE, or load it.",
        build=f"{STEPS_PACKAGE}.sae:train",
        writes=files("sae"),
        reads=_train,
        section="sae",
    ),
    Step(
        "quality",
        "",
        build=f"{STEPS_PACKAGE}.sae:quality",
        writes=files("sae/quality.json"),
        reads=lambda s: [
            s.sae.model_dump(include={"load": {"corpus"}}),
            *(Fact("corpus_version"), Fact("source_quality"), SELECTING, s.template),
        ],
        after=("train",),
        unless=lambda s: s.sae.load is None,
        part_of="train",
    ),
    Step(
        "grid",
        "Train every SAE of sae.grid on one pass of activations, compared in grid/grid.csv.",
        build=f"{STEPS_PACKAGE}.sae:grid",
        writes=files("grid/grid.csv", "grid/frontier.html"),
        reads=lambda s: [MODEL, HOOK, grid_specs(s), Fact("sae_source"), Fact("grid_missing")],
        section="sae.grid",
        ask="which architectures and sparsities",
        returns_writer=True,
    ),
    Step(
        "select",
        "Choose the candidate features.",
        build=f"{STEPS_PACKAGE}.select:select",
        writes=files("features.json"),
        reads=_select,
        after=("cache", "train"),
        section="select",
    ),
    Step(
        "feature_data",
        "",
        build=f"{STEPS_PACKAGE}.features:feature_data",
        writes=files("feature_pages.json"),
        reads=_features,
        after=("select",),
        section="features",
    ),
    Step(
        "features",
        "",
        build=f"{STEPS_PACKAGE}.features:features",
        writes=files("features.html"),
        reads=lambda _: [Fact("labels_digest")],
        after=("feature_data",),
        section="features",
        renewed_by=("label",),
    ),
    Step(
        "label_evidence",
        "",
        build=f"{STEPS_PACKAGE}.label:label_evidence",
        writes=files("label_evidence.json", "label_texts"),
        reads=_label_evidence,
        after=("select",),
        section="label",
        part_of="label",
    ),
    Step(
        "label",
        "Name the features and test the names; exit status 1 while answers are missing.",
        build=f"{STEPS_PACKAGE}.label:label",
        writes=files("labels.json", "labels.csv"),
        reads=_label,
        after=("label_evidence",),
        section="label",
        ask="who names features, or label: {} for the offline provider",
        returns_writer=True,
    ),
    Step(
        "compare_edits",
        "Write what the model says with and without edits, side by side.",
        build=f"{STEPS_PACKAGE}.compare_edits:compare_edits",
        writes=files("compare_edits.json", "compare_edits.csv"),
        reads=lambda s: [STEERED, s.prompts, s.compare_edits, METRICS],
        after=("select",),
        section="compare_edits",
        ask="which variants to compare",
    ),
    Step(
        "compare_directions",
        "Compare ways to choose directions by what the chosen ones do.",
        build=f"{STEPS_PACKAGE}.compare_directions:compare_directions",
        writes=files("comparison.csv", "comparison_rows.parquet"),
        reads=lambda s: [*_compared(s), s.compare_directions],
        after=("select",),
        section="compare_directions",
        ask="which ways to choose directions, or compare_directions: {} for the usual ones",
    ),
    Step(
        "tradeoffs",
        "Measure directions and edits on every domain: effect against damage.",
        build=f"{STEPS_PACKAGE}.tradeoffs:tradeoffs",
        writes=files("tradeoffs.csv", "tradeoffs_by_domain.csv", "tradeoffs_rows.parquet"),
        reads=lambda s: [
            *_compared(s),
            s.tradeoffs,
            Fact("tradeoffs_hash"),
            s.sweep.completions.temperature,
        ],
        after=("select",),
        section="tradeoffs",
        ask="which directions and edits, or tradeoffs: {} for the usual ones",
    ),
    Step(
        "sweep",
        "Steer and measure, against controls.",
        build=f"{STEPS_PACKAGE}.sweep:sweep",
        writes=_sweep_files,
        reads=lambda s: [STEERED, s.prompts, s.sweep, METRICS],
        after=("select",),
        section="sweep",
    ),
    Step(
        f"{BASELINE}_sae",
        "",
        build=f"{STEPS_PACKAGE}.{BASELINE}:train",
        writes=files(f"{BASELINE}/sae"),
        reads=_train,
        section="sae.frozen_decoder_baseline",
        part_of=BASELINE,
    ),
    Step(
        BASELINE,
        "",
        build=f"{STEPS_PACKAGE}.{BASELINE}:sweep",
        writes=files(
            *(f"{BASELINE}/{name}" for name in ("claims.csv", "features.json", "rows.parquet"))
        ),
        reads=lambda s: [s.select, METRICS],
        after=("sweep", f"{BASELINE}_sae"),
        leftovers=(BASELINE,),
        section="sae.frozen_decoder_baseline",
    ),
    Step(
        "report",
        "Write the report, and whatever it still needs.",
        build=f"{STEPS_PACKAGE}.report:report",
        writes=files("report.html", "plots"),
        reads=lambda s: [s, Fact("grid_digest")],
        after=(
            *("quality", "features", "label", "compare_edits", "compare_directions"),
            *("tradeoffs", "sweep", BASELINE),
        ),
        derived=("report.pdf",),
    ),
)


def step(name: str) -> Step:
    """The step of a name."""
    return next(one for one in STEPS if one.name == name)


def needed(name: str) -> list[Step]:
    """A step, what it is made from, and their parts, in the order of the table."""
    wanted, found = [name], set[str]()
    while wanted:
        found.add(one := wanted.pop())
        parts = [s.name for s in STEPS if s.part_of == one or one in s.renewed_by]
        wanted += [other for other in (*step(one).after, *parts) if other not in found]
    return [one for one in STEPS if one.name in found]


def dependants(name: str) -> list[str]:
    """The steps that are made from what a step makes, directly or not."""
    found = {name}
    for one in STEPS:  # a step stands behind what it is made from
        if found & {*one.after}:
            found.add(one.name)
    return [one.name for one in STEPS if one.name in found - {name}]
