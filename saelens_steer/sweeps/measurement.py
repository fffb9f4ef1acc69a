"""A sweep from inputs to tables: strengths, logits and completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from sae_lens import SAE

from saelens_steer.config import NO_LOGIT_METRIC, SweepSpec, TemplateSpec
from saelens_steer.data import Encoded, Prompt, SpecialTokens, TextStart, encode_prompts, start_of
from saelens_steer.errors import InputError
from saelens_steer.features import Scale
from saelens_steer.metrics import Asked, LogitMetric, TextMetric, check_starts, resolve_metrics
from saelens_steer.model import hook_width
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.no_tokenizer import check_tokenizer
from saelens_steer.progress import Note, unnoted
from saelens_steer.steering import CANDIDATE, Directions, Edit, EditContext
from saelens_steer.sweeps.cells import grid
from saelens_steer.sweeps.edits import cell_edits
from saelens_steer.sweeps.logits import LogitSweep, logit_shards, unsteered_rows
from saelens_steer.sweeps.plan import BatchSplitter, Cell
from saelens_steer.sweeps.store import NO_STORE, Store
from saelens_steer.sweeps.strengths import matched_steps
from saelens_steer.sweeps.tables import completion_table, logit_table, with_text_metrics
from saelens_steer.sweeps.texts import CompletionSweep, check_room, run_completions
from saelens_steer.sweeps.unsteered_pass import UnsteeredPass

BATCH_TOKENS = {"cpu": 2048, "gpu": 16_384}
"""Default tokens per batch: enough to fill the CPU's caches, or a GPU."""


