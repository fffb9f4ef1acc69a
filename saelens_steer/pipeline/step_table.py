"""The steps of a run, in order, one entry each.

The table decides what a run does, what a changed setting recomputes, and which commands exist. To
add a step, add an entry here and the module that its `build` names. Importable without torch.
"""

from __future__ import annotations

from collections.abc import Callable

from saelens_steer.config import CAUSAL, RunSpec
from saelens_steer.pipeline.step import PromptsInput, RunInput, Step

STEPS_PACKAGE = "saelens_steer.pipeline.steps"
BASELINE = "frozen_decoder_baseline"
"""Step, and folder, of the SAE whose decoder stays random."""

MODEL, HOOK, START = RunInput("model_key"), RunInput("hook_name"), RunInput("special_tokens")
METRICS = RunInput("metrics_version")
CUSTOM, SAE_SOURCE = RunInput("custom_version"), RunInput("sae_source")
STEERED, SELECTION = PromptsInput("prompts"), PromptsInput("selection_prompts")

NAMING = {"provider", "server", "neuronpedia"}
"""Label settings that decide who names the features, but not what evidence they see."""
TRANSPORT = {
    *("base_url", "key_env", "concurrency", "timeout", "retries", "backoff"),
    *("ask_again", "max_requests", "max_tokens"),
}
"""Server settings that decide how requests are sent, but not what is answered."""


UNRELATED = {"resume", "cache_folder"}
"""Training settings that do not change the SAE."""


def grid_specs(spec: RunSpec) -> dict[str, object]:
    """The settings that decide each SAE of the grid, by name."""
    return {name: one.model_dump(exclude=UNRELATED) for name, one in spec.sae.grid_specs.items()}


def _cache(spec: RunSpec) -> list[object]:
    answers = [spec.select.answer_tokens] if spec.reads_answers else []
    return [MODEL, HOOK, SELECTION, spec.activations, spec.template, START, answers]


def _train(spec: RunSpec) -> list[object]:
    # load.corpus only changes the SAE's quality figures
    unrelated = {"train": UNRELATED, "load": {"corpus"}}
    sae = spec.sae.model_dump(include={"train", "load"}, exclude=unrelated)
    return [MODEL, HOOK, sae, SAE_SOURCE]


def _select(spec: RunSpec) -> list[object]:
    causal = [spec.where_steered, METRICS] if spec.select.score in CAUSAL else []
    return [spec.select, spec.sweep.named, *causal]


def _compared_directions(spec: RunSpec) -> list[object]:
    return [STEERED, spec.prompts, spec.select, spec.where_steered, METRICS, CUSTOM]


def _feature_data(spec: RunSpec) -> list[object]:
    topic, named = PromptsInput("topic_prompts"), spec.sweep.named
    return [spec.features, topic, spec.template, named, spec.activations]


def _label_evidence(spec: RunSpec) -> list[object]:
    assert spec.label is not None
    contexts = [spec.sweep.named, spec.features.also, spec.activations, spec.template]
    prompts = [PromptsInput("label_prompts"), spec.label.prompts or spec.prompts]
    return [*contexts, *prompts, spec.where_steered, spec.label.model_dump(exclude=NAMING)]


def _label(spec: RunSpec) -> list[object]:
    assert spec.label is not None
    return [spec.label.model_dump(include=NAMING, exclude={"server": TRANSPORT})]


RESULT_FILES = (
    *("sweep", "completions.jsonl"),
    *("interference.csv", "interference.json", "claims.csv", "warnings.json"),
)
"""What every sweep writes."""


def _sweep_files(spec: RunSpec) -> tuple[str, ...]:
    controls = ("controls.csv",) if spec.sweep.families else ()
    texts = ("generated_texts",) if spec.sweep.completions.files else ()
    return (*RESULT_FILES, *controls, *texts)


def files(*names: str) -> Callable[[RunSpec], tuple[str, ...]]:
    """The same files for every config."""
    return lambda _: names


