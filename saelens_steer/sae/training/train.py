"""Train one SAE, or a grid of SAEs that share their activations."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from saelens_steer.config import TINY, TrainSpec, check_loggers, left_to_defaults, spec_of
from saelens_steer.data import counted_corpus, token_ids
from saelens_steer.errors import InputError
from saelens_steer.files import replacing, write_json, write_jsonl
from saelens_steer.model import check_stream, model_fingerprint
from saelens_steer.model.model_class import Model
from saelens_steer.progress import say
from saelens_steer.sae.finite import unfinite
from saelens_steer.sae.load import canonicalise, load_sae
from saelens_steer.sae.quality import sae_quality
from saelens_steer.sae.training.activation_stream import Cache
from saelens_steer.sae.training.config import check_contexts, check_train_spec, runner_config
from saelens_steer.sae.training.log import open_loggers
from saelens_steer.sae.training.resume import checkpoint_folder, remove_checkpoints, texts_digest
from saelens_steer.sae.training.runner import Runner, gather, held_out_tokens
from saelens_steer.sae.training.scaling import fold_into
from saelens_steer.sae.verdict import QUALITY, judged
from saelens_steer.version import __version__

HELD_OUT_SHARE, HELD_OUT_TEXTS = 0.02, 500
"""Share of the corpus to hold out, and the maximum number of texts."""
HELD_OUT_LEAST, MOST_SHARE = 5_000, 0.1
"""A small corpus holds out a larger share, up to MOST_SHARE, to reach this many tokens."""
HELD_OUT_TOKENS = 10_000
SPARE = {"all": 1.5, "diagnostic": 50.0}
"""Text tokens to load per cached activation: special tokens are dropped, diagnostic ones rare."""


def train_sae(
    model: Model,
    spec: TrainSpec | Mapping[str, object],
    hook_name: str,
    out: str | Path,
    *,
    tensorboard: bool = False,
    wandb: str | None = None,
) -> SAE[Any]:
    """Train an SAE on the activations at `hook_name`, save it to the folder `out` and return it.

    `out` holds the SAE in SAELens's format, metrics.jsonl (training curves: loss terms, L0 and
    explained variance, in the units trained in, some lines also on held-out activations) and
    quality.json (`sae_quality` on held-out texts, a verdict and warnings). `tensorboard` also
    writes the curves to event files in a folder `tensorboard` beside `out`; `wandb` names a Weights
    & Biases project to log them to. The saved SAE reads raw activations, even with
    normalize mean_scale, and its W_dec rows have unit norm if SAELens can fold the norms into the
    encoder. `spec` may be a mapping. An earlier SAE in `out` is kept under another name. A corpus
    smaller than training_tokens is read several times, with a note. Raises InputError before
    training for an unknown hook, architecture or option, for a corpus that fills no context or not
    all of cached_tokens, and for a model other than tiny-qwen3 if `spec` states no corpus.
    """
    spec = spec_of(TrainSpec, spec, "train_sae")
    check_stream(model, hook_name)
    if model.cfg.model_name != TINY and "corpus" not in spec.model_fields_set:
        raise InputError(left_to_defaults(model.cfg.model_name, "the TrainSpec", ["corpus"]))
    check_contexts(model, spec)
    check_train_spec(spec)
    check_loggers(tensorboard)
    texts = load_texts(model, spec)
    return Training(model, spec, hook_name, Path(out), *texts, tensorboard, wandb).run()


def load_texts(model: Any, spec: TrainSpec) -> tuple[Any, Any]:
    """Training texts and held-out texts. Raises InputError if either cannot fill one context."""
    wanted = _text_tokens(spec)
    corpus, held = counted_corpus(spec.corpus, model.tokenizer, wanted, spec.texts_seed)
    least = min(MOST_SHARE, HELD_OUT_LEAST / _text_tokens(spec))
    training, held_out = split_corpus(corpus, max(HELD_OUT_SHARE, least))
    for texts in (training, held_out):
        _check_fills_context(texts, model.tokenizer, spec.context_size)
    if spec.cached_tokens is None and held < wanted:
        _say_repeats(spec, held * len(training) / len(corpus))
    return training, held_out


def _say_repeats(spec: TrainSpec, n_tokens: float) -> None:
    """Say how often a corpus with about n_tokens to train on is read, if more than once."""
    if (times := spec.training_tokens / n_tokens) > 1:
        about = "at least" if spec.tokens == "diagnostic" else "about"
        say(
            f"The corpus has only about {n_tokens:,.0f} tokens to train on, so training reads it "
            f"{about} {times:.1f} times: give a larger corpus, or lower training_tokens"
        )


def _text_tokens(spec: TrainSpec) -> int:
    """Tokens of text to load: enough for the whole training, or to fill the cache."""
    if spec.cached_tokens is None:
        return spec.training_tokens + HELD_OUT_TOKENS
    kept = spec.cached_tokens + held_out_tokens(spec.cached_tokens)
    return round(SPARE[spec.tokens] * kept) + HELD_OUT_TOKENS


@dataclass(frozen=True)
class Training:
    """One training run: its inputs and output folder."""

    model: Any
    spec: TrainSpec
    hook_name: str
    out: Path
    texts: Any
    held_out: Any
    tensorboard: bool = False
    wandb: str | None = None
    cache: Cache | None = None
    """Precomputed activations, if any."""

    def run(self) -> SAE[Any]:
        """Train, save and measure; the folder is complete or absent."""
        checkpoints = self._checkpoints()
        with replacing(self.out) as folder:
            self._measure_in(folder, self._train_into(folder, checkpoints))
        remove_checkpoints(self.out)
        return load_sae(self.out, device=str(self.model.cfg.device))

    def _checkpoints(self) -> Path | None:
        if not self.spec.resume:
            remove_checkpoints(self.out)
            return None
        made_from = [
            self.spec.model_dump(exclude={"cache_folder"}),
            self.hook_name,
            model_fingerprint(self.model),
        ]
        made_from += [__version__, version("sae-lens"), version("torch")]
        texts = (text for part in (self.texts, self.held_out) for text in part["text"])
        return checkpoint_folder(self.out, *made_from, texts_digest(texts))

    def _train_into(self, folder: Path, checkpoints: Path | None) -> Runner:
        spec, model = self.spec, self.model
        config = runner_config(spec, model, self.hook_name, folder, checkpoints)
        resumed = config.resume_from_checkpoint is not None
        wanted = {"tensorboard": self.tensorboard, "wandb": self.wandb, "resumed": resumed}
        with (
            torch.random.fork_rng(),
            quiet_saelens(),
            open_loggers(self.out, spec.model_dump(), **wanted) as loggers,
        ):
            torch.manual_seed(spec.seed)  # SAELens's own `seed` seeds nothing
            given = {"held_out": self.held_out, "cache": self.cache, "loggers": loggers}
            runner = Runner(config, self.texts, model, spec, **given)
            runner.run()
        write_jsonl(folder / "metrics.jsonl", runner.log)
        fold_into(folder, runner.scaling)
        for path in sorted(folder.glob("*cfg.json")):
            canonicalise(path)
        return runner

    def _measure_in(self, folder: Path, runner: Runner) -> None:
        if any(unfinite(runner.sae)):
            raise InputError("the SAE's weights are not finite after training: lower sae.train.lr")
        sae = load_sae(folder, device=str(self.model.cfg.device))
        size, max_norm = self.spec.context_size, self.spec.max_norm
        texts = self.held_out["text"]
        quality = sae_quality(self.model, sae, self.hook_name, texts, size, max_norm)
        write_json(folder / QUALITY, judged(quality, runner.log) | runner.summary)


@contextlib.contextmanager
def quiet_saelens() -> Iterator[None]:
    """Silence SAELens's warnings about being given a model and a corpus: both are intended."""
    logger = logging.getLogger("sae_lens")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="sae_lens.training.activations_store")
            yield
    finally:
        logger.setLevel(level)


