"""What can be wrong with a run and is found before any of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelens_steer.data import load_corpus
from saelens_steer.errors import InputError
from saelens_steer.model import check_stream
from saelens_steer.near import or_known
from saelens_steer.sae import check_encoder, check_feature, check_sae

if TYPE_CHECKING:
    from saelens_steer.stages.run import Run


def check_run(run: Run) -> None:
    """Raise InputError for a prompt, domain, feature, hook or corpus that will not do."""
    run.study().check()
    _check_domains(run)
    _check_patch(run)
    _check_sae(run)


def _check_domains(run: Run) -> None:
    select = run.spec.select
    known = sorted({p.domain for p in run.selecting})
    for domain in (select.positive, select.negative):
        if domain not in known:
            raise InputError(
                f"{select.prompts} has no prompt of domain {domain!r}; "
                f"its domains are {', '.join(known)}"
            )


def _check_patch(run: Run) -> None:
    sides = (run.spec.select.positive, run.spec.select.negative)
    for edit in run.spec.patch.edits if run.spec.patch else ():
        given = getattr(edit.inner, "features", ())
        if isinstance(given, str) and given not in sides:
            raise InputError(
                f"patch: no candidates are chosen for {given!r}; {or_known(given, sides)}"
            )
        check_stream(run.model, edit.inner.hook_name or run.hook_name)


def _check_sae(run: Run) -> None:
    if train := run.spec.sae.train:
        load_corpus(train.corpus, run.model.tokenizer, 1, train.seed)  # is there a text?
        for feature in run.spec.named_features:
            if not 0 <= feature < train.d_sae:
                raise InputError(
                    f"feature {feature} is out of range: the SAE will have 0 to {train.d_sae - 1}"
                )
        return
    sae = run.load_sae()
    check_sae(sae, run.model, run.hook_name)
    for feature in run.spec.named_features:
        check_feature(sae, feature)
    patched = run.spec.patch.edits if run.spec.patch else []
    if not run.spec.sweep.named or any(edit.encodes for edit in patched):
        check_encoder(sae)
