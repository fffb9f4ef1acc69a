"""What can be wrong with a run and is found before any of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelens_steer.data import load_corpus
from saelens_steer.errors import InputError
from saelens_steer.model import check_stream, same_places
from saelens_steer.near import or_known
from saelens_steer.patching import check_patchable
from saelens_steer.sae import check_encoder, check_feature, check_sae

if TYPE_CHECKING:
    from saelens_steer.stages.run import Run


def check_run(run: Run) -> None:
    """Raise InputError for a prompt, domain, feature, hook or corpus that will not do."""
    run.study().check()
    _check_domains(run)
    _check_texts(run)
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


def _check_texts(run: Run) -> None:
    if run.spec.sweep.generate.files and not run.study().text_metrics:
        raise InputError(
            "sweep.generate.files needs completions, which come with a metric of texts: add one "
            "such as latex_first or mentions to metrics"
        )


def _check_patch(run: Run) -> None:
    if run.spec.patch is None:
        return
    check_patchable(run.model, run.study().encoded[: run.spec.patch.limit], run.spec.patch)
    sides = (run.spec.select.positive, run.spec.select.negative)
    for edit in run.spec.patch.edits:
        given = getattr(edit.inner, "features", ())
        if isinstance(given, str) and given not in sides:
            raise InputError(
                f"patch: no candidates are chosen for {given!r}; {or_known(given, sides)}"
            )
        check_stream(run.model, edit.inner.hook_name or run.hook_name)


def _check_sae(run: Run) -> None:
    patched = run.spec.patch.edits if run.spec.patch else []
    encoded_at = {edit.inner.hook_name or run.hook_name for edit in patched if edit.encodes}
    if train := run.spec.sae.train:
        load_corpus(train.corpus, run.model.tokenizer, 1, train.seed)  # is there a text?
        for feature in run.spec.named_features:
            if not 0 <= feature < train.d_sae:
                raise InputError(
                    f"feature {feature} is out of range: the SAE will have 0 to {train.d_sae - 1}"
                )
        for hook_name in encoded_at - {*same_places(run.hook_name)}:
            raise InputError(
                f"patch: the SAE will be trained at {run.hook_name}, so it cannot encode at "
                f"{hook_name}: leave hook_name out, or use add or project_out there"
            )
        return
    sae = run.load_sae()
    check_sae(sae, run.model, run.hook_name)
    for feature in run.spec.named_features:
        check_feature(sae, feature)
    for hook_name in sorted(encoded_at):
        check_sae(sae, run.model, hook_name)
    in_a_max = run.spec.sweep.alpha_unit == "max_act"
    if not run.spec.sweep.named or in_a_max or any(edit.needs_encoder for edit in patched):
        check_encoder(sae)
