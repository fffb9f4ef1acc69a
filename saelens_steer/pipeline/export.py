"""Files for others: steering vectors of a finished run, and prompts with continuations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saelens_steer.activations import with_answers
from saelens_steer.config import RunSpec
from saelens_steer.data import load_prompts
from saelens_steer.errors import InputError
from saelens_steer.files import write_jsonl
from saelens_steer.model import load_model
from saelens_steer.progress import progress, say
from saelens_steer.report import read_mapping, side_names
from saelens_steer.sae import check_feature, load_sae
from saelens_steer.steering import file_kind, save_vectors


def export_vectors(
    run_dir: str | Path, file: str | Path, features: Sequence[int] = (), alpha: float = 1.0
) -> Path:
    """Write α · W_dec[f] of a run's candidates, or of the features named; returns the file.

    The model itself is not needed. Raises InputError where the folder holds no SAE or no choice of
    features, for an unknown feature, and unless a .gguf file gets exactly one.
    """
    folder, file = Path(run_dir), Path(file)
    if not math.isfinite(alpha):
        raise InputError(f"alpha should be a finite number, not {alpha}")
    kind = file_kind(file)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    known = read_mapping(folder / "features.json")
    chosen = list(dict.fromkeys(features or _candidates(known)))
    if not chosen:
        raise InputError(
            f"{folder} names no candidates: run the selection there, or give --feature"
        )
    if kind == ".gguf" and len(chosen) > 1:
        raise InputError(
            f"a .gguf file holds one vector a layer, not {len(chosen)}: name one with --feature"
        )
    if not (folder / "sae").is_dir():
        raise InputError(f"{folder} holds no SAE: there is no folder {folder / 'sae'}")
    sae, about = load_sae(folder / "sae"), read_mapping(folder / "provenance.json")
    rows = {f"feature_{f}": sae.W_dec[check_feature(sae, f)].detach().float() for f in chosen}
    return save_vectors(
        file,
        {name: row * alpha for name, row in rows.items()},
        _hook_name(known, about, sae),
        model=str(about.get("model", {}).get("name") or "unknown"),
        about={f"feature_{f}": {"feature": f, "alpha": alpha} for f in chosen},
    )


def _candidates(known: dict[str, Any]) -> list[int]:
    """The candidates of features.json, the positive side first."""
    return [f for side in side_names(known) for f in known.get(f"{side}_candidates", [])]


def _hook_name(known: dict[str, Any], about: dict[str, Any], sae: Any) -> str:
    """Where the run steers: what it wrote down, or where its SAE belongs."""
    found = known.get("hook_name") or about.get("hook_name") or sae.cfg.metadata.hook_name
    if not found:
        raise InputError("neither the run nor its SAE says which hook it belongs to")
    return found


TOPIC = "tiny-transport-topic"
"""Prompts continued if the config names no selection prompts (tiny model only)."""


def generate_topic(spec: RunSpec, out: str | Path) -> Path:
    """Write id, text, domain and answer of each selection prompt to a .jsonl file.

    The answer is the model's greedy continuation of select.answer_tokens tokens, or fewer where it
    stops. As `select.prompts` the file is used as it is, without asking the model again. Raises
    InputError where `out` is no .jsonl file, or where all prompts have an answer already.
    """
    if Path(out).suffix != ".jsonl":
        raise InputError(f"--out must be a .jsonl file, not {out}")
    source = spec.select.prompts if "prompts" in spec.select.model_fields_set else TOPIC
    prompts = load_prompts(source)
    missing = sum(not prompt.answer for prompt in prompts)
    if not missing:
        raise InputError(
            f"all prompts of {source} have an answer already: nothing is to be written"
        )
    m, options = spec.model, {"batch_size": spec.activations.batch_size, **spec.template}
    model = load_model(m.name, model_class=m.class_, dtype=m.dtype, device=m.device)
    with progress("continuations", missing) as note:
        answered = with_answers(model, prompts, spec.select.answer_tokens, note=note, **options)
    if empty := sum(not prompt.answer for prompt in answered):
        say(f"{empty} of {missing} continuations are empty: there the model stopped at once")
    return write_jsonl(Path(out), [asdict(prompt) for prompt in answered])