def _check_fills_context(corpus: Any, tokenizer: Any, context_size: int) -> None:
    n_tokens = 0
    for row in corpus:
        n_tokens += len(token_ids(tokenizer, row["text"]))
        if n_tokens > context_size:
            return
    raise InputError(
        f"{len(corpus)} texts of the corpus, with {n_tokens} tokens, do not fill a context of "
        f"{context_size}: use a larger corpus or a smaller context_size"
    )


def split_corpus(corpus: Any, share: float = HELD_OUT_SHARE) -> tuple[Any, Any]:
    """Training texts, and the last `share` of the texts (1 to 500) held out.

    Raises InputError for a corpus of one text.
    """
    if len(corpus) < 2:
        raise InputError("the corpus has only one text: add another to measure the SAE on")
    held_out = min(max(1, round(len(corpus) * share)), HELD_OUT_TEXTS)
    cut = len(corpus) - held_out
    return corpus.select(range(cut)), corpus.select(range(cut, len(corpus)))


SHARED = (
    *("corpus", "prepend_bos", "tokens", "cached_tokens", "context_size", "max_norm"),
    *("batch_tokens", "corpus_seed"),
)
"""Settings shared by all SAEs of a grid: they decide the activations."""


def _decides(spec: TrainSpec, key: str) -> object:
    return spec.texts_seed if key == "corpus_seed" else getattr(spec, key)


class SAEGrid:
    """SAEs trained one at a time on the same cached activations, computed on first use.

    specs: name → spec, each with cached_tokens. `tensorboard`, `wandb`: as in `train_sae`. Raises
    InputError for an unknown hook, architecture or option, and for specs that differ in a setting
    that decides the activations.
    """

    def __init__(
        self,
        model: Any,
        specs: Mapping[str, TrainSpec],
        hook_name: str,
        *,
        tensorboard: bool = False,
        wandb: str | None = None,
    ) -> None:
        check_stream(model, hook_name)
        check_loggers(tensorboard)
        if not specs:
            raise InputError("the grid has no SAE: give sae.grid an architecture")
        first = next(iter(specs.values()))
        for spec in specs.values():
            check_contexts(model, spec)
            check_train_spec(spec)
            if any(_decides(spec, key) != _decides(first, key) for key in SHARED):
                raise InputError(f"the SAEs of a grid must share {', '.join(SHARED)}")
        if first.cached_tokens is None:
            raise InputError("the SAEs of a grid share cached activations: set cached_tokens")
        self.model, self.specs, self.hook_name = model, dict(specs), hook_name
        self.first, self.loggers = first, (tensorboard, wandb)

    def train(self, name: str, out: str | Path) -> SAE[Any]:
        """Train the SAE of this name and save it to `out`, as `train_sae` does."""
        about = self.model, self.specs[name], self.hook_name, Path(out), *self._texts
        return Training(*about, *self.loggers, self._cache).run()

    @cached_property
    def _texts(self) -> tuple[Any, Any]:
        return load_texts(self.model, self.first)

    @cached_property
    def _cache(self) -> Cache:
        config = runner_config(self.first, self.model, self.hook_name, Path("unused"))
        with torch.random.fork_rng(), quiet_saelens(), torch.no_grad():
            return gather(Runner(config, self._texts[0], self.model, self.first))
