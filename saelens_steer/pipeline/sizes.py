"""Estimates of a run's tables, texts and weights, to refuse what no machine holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from saelens_steer.config import RunSpec, check_rows, check_texts
from saelens_steer.errors import InputError
from saelens_steer.pipeline.case import RunPrompts


def absurd_sizes(
    spec: RunSpec, prompts: RunPrompts, texts: bool, d_sae: int | None
) -> Iterator[str]:
    """Why parts of a run exceed the memory; `texts`: whether a metric reads them.

    `d_sae` bounds the number of features; without it, only what is certain is estimated.
    """
    label, patched, traded = spec.label, spec.compare_edits, spec.tradeoffs
    n_steered = len(prompts.steered)

    def most(k: int) -> int:
        """The features that the best k of each side can be."""
        return 1 if d_sae is None else min(2 * k, d_sae)

    checks: list[Callable[[], None]] = []
    if spec.sae.train:
        checks.append(spec.sae.train.check_size)
    checks.append(partial(spec.sweep.check_size, n_steered, texts, _tested(spec, most)))
    if label:
        n_features = most(spec.select.k) + len({*spec.sweep.named, *spec.features.also})
        checks.append(partial(label.check_size, n_features, len(prompts.label)))
    if patched:
        few = min(n_steered, patched.limit or n_steered)
        checks.append(partial(patched.check_size, few, len(patched.variants)))
    if compared := spec.compare_directions:
        n = len(compared.methods) * most(compared.k) * 2 * n_steered
        factors = "methods × features of compare_directions × norm and KL × prompts"
        instead = "lower compare_directions.k, or give fewer prompts"
        checks.append(partial(check_rows, n, factors, instead))
    if traded:
        treatments = len(traded.directions) * most(traded.top) * len(traded.edits)
        n = treatments * (len(traded.alphas) + 1) * len(prompts.tradeoffs)
        factors = "directions × edits × alphas × prompts of tradeoffs"
        instead = "lower tradeoffs.top or limit, or give fewer directions, edits or alphas"
        checks.append(partial(check_rows, n, factors, instead))
        if texts and (length := traded.max_new_tokens):
            checks.append(partial(check_texts, n, length, factors, instead))
    for check in checks:
        try:
            check()
        except InputError as error:
            yield str(error)


def _tested(spec: RunSpec, most: Callable[[int], int]) -> int:
    """Upper bound on the number of directions that the sweep tests."""
    sweep = spec.sweep
    if sweep.directions is None:
        return len(sweep.named) or most(spec.select.k)
    return sum(1 if isinstance(one, int) else most(sweep.top) for one in sweep.directions)
