"""Does an SAE fit the model, the hook and the tokens that it is used with?

`audit` measures the fit on a few hundred tokens before any steering. Besides making the checks of
`misfit.py`, it compares the fit with that at hooks of nearby layers, and with other numbers of BOS
tokens. An SAE explains its own hook clearly best, whatever figures are stated for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sae_lens import SAE

from saelens_steer.activations import Activations, keep_ordinary, without_sinks
from saelens_steer.config import TINY, TINY_CORPUS
from saelens_steer.data import bos_id, listed_texts, load_corpus, load_prompts, token_ids
from saelens_steer.errors import InputError
from saelens_steer.model import (
    check_readable,
    check_steerable,
    default_hook_name,
    flat,
    hook_layer,
    hook_width,
    in_block,
)
from saelens_steer.model.hooks import HEADS
from saelens_steer.model.model_class import Model, is_bridge, tokenizer_of
from saelens_steer.numbers import count, percent
from saelens_steer.sae.finite import unfinite
from saelens_steer.sae.fit import fit_figures
from saelens_steer.sae.misfit import (
    BETTER,
    BETTER_BOS,
    FEWEST,
    Audit,
    judged_fit,
    more_unexplained,
    too_few,
)
from saelens_steer.sae.promises import Promises, promises
from saelens_steer.sae.quality import packed_contexts
from saelens_steer.sae.sites import check_sae, check_sae_at, is_transcoder, reads_at, steers_at
from saelens_steer.tensors import Mask, Resid, Tokens, Vectors

N_TOKENS, CONTEXT = 640, 128
"""Tokens read, and tokens in each context."""
PLAIN = ("transport-topic", "code-math-domains")
"""The shipped prompts that are read as plain text, unless texts are given."""
EARLY = 8
"""Positions 1 to EARLY − 1 are also measured separately: they differ most from the rest."""
MAX_NORM = 10.0
"""As in training, attention sinks are vectors over this multiple of the median norm."""
REACH = 3
"""Layers above and below whose hooks are tried."""
WORK = 2e12
"""Budget of floating-point operations for these trials, which limits their tokens."""
STREAM = ("hook_resid_pre", "hook_mlp_out", "hook_attn_out")


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

    `hook_name`: by default the SAE's own. `texts`: by default `shipped_texts`. `promised`: figures
    stated for the SAE (default: those in its own config). `activations` [n, d_in] replace those of
    the model; the SAE is then not tried elsewhere. `target` [n, d_out] is what a transcoder should
    output. Position 0, special tokens and attention sinks are left out. Raises InputError for an
    SAE of another width or hook, and for texts that fill no context.
    """
    stated = promises(sae) if promised is None else promised
    if failures := tuple(_broken(sae)):
        return Audit(failures=failures)
    name = hook_name or (None if model is None else reads_at(sae))
    if model is not None and name is not None:
        _check_place(model, sae, name)
    if sae.cfg.metadata.decoder_only:
        return Audit(notes=("it has no encoder, so its fit was not audited",))
    if is_transcoder(sae) and target is None:
        return Audit(notes=("its output was not given, so the fit was not audited",))
    if activations is not None or model is None:
        if activations is None:
            raise InputError("an audit needs a model, or activations [n, d_in]")
        if len(activations) < FEWEST:
            return too_few(len(activations))
        return judged_fit(fit_figures(sae, activations, target), stated)
    if name is None:
        raise InputError(
            "the SAE does not say which hook it reads: give it as hook_name=, "
            f"for example {default_hook_name(model)!r}"
        )
    tokens = _contexts(model, sae, shipped_texts(model) if texts is None else texts)
    return audit_tokens(model, sae, name, tokens, stated)


def _check_place(model: Model, sae: SAE[Any], name: str) -> None:
    """Raise InputError unless the model has the SAE's hooks, and they have its widths."""
    if not is_transcoder(sae):
        check_sae(sae, model, check_steerable(model, name))
        return
    check_sae_at(sae, hook_width(model, check_readable(model, name)), name)
    if (writes := steers_at(sae)) is not None:
        check_sae(sae, model, check_steerable(model, writes))


