"""How much there is to do: prompts, directions, rows, texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from saelens_steer.doctor.findings import Finding
from saelens_steer.evidence import least_controls
from saelens_steer.stages import Run
from saelens_steer.study import Study
from saelens_steer.sweeps import grid


@dataclass(frozen=True)
class Sizes:
    """Counts of a run; candidates are taken to be as many as may be chosen."""

    lengths: list[int]
    """Tokens of each prompt that is steered."""
    tested: int
    controls: int
    rows: int
    texts: int

    @classmethod
    def of(cls, run: Run, study: Study) -> Sizes:
        """What this run comes to."""
        sweep, n = run.spec.sweep, len(study.ids)
        tested = len(sweep.named) or 2 * run.spec.select.k
        sets = tested if sweep.own_controls or sweep.alpha_unit == "max_act" else 1
        controls = sweep.n_controls * len(sweep.families) * sets
        rows = n * len(grid(tested + controls, sweep.alphas))
        write = sweep.generate
        chosen = min(tested, 2 * write.top)
        few = chosen + min(write.n_controls * (chosen if sets > 1 else 1), controls)
        texts = n * (1 + len(grid(few, sweep.alphas))) * write.samples
        return cls(
            [len(ids) for ids in study.ids],
            tested,
            controls,
            rows,
            texts if study.text_metrics and few else 0,
        )

    @property
    def mean_length(self) -> float:
        return sum(self.lengths) / len(self.lengths)


def described(run: Run, study: Study, sizes: Sizes) -> Iterator[Finding]:
    """What the config comes to, a line for each of its parts."""
    cfg, spec, lengths = run.model.cfg, run.spec, sizes.lengths
    select, tested = spec.select, sizes.tested
    yield Finding(
        "model", f"{spec.model.name}: {cfg.n_layers} layers of {cfg.d_model}, on {cfg.device}"
    )
    yield Finding("hook", run.hook_name)
    yield Finding("prompts", f"{len(lengths)} steered, of {min(lengths)} to {max(lengths)} tokens")
    sides = f"{select.positive} against {select.negative}"
    yield Finding("selection", f"{len(run.selecting)} prompts, {sides}")
    yield Finding("metrics", ", ".join(metric.name for metric in study.metrics))
    if patch := spec.patch:
        few = len(lengths[: patch.limit])
        yield Finding("patch", f"{len(patch.variants)} variants of the model on {few} prompts")
    many = f"{tested} directions and {sizes.controls} controls"
    yield Finding("sweep", f"{many}: {sizes.rows:,} rows, {sizes.texts:,} texts")
    if label := spec.label:
        n = len(run.naming)
        pairs = max(0, n - label.examples)
        n_texts = n * (tested * len(label.strengths) + 1) + pairs * (tested + 1)
        by = "the offline provider"
        if label.server:
            by = f"{label.server.model}, at most {3 * tested} questions,"
        yield Finding("labels", f"of {tested} features by {by} from {n_texts:,} texts")
    needed = least_controls(tested)
    enough = (
        "enough" if spec.sweep.n_controls >= needed else f"too few: at least {needed} are needed"
    )
    yield Finding("controls", f"{spec.sweep.n_controls} for {tested} claims a metric: {enough}")