@dataclass(frozen=True)
class Measurement:
    """A sweep's inputs, and the tables computed from them."""

    model: Any
    sae: SAE[Any] | None
    hook_name: str
    prompts: tuple[Prompt, ...]
    spec: SweepSpec
    metric_specs: tuple[Asked, ...]
    template: TemplateSpec
    context: EditContext | None = None
    """Inputs of the edit besides its direction; None if it reads only the SAE."""
    steps: tuple[float, ...] | None = None
    """The multiple of its direction that each cell adds, if found by `calibrated`."""
    special_tokens: SpecialTokens = None
    """What determines how plain prompts begin; None: the SAE, or else the tokenizer."""

    @property
    def start(self) -> TextStart | None:
        """The special tokens before plain prompts; None if none is plain."""
        return start_of(tokenizer_of(self.model), self.encoded, self._decides)

    @property
    def _decides(self) -> SpecialTokens:
        return self.sae if self.special_tokens is None else self.special_tokens

    @cached_property
    def encoded(self) -> list[Encoded]:
        """The prompts as tokens; sweeps ignore answers."""
        bare = [replace(p, answer=None) for p in self.prompts]
        return encode_prompts(tokenizer_of(self.model), bare, self.template, self._decides)

    @cached_property
    def ids(self) -> list[list[int]]:
        return [list(e.ids) for e in self.encoded]

    @property
    def added(self) -> list[int]:
        """Length of the BOS of each prompt that is never steered."""
        return [e.added for e in self.encoded]

    @cached_property
    def metrics(self) -> list[LogitMetric | TextMetric]:
        cfg, tokenizer = self.model.cfg, tokenizer_of(self.model)
        return resolve_metrics(self.metric_specs, tokenizer, cfg.d_vocab, str(cfg.device))

    @property
    def width(self) -> int:
        """The width of the steered vectors."""
        return hook_width(self.model, self.hook_name)

    @property
    def logit_metrics(self) -> list[LogitMetric]:
        return [m for m in self.metrics if isinstance(m, LogitMetric)]

    @property
    def outcome(self) -> LogitMetric:
        """The metric that effects and causal scores are about: the first logit metric."""
        return self.logit_metrics[0]

    @property
    def text_metrics(self) -> list[TextMetric]:
        return [m for m in self.metrics if isinstance(m, TextMetric)]

    @property
    def text_columns(self) -> list[str]:
        return [c for m in self.text_metrics for c in m.columns]

    def asking(self, words: str) -> Measurement:
        """The measurement with these words after each prompt. InputError if they cannot follow."""
        for one in self.encoded:
            if one.kind == "templated":
                raise InputError(
                    f"prompt {one.prompt.id!r} already contains the chat template, so "
                    f"{words!r} would be outside the user's turn: give its messages, or leave out "
                    "ask"
                )
        return replace(self, prompts=tuple(p.followed_by(words) for p in self.prompts))

    def check(self) -> None:
        """Raise InputError for errors that can be found without a forward pass."""
        if not self.logit_metrics:
            raise InputError(NO_LOGIT_METRIC)
        if not self.prompts:
            raise InputError("no prompts to steer: the prompt set is empty")
        if self.spec.exclude_special_tokens:
            check_tokenizer(tokenizer_of(self.model), "exclude_special_tokens=True")
        self.spec.check_size(len(self.prompts), bool(self.text_metrics))
        check_starts(self.metrics, self.encoded)
        new_tokens = self.spec.completions.max_new_tokens if self.text_metrics else 0
        check_room(self.model, self.encoded, new_tokens)

    def calibrated(
        self,
        directions: Directions,
        scale: Scale,
        store: Store = NO_STORE,
        splitter: BatchSplitter | None = None,
        note: Note = unnoted,
    ) -> Measurement:
        """The measurement with steps found by KL; unchanged if strengths do not depend on KL."""
        if not self.spec.calibrated:
            return self
        if scale.resid_norm is None:
            raise InputError("strengths by KL need cached activations, for mean ‖x‖")
        sweep, in_nats = self._logit_sweep(directions), self.spec.alpha_unit == "kl"
        steps = matched_steps(sweep, in_nats, scale.resid_norm, store, splitter, note)
        return replace(self, steps=tuple(steps))

    def n_rows(self, directions: Directions) -> int:
        return len(self.prompts) * (1 + len(grid(len(directions), self.spec.alphas)))

    def n_texts(self, directions: Directions, chosen: Sequence[int]) -> int:
        """Number of completions if these directions are chosen."""
        if not self.text_metrics:
            return 0
        which = generating(directions, chosen, self.spec.completions.n_controls)
        cells = 1 + len(grid(len(which), self.spec.alphas))
        return len(self.prompts) * cells * self.spec.completions.samples

    def logit_tables(
        self,
        directions: Directions,
        store: Store = NO_STORE,
        logits: Store = NO_STORE,
        splitter: BatchSplitter | None = None,
        note: Note = unnoted,
    ) -> Iterator[pd.DataFrame]:
        """Logit metrics of every direction × α × prompt, in order, a shard of directions at a time.

        Rows in `store` are read back; rows with logits in `logits` need no forward pass.
        """
        sweep = self._logit_sweep(directions, every_token=logits.folder is not None)
        zero = unsteered_rows(sweep, store, logits, note)
        for shard, rows in logit_shards(sweep, store, logits, splitter, note):
            yield logit_table(sweep, shard, rows, zero, self.prompts, self.spec)

    def logit_rows(self, directions: Directions, note: Note = unnoted) -> pd.DataFrame:
        """The logit metrics as one table, without a store."""
        return pd.concat(self.logit_tables(directions, note=note), ignore_index=True)

    def _logit_sweep(self, directions: Directions, every_token: bool = False) -> LogitSweep:
        cells = grid(len(directions), self.spec.alphas)
        return LogitSweep(
            unsteered_pass=self.unsteered_pass,
            directions=directions,
            cells=cells,
            steps=self.steps,
            edits=self._edits(directions, cells),
            metrics=self.logit_metrics,
            sae=self.sae,
            all_logits=every_token,
        )

    def _edits(self, directions: Directions, cells: Sequence[Cell]) -> list[Edit] | None:
        return cell_edits(self.spec, self.context or EditContext(self.sae), directions, cells)

    @cached_property
    def unsteered_pass(self) -> UnsteeredPass:
        """The unsteered pass that logits and completions start from."""
        spec = self.spec
        device = "cpu" if torch.device(self.model.cfg.device).type == "cpu" else "gpu"
        return UnsteeredPass(
            model=self.model,
            hook_name=self.hook_name,
            prompts=self.ids,
            added=self.added,
            positions=spec.positions,
            exclude_special_tokens=spec.exclude_special_tokens,
            max_norm=spec.norm_limit,
            batch_tokens=spec.batch_tokens or BATCH_TOKENS[device],
            new_tokens=spec.completions.max_new_tokens if self.text_metrics else 0,
        )

    def completion_rows(
        self,
        directions: Directions,
        chosen: Sequence[int],
        store: Store = NO_STORE,
        splitter: BatchSplitter | None = None,
        note: Note = unnoted,
    ) -> pd.DataFrame:
        """Completions of the chosen directions and first controls; empty without text metrics."""
        which = generating(directions, chosen, self.spec.completions.n_controls)
        if not self.text_metrics or not which:
            return pd.DataFrame()
        cells = [(0, 0.0), *grid(len(which), self.spec.alphas)]
        run = CompletionSweep(
            unsteered_pass=self.unsteered_pass,
            directions=directions.take(which),
            cells=cells,
            steps=self._steps_of(which),
            edits=self._edits(directions, [(which[d], alpha) for d, alpha in cells]),
            metrics=self.text_metrics,
            spec=self.spec.completions,
            seed=self.spec.seed,
        )
        rows = run_completions(run, store, splitter, note)
        return completion_table(run, rows, self.prompts, self.spec)

    def _steps_of(self, which: Sequence[int]) -> list[float] | None:
        """The unsteered cell's step 0, then the steps of these directions' cells."""
        if self.steps is None:
            return None
        n_alphas = len(grid(1, self.spec.alphas))
        return [0.0, *(self.steps[d * n_alphas + j] for d in which for j in range(n_alphas))]

    def joined(self, rows: pd.DataFrame, completions: pd.DataFrame) -> pd.DataFrame:
        """The rows with text metrics added."""
        if completions.empty:
            return rows
        return with_text_metrics(rows, completions, self.text_columns)

    def metric_columns(self, completions: pd.DataFrame) -> tuple[str, ...]:
        """The metric columns of joined rows, in the order of the metrics: the headline is about the
        first."""
        measured = (m for m in self.metrics if isinstance(m, LogitMetric) or len(completions))
        return tuple(column for metric in measured for column in metric.columns)


def generating(directions: Directions, chosen: Sequence[int], n_controls: int) -> list[int]:
    """Indices of directions that get completions: the chosen ones, then their first controls.

    Controls are of the family that claims are tested against. If no direction is chosen, they are
    those of the first size or candidate.
    """
    families, sets = directions.families, dict[tuple[float, str | None], list[int]]()
    controls = [i for i, family in enumerate(families) if family != CANDIDATE]
    for i in (i for i in controls if families[i] == families[controls[0]]):
        sets.setdefault((directions.sizes[i], directions.matched_to[i]), []).append(i)
    pairs = {(directions.sizes[i], name) for i in chosen for name in (None, directions.names[i])}
    kept = [key for key in sets if key in pairs] if chosen else list(sets)[:1]
    return [*chosen, *(i for key in kept for i in sets[key][:n_controls])]