STEPS: tuple[Step, ...] = (
    Step(
        "cache",
        help="Cache the activations of the selection prompts.",
        build=f"{STEPS_PACKAGE}.select:cache",
        writes=files("activations"),
        reads=_cache,
        section="activations",
    ),
    Step(
        "train",
        help="Train the SAE, or load it.",
        build=f"{STEPS_PACKAGE}.sae:train",
        writes=files("sae"),
        reads=_train,
        section="sae",
        in_provenance=True,
    ),
    Step(
        "quality",
        build=f"{STEPS_PACKAGE}.sae:quality",
        writes=files("sae/quality.json"),
        reads=lambda s: [
            s.sae.model_dump(include={"load": {"corpus"}}),
            *(RunInput("corpus_version"), RunInput("source_quality"), SELECTION, s.template),
        ],
        after=("train",),
        section="sae.load",
        part_of="train",
    ),
    Step(
        "audit",
        build=f"{STEPS_PACKAGE}.sae:audit_fit",
        writes=files("sae/audit.json"),
        reads=lambda s: [
            s.sae.model_dump(include={"load": {"corpus", "source", "sae_id"}}),
            *(RunInput("corpus_version"), RunInput("source_quality"), SELECTION, s.template),
        ],
        after=("train",),
        part_of="train",
        in_provenance=True,
    ),
    Step(
        "grid",
        help="Train every SAE of sae.grid on the same activations; compare them in grid.csv.",
        build=f"{STEPS_PACKAGE}.sae:grid",
        writes=files("grid/grid.csv", "grid/frontier.html"),
        reads=lambda s: [MODEL, HOOK, grid_specs(s), SAE_SOURCE, RunInput("grid_missing")],
        section="sae.grid",
        section_hint="the architectures and sparsities to train",
        returns_writer=True,
    ),
    Step(
        "select",
        help="Choose the candidate features.",
        build=f"{STEPS_PACKAGE}.select:select",
        writes=files("features.json"),
        reads=_select,
        after=("cache", "train"),
        section="select",
    ),
    Step(
        "feature_data",
        build=f"{STEPS_PACKAGE}.features:feature_data",
        writes=files("feature_pages.json"),
        reads=_feature_data,
        after=("select",),
        section="features",
    ),
    Step(
        "features",
        build=f"{STEPS_PACKAGE}.features:features",
        writes=files("features.html"),
        reads=lambda _: [RunInput("labels_digest")],
        after=("feature_data",),
        section="features",
        repeated_after=("label",),
    ),
    Step(
        "label_evidence",
        build=f"{STEPS_PACKAGE}.label:label_evidence",
        writes=files("label_evidence.json", "label_texts"),
        reads=_label_evidence,
        after=("select",),
        section="label",
        part_of="label",
    ),
    Step(
        "label",
        help="Label the features and test the labels; exit with 1 while answers are missing.",
        build=f"{STEPS_PACKAGE}.label:label",
        writes=files("labels.json", "labels.csv"),
        reads=_label,
        after=("label_evidence",),
        section="label",
        section_hint="label: {} for the offline provider, or name another",
        returns_writer=True,
    ),
    Step(
        "compare_edits",
        help="Compare what the model writes with and without each edit.",
        build=f"{STEPS_PACKAGE}.compare_edits:compare_edits",
        writes=files("compare_edits.json", "compare_edits.csv"),
        reads=lambda s: [STEERED, s.prompts, s.compare_edits, METRICS, CUSTOM],
        after=("select",),
        section="compare_edits",
        section_hint="the variants to compare",
    ),
    Step(
        "compare_directions",
        help="Compare selection methods by the effect of the directions they choose.",
        build=f"{STEPS_PACKAGE}.compare_directions:compare_directions",
        writes=files("comparison.csv", "comparison_rows.parquet"),
        reads=lambda s: [*_compared_directions(s), s.compare_directions],
        after=("select",),
        section="compare_directions",
        section_hint="compare_directions: {} for the default methods, or list others",
    ),
    Step(
        "tradeoffs",
        help="Measure directions and edits on every domain: intended effect against damage.",
        build=f"{STEPS_PACKAGE}.tradeoffs:tradeoffs",
        writes=files("tradeoffs.csv", "tradeoffs_by_domain.csv", "tradeoffs_rows.parquet"),
        reads=lambda s: [
            *_compared_directions(s),
            s.tradeoffs,
            PromptsInput("tradeoff_prompts"),
            s.sweep.completions.temperature,
        ],
        after=("select",),
        section="tradeoffs",
        section_hint="tradeoffs: {} for the default directions and edits, or list others",
    ),
    Step(
        "sweep",
        help="Steer along the candidates and random controls, and measure the effects.",
        build=f"{STEPS_PACKAGE}.sweep:sweep",
        writes=_sweep_files,
        reads=lambda s: [STEERED, s.prompts, s.sweep, METRICS, CUSTOM],
        after=("select",),
        section="sweep",
    ),
    Step(
        f"{BASELINE}_sae",
        build=f"{STEPS_PACKAGE}.{BASELINE}:train",
        writes=files(f"{BASELINE}/sae"),
        reads=_train,
        section="sae.frozen_decoder_baseline",
        part_of=BASELINE,
    ),
    Step(
        BASELINE,
        build=f"{STEPS_PACKAGE}.{BASELINE}:sweep",
        writes=files(
            *(f"{BASELINE}/{name}" for name in ("claims.csv", "features.json", "rows.parquet"))
        ),
        reads=lambda s: [s.select, METRICS],
        after=("sweep", f"{BASELINE}_sae"),
        section="sae.frozen_decoder_baseline",
    ),
    Step(
        "report",
        help="Write the report, and run every step it needs.",
        build=f"{STEPS_PACKAGE}.report:report",
        writes=files("report.html", "plots"),
        reads=lambda s: [s, RunInput("grid_digest")],
        after=(
            *("quality", "audit", "features", "label", "compare_edits", "compare_directions"),
            *("tradeoffs", "sweep", BASELINE),
        ),
    ),
)


def step(name: str) -> Step:
    """The step with this name."""
    return next(one for one in STEPS if one.name == name)


def needed(name: str) -> list[Step]:
    """A step, the steps it depends on, and their parts, in the order of the table."""
    wanted, found = [name], set[str]()
    while wanted:
        found.add(one := wanted.pop())
        parts = [s.name for s in STEPS if s.part_of == one or one in s.repeated_after]
        wanted += [other for other in (*step(one).after, *parts) if other not in found]
    return [one for one in STEPS if one.name in found]


def dependants(name: str) -> list[str]:
    """The steps that depend on a step, directly or not."""
    found = {name}
    for one in STEPS:  # a step comes after everything it depends on
        if found & {*one.after}:
            found.add(one.name)
    return [one.name for one in STEPS if one.name in found - {name}]