def _contexts(model: Model, sae: SAE[Any], texts: Iterable[str]) -> Tokens:
    """About N_TOKENS tokens of the texts, in one shorter context if there are fewer."""
    texts = listed_texts(texts)
    n = sum(len(token_ids(tokenizer_of(model), text)) for text in texts)
    size = max(1, min(CONTEXT, model.cfg.n_ctx, n))
    return packed_contexts(model, texts, size, sae)[: max(1, N_TOKENS // size)]


def audit_cached(sae: SAE[Any], activations: Activations) -> Audit:
    """Audit an SAE on activations that were cached at its hook, without another pass.

    It reads tokens spread evenly over the prompts, without position 0 and attention sinks. A cache
    of chosen tokens is not audited: an SAE that fits may explain little of how they differ.
    """
    if activations.tokens != "all":
        return Audit(
            notes=("the activations might not cover all tokens, so the fit was not audited",)
        )
    later = np.flatnonzero(activations.index["position"].to_numpy() > 0)
    n = min(N_TOKENS, len(later))
    rows = later[np.linspace(0, len(later) - 1, n).astype(int)] if n else later
    vectors = activations.take(torch.from_numpy(rows))
    return audit(None, sae, activations=vectors[without_sinks(vectors, MAX_NORM)])


def shipped_texts(model: Model) -> list[str]:
    """The first chats of the corpus `tiny` for tiny-qwen3, which knows nothing else; for other
    models the shipped prompts, as plain text."""
    if model.cfg.model_name == TINY:
        return list(load_corpus(TINY_CORPUS, tokenizer_of(model), 2 * N_TOKENS, 0)["text"])
    return [prompt.text + "\n" for name in PLAIN for prompt in load_prompts(name)]


@torch.no_grad()
def audit_tokens(
    model: Model, sae: SAE[Any], hook_name: str, tokens: Tokens, promised: Promises
) -> Audit:
    """Audit an SAE on tokens [batch, pos] without padding, as the model will read them.

    Raises InputError for a hook that the model does not have.
    """
    check_steerable(model, hook_name)
    found = _Sites(model, sae, hook_name, tokens)
    if (n := int(found.kept.sum())) < FEWEST:
        return too_few(n)
    audited = judged_fit(found.figures(), promised)
    elsewhere = [*found.at_other_hooks(), *found.with_other_bos()]
    return Audit(audited.figures, (*elsewhere, *audited.failures), audited.notes)


def _broken(sae: SAE[Any]) -> Iterator[str]:
    """A sentence for each weight that is not finite."""
    for name, _ in unfinite(sae):
        yield (
            f"its {name} has values that are not finite: the file is damaged, or its dtype too "
            "narrow"
        )


class _Sites:
    """The fit of one SAE on the same tokens, at its hook and elsewhere."""

    def __init__(self, model: Model, sae: SAE[Any], hook_name: str, tokens: Tokens) -> None:
        self.model, self.sae, self.hook_name = model, sae, hook_name
        self.tokens = tokens.to(model.cfg.device)
        self.read = read_hooks(model, self.tokens, [hook_name, *self._other_hooks()])
        self.kept, self.sinks = self._ordinary(self.tokens, self.read[hook_name])

    def _other_hooks(self) -> list[str]:
        """The hooks of the same kind in nearby layers, without aliases of the same activation."""
        layer, last = hook_layer(self.hook_name), self.model.cfg.n_layers - 1
        heads = in_block(self.hook_name) == HEADS
        layers = range(max(0, layer - REACH), min(last, layer + REACH) + 1)
        names = [f"blocks.{i}.{name}" for i in layers for name in ((HEADS,) if heads else STREAM)]
        if layers[-1] == last and not heads:
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
        """A failure if a nearby hook is explained clearly better, both as it is and up to scale.

        Later hooks have larger activations. More features then pass a threshold, which looks better
        only up to scale, and an L1 penalty shrinks x̂ less, which looks better only as it is.
        """
        size = self._trial_size(len(self.read))
        fits = {name: self._fit(x, self.kept, size) for name, x in self.read.items()}
        own = fits.pop(self.hook_name)
        best = max(fits, key=lambda name: fits[name]["explained_variance"], default=None)
        kinds = ("explained_variance", "aligned")
        if best is not None and all(
            more_unexplained(own[kind], fits[best][kind], BETTER) for kind in kinds
        ):
            found, here = (percent(fit["explained_variance"]) for fit in (fits[best], own))
            yield (
                f"it explains {found} of the variance at {best}, but {here} at {self.hook_name}: "
                "check the hook"
            )

    def with_other_bos(self) -> Iterator[str]:
        """A failure if the same tokens are explained clearly better with or without BOS."""
        bos = bos_id(tokenizer_of(self.model))
        if bos is None:
            return
        begins = int(self.tokens[:, :2].eq(bos).all(0).cumprod(0).sum())
        rest = self.tokens[:, begins:-1]  # the last token makes room for another BOS
        size = self._trial_size(3)
        fits = {n: self._with_bos(rest, bos, n, size) for n in sorted({0, 1, begins})}
        best = max(fits, key=lambda n: fits[n])
        if fits[best] > 0 and more_unexplained(fits[begins], fits[best], BETTER_BOS):
            yield (
                f"it explains {percent(fits[best])} of the variance of texts with "
                f"{count(best, 'BOS token')} before them, but {percent(fits[begins])} with "
                f"{begins}, as here: check how texts are tokenized"
            )

    def _with_bos(self, rest: Tokens, bos: int, n: int, size: int) -> float:
        tokens = torch.nn.functional.pad(rest, (n, 0), value=bos)
        resid = read_hooks(self.model, tokens, [self.hook_name])[self.hook_name][:, n:]
        kept, _ = self._ordinary(rest, resid)
        return self._fit(resid, kept, size)["explained_variance"]

    def _fit(self, resid: Resid, kept: Mask, size: int) -> dict[str, Any]:
        """The figures without this hook's own sinks, which could be most of the variance."""
        vectors = resid[kept][:size]
        return fit_figures(self.sae, vectors[without_sinks(vectors, MAX_NORM)])

    def _trial_size(self, trials: int) -> int:
        """Tokens for each of several trials, so that all of them stay within WORK."""
        per_token = 4 * self.sae.cfg.d_in * self.sae.cfg.d_sae
        return max(FEWEST, int(WORK / (per_token * trials)))


def read_hooks(model: Model, tokens: Tokens, names: Sequence[str]) -> dict[str, Resid]:
    """The activations at several hooks, in one pass up to the highest layer."""
    extra: dict[str, Any] = {"logits_to_keep": 1} if is_bridge(model) else {}
    _, cache = model.run_with_cache(
        tokens,
        names_filter=lambda name: name in names,
        stop_at_layer=max(map(hook_layer, names)) + 1,
        return_cache_object=False,
        **extra,
    )
    return {name: flat(name, cache[name]) for name in names if name in cache}
