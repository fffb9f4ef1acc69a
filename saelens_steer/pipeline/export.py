"""Export steering vectors of a finished run, and prompts with the model's continuations."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saelens_steer.activations import with_answers
from saelens_steer.aside import free_name
from saelens_steer.config import RunSpec
from saelens_steer.data import load_prompts
from saelens_steer.errors import InputError
from saelens_steer.files import write_jsonl
from saelens_steer.model import load_model
from saelens_steer.progress import progress, say
from saelens_steer.report import read_mapping, side_names
from saelens_steer.run_folder import RunFolder
from saelens_steer.sae import check_feature, load_sae
from saelens_steer.steering import file_kind, save_vectors


def export_vectors(
    run_dir: str | Path, file: str | Path, features: Sequence[int] = (), alpha: float = 1.0
) -> Path:
    """Write α · W_dec[f] of a run's candidates, or of `features`; returns the file.

    Loads no model. Raises InputError if the folder holds no SAE or no candidates, for an unknown
    feature, and for several features in one .gguf file.
    """
    folder, file = Path(run_dir), Path(file)
    if not math.isfinite(alpha):
        raise InputError(f"alpha should be a finite number, not {alpha}")
    kind = file_kind(file)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    run = RunFolder(folder)
    run.check_computed("give the folder of a run")
    known = read_mapping(run.current("features.json"))
    chosen = list(dict.fromkeys(features or _candidates(known)))
    if not chosen:
        raise InputError(
            f"{folder} names no candidates: run the select step there, or give --feature"
        )
    if kind == ".gguf" and len(chosen) > 1:
        raise InputError(
            f"a .gguf file holds one vector per layer, not {len(chosen)}: choose one with --feature"
        )
    if not run.current("sae").is_dir():
        raise InputError(f"{folder} holds no SAE: run the train step there")
    sae, about = load_sae(folder / "sae"), read_mapping(folder / "provenance.json")
    model = about.get("model", {})
    rows = {f"feature_{f}": sae.W_dec[check_feature(sae, f)].detach().float() for f in chosen}
    with _keeping(file):
        return save_vectors(
            file,
            {name: row * alpha for name, row in rows.items()},
            _hook_name(known, about, sae),
            model=str(model.get("name") or "unknown"),
            architecture=model.get("architecture"),
            about={f"feature_{f}": {"feature": f, "alpha": alpha} for f in chosen},
        )


@contextmanager
def _keeping(file: Path) -> Iterator[None]:
    """Keep an existing file under another name, if what is done here replaces it."""
    if not file.is_file():
        yield
        return
    earlier = Path(shutil.copy2(file, free_name(file, "earlier")))
    try:
        yield
    except BaseException:
        earlier.unlink()
        raise
    say(f"{file} already existed: its earlier version is now {earlier}")


def _candidates(known: dict[str, Any]) -> list[int]:
    """The candidates in features.json; the positive side comes first."""
    return [f for side in side_names(known) for f in known.get(f"{side}_candidates", [])]


def _hook_name(known: dict[str, Any], about: dict[str, Any], sae: Any) -> str:
    """The hook that the run steers at, as recorded in its files or else in its SAE."""
    found = known.get("hook_name") or about.get("hook_name") or sae.cfg.metadata.hook_name
    if not found:
        raise InputError(
            "the hook is unknown: features.json, provenance.json and the SAE's metadata name none"
        )
    return found


TOPIC = "tiny-transport-topic"
"""The prompts that are continued if the config sets no select.prompts (tiny model only)."""


def generate_topic(spec: RunSpec, out: str | Path) -> Path:
    """Write each selection prompt with its domain and answer to a .jsonl file.

    Missing answers are the model's greedy continuations, of at most select.answer_tokens tokens. A
    config can name the file as `select.prompts`; the model then generates no answers. Raises
    InputError unless `out` is a .jsonl file, and if no answer is missing.
    """
    if Path(out).suffix != ".jsonl":
        raise InputError(f"--out must be a .jsonl file, not {out}")
    source = spec.select.prompts if "prompts" in spec.select.model_fields_set else TOPIC
    prompts = load_prompts(source)
    missing = sum(not prompt.answer for prompt in prompts)
    if not missing:
        raise InputError(
            f"every prompt of {source} already has an answer: set select.prompts to prompts "
            "without answers"
        )
    m, size = spec.model, spec.activations.batch_size
    model = load_model(m.name, model_class=m.class_, dtype=m.dtype, device=m.device)
    with progress("continuations", missing) as note:
        options = {"batch_size": size, "template": spec.template, "note": note}
        answered = with_answers(model, prompts, spec.select.answer_tokens, **options)
    if empty := sum(not prompt.answer for prompt in answered):
        are = "is" if empty == 1 else "are"
        say(f"{empty} of {missing} continuations {are} empty: the model stopped immediately")
    return write_jsonl(Path(out), [prompt.to_row() for prompt in answered])
