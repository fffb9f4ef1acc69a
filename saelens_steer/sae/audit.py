"""Does an SAE fit the model, the hook and the tokens that it is used with?

`audit` measures it on a few hundred tokens before any steering. What the SAE's makers promise (see
`promises.py`) is compared with what is measured. The other thresholds need no promise: they lie
between the right pairs and the wrong ones of `python -m benchmarks.audit`, whose table is in
docs/concepts/features.md. Two of its checks compare the SAE with itself elsewhere: at the hooks of
the layers around it, and with a BOS more or less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from sae_lens import SAE

from saelens_steer.activations import keep_ordinary, without_sinks
from saelens_steer.config import TINY
from saelens_steer.data import load_corpus, load_prompts
from saelens_steer.errors import InputError
from saelens_steer.model import default_hook_name, hook_layer
from saelens_steer.model.model_class import Model, is_bridge, tokenizer_of
from saelens_steer.sae.fit import fit_figures
from saelens_steer.sae.load import check_sae_at
from saelens_steer.sae.promises import Promises, promises
from saelens_steer.sae.quality import packed_contexts
from saelens_steer.tensors import Mask, Resid, Tokens, Vectors

N_TOKENS, CONTEXT = 640, 128
"""Tokens read, and tokens in each context."""
FEWEST = 100
"""Tokens below which figures are too uncertain to alarm."""
PLAIN = ("transport-topic", "code-math-domains")
"""The shipped prompts that are read as plain text, unless texts are given."""
EARLY = 8
"""Positions 1 to EARLY − 1 are also measured apart: they differ most from the rest."""
MAX_NORM = 10.0
"""As in training, attention sinks are vectors over this multiple of the median norm."""
REACH = 3
"""Layers above and below whose hooks are tried."""
WORK = 2e12
"""Floating-point operations for these trials, which decides how many tokens they get."""
STREAM = ("hook_resid_pre", "hook_mlp_out", "hook_attn_out")

EXPLAINED = 0.3
"""Least explained variance."""
SLOPE = (0.8, 1.3)
"""Range of the slope of x on x̂: an L1 penalty shrinks x̂, so it may lie further above 1."""
BIAS = 0.2
"""Largest ‖mean (x − x̂)‖, in standard deviations of x."""
DENSEST = 0.5
"""Largest L0 as a share of d_in."""
BETTER = 1.15
"""Unexplained variance relative to that at another hook, or with another BOS."""
UNEXPLAINED = 1.5
"""Unexplained variance relative to the promised one."""
L0_FACTOR, NORM_FACTOR = 1.75, 1.5
"""Factors by which L0 and the mean ‖x‖ may differ from the promised ones."""


@dataclass(frozen=True)
class Audit:
    """The fit of an SAE: figures, failures and what was not audited."""

    figures: Mapping[str, float] = field(default_factory=dict)
    """As in `fit_figures`; early_* at positions 1 to 7, first_norm at position 0, promised_*."""
    failures: tuple[str, ...] = ()
    """One sentence for each check that failed; empty if the SAE fits."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that was not audited."""

    @property
    def passed(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        known = self.figures
        about = []
        if "explained_variance" in known:
            about.append(
                f"the SAE explains {_percent(known['explained_variance'])} of the variance of "
                f"{known['n_tokens']:,} tokens at L0 {known['l0']:.3g}"
            )
        return "; ".join([*self.failures, *about, *self.notes])


@torch.no_grad()
def audit(
    model: Model | None,
    sae: SAE[Any],
    hook_name: str | None = None,
    texts: Iterable[str] | None = None,
    *,
    promised: Promises | None = None,
    activations: Vectors | None = None,
    target: Vectors | None = None,
) -> Audit:
    """Measure how well an SAE fits a model's activations at a hook, on a few hundred tokens.

    `hook_name`: by default the SAE's own, then the middle layer's. `texts`: by default shipped
    ones. `promised`: what is known of the SAE's training (default: what its own config states).
    `activations` [n, d_in] replace those of the model, and then the SAE is not tried elsewhere;
    `target` [n, d_out] is what a transcoder should give. Position 0, special tokens and attention
    sinks are left out. Raises InputError for an SAE of another width or hook, and for texts that
    fill no context.
    """
    stated = promises(sae) if promised is None else promised
    if failures := tuple(_broken(sae)):
        return Audit(failures=failures)
    if sae.cfg.metadata.decoder_only:
        return Audit(notes=("it has no encoder, so its fit was not audited",))
    if "transcoder" in sae.cfg.architecture() and target is None:
        return Audit(notes=("its output was not given, so the fit was not audited",))
    if activations is not None or model is None:
        if activations is None:
            raise InputError("an audit needs a model, or activations [n, d_in]")
        return judged_fit(fit_figures(sae, activations, target), stated)
    name = hook_name or sae.cfg.metadata.hook_name or default_hook_name(model)
    if not str(name).endswith((*STREAM, "hook_resid_post", "hook_resid_mid")):
        return Audit(notes=(f"activations at {name} were not given, so the fit was not audited",))
    check_sae_at(sae, model.cfg.d_model, str(name))
    size = min(CONTEXT, model.cfg.n_ctx)
    tokens = packed_contexts(model, texts or shipped_texts(model), size)[: N_TOKENS // size]
    return audit_tokens(model, sae, str(name), tokens, stated)


def shipped_texts(model: Model) -> list[str]:
    """The first chats of the corpus `tiny` for tiny-qwen3, which knows nothing else; for other
    models the shipped prompts, as plain text."""
    if model.cfg.model_name == TINY:
        return list(load_corpus(TINY, tokenizer_of(model), 2 * N_TOKENS, 0)["text"])
    return [prompt.text + "\n" for name in PLAIN for prompt in load_prompts(name)]


@torch.no_grad()
def audit_tokens(
    model: Model, sae: SAE[Any], hook_name: str, tokens: Tokens, promised: Promises
) -> Audit:
    """Audit an SAE on tokens [batch, pos] without padding, as the model will read them."""
    found = _Sites(model, sae, hook_name, tokens)
    figures = found.figures()
    audited = judged_fit(figures, promised)
    if figures["n_tokens"] < FEWEST:
        return audited
    elsewhere = [*found.at_other_hooks(), *found.with_other_bos()]
    return Audit(audited.figures, (*elsewhere, *audited.failures), audited.notes)


def judged_fit(figures: Mapping[str, Any], promised: Promises) -> Audit:
    """The audit of figures from `fit_figures`, without trials elsewhere."""
    numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    numbers |= {f"promised_{key}": value for key, value in promised.items()}
    if numbers["n_tokens"] < FEWEST:
        few = f"{numbers['n_tokens']} tokens are too few to audit the fit (at least {FEWEST})"
        return Audit(numbers, notes=(few,))
    return Audit(numbers, tuple(_failures(numbers, promised)))


def _broken(sae: SAE[Any]) -> Iterator[str]:
    """Weights that are not finite; those of a missing encoder are NaN on purpose."""
    for name, weight in sae.named_parameters():
        missing = sae.cfg.metadata.decoder_only and name == "W_enc"
        if not missing and not bool(weight.isfinite().all()):
            yield f"its {name} has values that are not finite: the file or its dtype is damaged"


def _failures(figures: Mapping[str, float], promised: Promises) -> Iterator[str]:
    explained, l0 = figures["explained_variance"], figures["l0"]
    if not explained >= EXPLAINED:
        yield (
            f"it explains {_percent(explained)} of the variance, and SAEs that fit explain at "
            f"least {_percent(EXPLAINED)}: check model, hook and normalisation"
        )
    elif (known := promised.get("explained_variance")) and _more(explained, known, UNEXPLAINED):
        yield (
            f"it explains {_percent(explained)} of the variance, but {_percent(known)} in "
            "training: check that the model is the one it was trained on, not a base model or a "
            "fine-tuned one"
        )
    if (known := promised.get("l0")) and not _within(l0, known, L0_FACTOR):
        yield (
            f"{l0:.3g} features are active per token, and {known:.3g} were promised: check k, "
            "threshold, architecture and the scale of the input"
        )
    elif l0 > DENSEST * figures["d_in"] or l0 == 0:
        yield (
            f"{l0:.3g} features are active per token at a width of {figures['d_in']}, which no "
            "SAE that fits has: check threshold and architecture"
        )
    if (known := promised.get("mean_norm")) and not _within(
        figures["mean_norm"], known, NORM_FACTOR
    ):
        yield (
            f"the mean norm of its input is {figures['mean_norm']:.3g}, but was {known:.3g} in "
            "training: check the scale of the input, and the hook"
        )
    yield from _unbalanced(figures)


def _unbalanced(figures: Mapping[str, float]) -> Iterator[str]:
    low, high = SLOPE
    if not low <= (slope := figures["slope"]) <= high:
        yield (
            f"its output should be multiplied by {slope:.2g} to fit best: check the scale of the "
            "input, k and the norms of W_dec"
        )
    if not figures["bias"] <= BIAS:
        yield (
            f"the mean of its output is off by {figures['bias']:.2g} standard deviations of x: "
            "check b_dec, apply_b_dec_to_input and the scale of the input"
        )


def _more(explained: float, known: float, factor: float) -> bool:
    """Whether more is left unexplained than `factor` times what was with `known`."""
    return 1 - explained > factor * (1 - known)


def _within(value: float, known: float, factor: float) -> bool:
    return known / factor <= value <= known * factor


class _Sites:
    """The fit of one SAE on the same tokens, at its hook and elsewhere."""

    def __init__(self, model: Model, sae: SAE[Any], hook_name: str, tokens: Tokens) -> None:
        self.model, self.sae, self.hook_name = model, sae, hook_name
        self.tokens = tokens.to(model.cfg.device)
        self.read = _read(model, self.tokens, [hook_name, *self._other_hooks()])
        self.kept, self.sinks = self._ordinary(self.tokens, self.read[hook_name])

    def _other_hooks(self) -> list[str]:
        """The stream's hooks in the layers around, without other names of the same place."""
        layer, last = hook_layer(self.hook_name), self.model.cfg.n_layers - 1
        layers = range(max(0, layer - REACH), min(last, layer + REACH) + 1)
        names = [f"blocks.{i}.{name}" for i in layers for name in STREAM]
        if layers[-1] == last:
            names.append(f"blocks.{last}.hook_resid_post")
        return [name for name in names if name in self.model.hook_dict]

    def _ordinary(self, tokens: Tokens, resid: Resid) -> tuple[Mask, int]:
        """Which positions count, and how many attention sinks do not."""
        ordinary = keep_ordinary(tokens, self.model.tokenizer)
        ordinary[:, 0] = False
        kept = ordinary.clone()
        kept[ordinary] = without_sinks(resid[ordinary], MAX_NORM)
        return kept, int((ordinary & ~kept).sum())

    def figures(self) -> dict[str, Any]:
        """The figures at the SAE's hook, with those of early positions and the first norm."""
        resid = self.read[self.hook_name].float()
        found = fit_figures(self.sae, resid[self.kept]) | {"sinks_dropped": self.sinks}
        early = self.kept.clone()
        early[:, EARLY:] = False
        if int(early.sum()) > 1:
            own = fit_figures(self.sae, resid[early])
            found |= {f"early_{key}": own[key] for key in ("explained_variance", "l0")}
        return found | {"first_norm": float(resid[:, 0].norm(dim=-1).mean())}

    def at_other_hooks(self) -> Iterator[str]:
        """A failure if another hook around is explained clearly better."""
        size = self._trial_size(len(self.read))
        fits = {name: self._explained(x, self.kept, size) for name, x in self.read.items()}
        own = fits.pop(self.hook_name)
        best = max(fits, key=lambda name: fits[name], default=None)
        if best is not None and fits[best] > 0 and _more(own, fits[best], BETTER):
            yield (
                f"it explains {_percent(fits[best])} of the variance at {best}, but "
                f"{_percent(own)} at {self.hook_name}: check the hook"
            )

    def with_other_bos(self) -> Iterator[str]:
        """A failure if the same tokens are explained clearly better with or without a BOS."""
        bos = self.model.tokenizer.bos_token_id
        if bos is None:
            return
        begins = int((self.tokens[:, :2] == bos).all(0).cumprod(0).sum())
        rest = self.tokens[:, begins:-1]  # the last token makes room for another BOS
        size = self._trial_size(3)
        fits = {n: self._with_bos(rest, bos, n, size) for n in sorted({0, 1, begins})}
        best = max(fits, key=lambda n: fits[n])
        if fits[best] > 0 and _more(fits[begins], fits[best], BETTER):
            yield (
                f"it explains {_percent(fits[best])} of the variance of texts with {best} BOS "
                f"tokens before them, but {_percent(fits[begins])} with {begins} as here: check "
                "how texts are tokenized"
            )

    def _with_bos(self, rest: Tokens, bos: int, n: int, size: int) -> float:
        tokens = torch.nn.functional.pad(rest, (n, 0), value=bos)
        resid = _read(self.model, tokens, [self.hook_name])[self.hook_name][:, n:]
        kept, _ = self._ordinary(rest, resid)
        return self._explained(resid, kept, size)

    def _explained(self, resid: Resid, kept: Mask, size: int) -> float:
        return fit_figures(self.sae, resid[kept][:size])["explained_variance"]

    def _trial_size(self, trials: int) -> int:
        """Tokens for each of several trials, so that all of them stay within WORK."""
        per_token = 4 * self.sae.cfg.d_in * self.sae.cfg.d_sae
        return max(FEWEST, int(WORK / (per_token * trials)))


def _read(model: Model, tokens: Tokens, names: Sequence[str]) -> dict[str, Resid]:
    """The activations at several hooks, in one pass up to the highest layer."""
    extra: dict[str, Any] = {"logits_to_keep": 1} if is_bridge(model) else {}
    _, cache = model.run_with_cache(
        tokens,
        names_filter=lambda name: name in names,
        stop_at_layer=max(map(hook_layer, names)) + 1,
        return_cache_object=False,
        **extra,
    )
    return {name: cache[name] for name in names if name in cache and cache[name].ndim == 3}


def _percent(share: float) -> str:
    return "an unknown part" if math.isnan(share) else f"{100 * share:.0f} %"
