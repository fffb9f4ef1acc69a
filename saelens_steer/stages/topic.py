"""Continuations that the model itself writes to the selection prompts, as a prompt set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from saelens_steer.activations import with_answers
from saelens_steer.config import RunSpec
from saelens_steer.data import load_prompts
from saelens_steer.errors import InputError
from saelens_steer.files import write_jsonl
from saelens_steer.model import load_model
from saelens_steer.progress import progress, say
from saelens_steer.stages.template import template

TOPIC = "tiny-transport-topic"
"""Continued where a config names no selection prompts, which only one for the tiny model may do."""


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
    m, options = spec.model, {"batch_size": spec.activations.batch_size, **template(spec)}
    model = load_model(m.name, model_class=m.class_, dtype=m.dtype, device=m.device)
    with progress("continuations", missing) as note:
        answered = with_answers(model, prompts, spec.select.answer_tokens, note=note, **options)
    if empty := sum(not prompt.answer for prompt in answered):
        say(f"{empty} of {missing} continuations are empty: there the model stopped at once")
    return write_jsonl(Path(out), [asdict(prompt) for prompt in answered])
