"""The origin of a run: versions, hashes, seeds, token sets."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from saelens_steer.data import Prompt, prompts_hash, written_date
from saelens_steer.files import read_json
from saelens_steer.metrics import metric_provenance
from saelens_steer.model import REMEMBERED, model_provenance
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.sae import AUDIT, QUALITY, sae_fingerprint
from saelens_steer.version import __version__

if TYPE_CHECKING:
    from saelens_steer.pipeline.context import RunContext
    from saelens_steer.sweeps import Measurement

LIBRARIES = (
    *("torch", "transformer-lens", "sae-lens", "transformers", "tokenizers", "datasets"),
    *("numpy", "scipy", "pandas"),
)

_version = cache(version)
"""The version of a library, which takes the parsing of a file."""


def library_versions() -> dict[str, str]:
    """Versions of this package and of the libraries that affect the numbers."""
    return {"saelens-steer": __version__, **{name: _version(name) for name in LIBRARIES}}


def measured_on(measurement: Measurement) -> dict[str, Any]:
    """What identifies the inputs of a sweep without a run folder."""
    model, sae, start = measurement.model, measurement.sae, measurement.start
    specs, tokenizer = measurement.metric_specs, tokenizer_of(model)
    about = None
    if sae is not None:
        source = sae.cfg.metadata.neuronpedia_id or sae.cfg.metadata.hook_name
        about = {"source": source, "d_sae": sae.cfg.d_sae, "architecture": sae.cfg.architecture()}
    return {
        **_software(),
        "device": str(model.cfg.device),
        "model": _model(model),
        "hook_name": measurement.hook_name,
        "sae": about,
        "special_tokens": None if start is None else start.record(tokenizer),
        **_dated(written_date(tokenizer, measurement.prompts, measurement.template)),
        "prompts": {"hash": prompts_hash(measurement.prompts), "n": len(measurement.prompts)},
        "token_sets": metric_provenance(specs, tokenizer, model.cfg.d_vocab),
        "seeds": {"sweep": measurement.spec.seed},
    }


def _model(model: Model) -> dict[str, Any]:
    """What identifies the model, whether this load proved it or an earlier one did.

    So a rerun changes no byte.
    """
    about = model_provenance(model)
    proof = about.get("proof")
    return about if proof is None else about | {"proof": proof.removesuffix(REMEMBERED)}


def _dated(date: str | None) -> dict[str, str]:
    """The date in prompts, if the chat template writes today's."""
    return {} if date is None else {"date_in_prompts": date}


def _software() -> dict[str, Any]:
    versions = library_versions()
    return {
        "saelens_steer": versions.pop("saelens-steer"),
        "python": platform.python_version(),
        "packages": versions,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def provenance(run: RunContext, sae_is_made: bool) -> dict[str, Any]:
    """The content of provenance.json, with the SAE's hash once the SAE is made."""
    spec, model = run.spec, run.model
    train, folder = spec.sae.train, run.folder.path("sae")
    sae = spec.sae.model_dump(exclude_none=True)

    def kept(name: str) -> dict[str, Any]:
        return read_json(run.folder.path(name)) if run.folder.has(name) else {}

    sae["hash"] = sae_fingerprint(folder) if sae_is_made else None
    if audited := kept(f"sae/{AUDIT}") if sae_is_made else {}:
        sae["audit"] = audited
    start = run.start
    if resumed := kept(f"sae/{QUALITY}").get("resumed_at_tokens"):
        sae["resumed_at_tokens"] = resumed
    return {
        **_software(),
        "device": str(model.cfg.device),
        "model": _model(model),
        "hook_name": run.hook_name,
        "sae": sae,
        "special_tokens": None if start is None else start.record(tokenizer_of(model)),
        **_dated(run.written_date),
        "prompts": _about(spec.prompts.source, run.prompts),
        "selection_prompts": _about(spec.select.prompts, run.selection_prompts),
        "token_sets": metric_provenance(spec.metrics, tokenizer_of(model), model.cfg.d_vocab),
        "seeds": {"sweep": spec.sweep.seed, **({"sae": train.seed} if train else {})},
        "halved_batches": [n for own in run.halved.values() for n in own.values()],
    }


def _about(source: str, prompts: Sequence[Prompt]) -> dict[str, Any]:
    return {"source": source, "hash": prompts_hash(prompts), "n": len(prompts)}
