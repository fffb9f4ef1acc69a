"""The table of SAELens's releases: where each is read and steered, and how fast.

No verdict is written down here. For each release `load_sae` reads small stand-ins of its SAEs, and
`load_model` a small random checkpoint of its model's architecture; then each SAE encodes what it
reads, and its decoder is pushed where it writes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from saelens_steer.errors import InputError
from saelens_steer.model import check_steerable, run_to_hook
from saelens_steer.model.model_class import Model
from saelens_steer.sae import check_sae, check_sae_at, encode, is_transcoder, reads_at, steers_at
from saelens_steer.sweeps import UnsteeredPass
from scripts.docs.small_models import KINDS, MODELS, hub_id, small_model
from scripts.docs.small_saes import small_sae

FAMILIES = {
    "gpt2": "GPT-2",
    "pythia": "Pythia",
    "gemma": "Gemma 1",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3, text only",
    "gemma3-multimodal": "Gemma 3, multimodal",
    "llama3": "Llama 3",
    "llama3.1": "Llama 3.1 and 3.3",
    "mistral": "Mistral",
    "qwen2": "Qwen 2.5",
    "qwen3": "Qwen 3",
    "qwen3-moe": "Qwen 3, mixture of experts",
    "qwen3.5": "Qwen 3.5",
    "qwen3.5-moe": "Qwen 3.5, mixture of experts",
    "gpt-oss": "gpt-oss",
}
GATED = ("google/", "meta-llama/")
"""Owners whose models the hub gives only to those who accept their terms."""
PLAIN, FROM_HOOK, WHOLE = "plain layers", "from the hook on", "full passes"
TOKENS = [[5, 6, 7, 8, 9], [10, 11, 12]]
INTRO = """# SAELens releases

All {n} releases in the directory of sae-lens {version}, of which {usable} can be used.
`load_sae(release, sae_id)` loads an SAE. `load_model` accepts its model under each name given here:
the directory's, and the loader's if that differs. The table is generated from metadata: SAELens's
own loaders read the config of each kind of SAE, which is then tried, with small random weights, on
a small random checkpoint of its model's architecture.

*Reads* and *steers* are hooks of a layer, `blocks.L.…`: the encoder applies at the first, pushes
along `W_dec` at the second. If they differ, the SAE is a transcoder, which has no edits of z.

*Sweeps* run on plain layers (matrix products that share prompt prefixes), from the hook on
(TransformerLens's own layers) or in full passes, from the fastest to the slowest; see
[Run on a GPU](../how-to/gpu.md).

Releases in SAELens's format state in their `cfg.json` which kind they are and whether training
contexts began with BOS; plain text then begins the same way. For all others, the model's own
tokenizer decides how it begins.
"""


@dataclass(frozen=True)
class Verdict:
    """What can be done with SAEs of one kind in a release."""

    sae_ids: tuple[str, ...]
    kind: str = ""
    reads: str = ""
    steers: str = ""
    sweeps: str = ""
    named: str = ""
    """The model that the SAE's metadata name."""
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    """Why they cannot be used."""


@dataclass(frozen=True)
class Release:
    """A release, its model, and what can be done with its SAEs."""

    name: str
    model: str
    """The model as the directory names it; load_model knows it under this name."""
    loader: str
    n_ids: int
    verdicts: tuple[Verdict, ...]

    @property
    def family(self) -> str:
        """The key in KINDS of its model."""
        return MODELS[str(hub_id(self.model))]

    @property
    def usable(self) -> bool:
        return any(verdict.refusal is None for verdict in self.verdicts)

    @property
    def reasons(self) -> list[str]:
        """Why SAEs of the release, or all of them, cannot be used."""
        return [verdict.refusal for verdict in self.verdicts if verdict.refusal is not None]


@functools.cache
def releases() -> tuple[Release, ...]:
    """Every release of SAELens's directory."""
    return tuple(judged(name) for name in sorted(get_pretrained_saes_directory()))


def judged(name: str) -> Release:
    """One release; SAEs whose ids and paths differ in numbers only are judged by the first."""
    entry = get_pretrained_saes_directory()[name]
    alike: dict[str, list[str]] = {}
    for sae_id, path in sorted(entry.saes_map.items()):
        alike.setdefault(re.sub(r"\d[\d.]*", "#", f"{sae_id} {path}"), []).append(sae_id)
    model = small_model(MODELS[str(hub_id(entry.model))])
    found = [_verdict(name, tuple(ids), model) for ids in alike.values()]
    loader = entry.conversion_func or "sae_lens"
    return Release(name, entry.model, loader, len(entry.saes_map), tuple(found))


def _verdict(release: str, sae_ids: tuple[str, ...], model: Model) -> Verdict:
    """Load the first SAE, read and steer with it."""
    entry, notes = get_pretrained_saes_directory()[release], list[str]()
    try:
        try:
            sae = small_sae(release, sae_ids[0], model)
        except InputError as error:
            if "model_name=" not in str(error):
                raise
            notes.append(f"give `model_name`: {_models_named(str(error))}")
            sae = small_sae(release, sae_ids[0], model, entry.model)
        reads, steers, sweeps = used(sae, model)
    except InputError as error:
        return Verdict(sae_ids, refusal=re.sub(rf"^{re.escape(release)}/\S+ is ", "", str(error)))
    kind = "by its cfg.json" if entry.conversion_func is None else sae.cfg.architecture()
    read, steer = (place.split(".", 2)[2] for place in (reads, steers))
    named = str(sae.cfg.metadata.model_name)
    return Verdict(sae_ids, kind, read, steer, sweeps, named, (*notes, *notes_on(sae)))


def used(sae: SAE[Any], model: Model) -> tuple[str, str, str]:
    """Encode what the SAE reads and find how a push is swept: its two hooks and the way.

    Raises InputError for an SAE that cannot be read or steered.
    """
    reads, steers = str(reads_at(sae)), check_steerable(model, str(steers_at(sae)))
    check_sae(sae, model, steers)
    x = _activations(model, reads)
    check_sae_at(sae, x.shape[-1], reads)
    if not encode(sae, x).isfinite().all():
        raise InputError(f"it does not encode activations of {reads}")
    return reads, steers, _sweeps(model, steers)


@functools.cache
def _activations(model: Model, hook_name: str) -> torch.Tensor:
    tokens = torch.tensor(TOKENS[:1])
    return run_to_hook(model, tokens, torch.ones_like(tokens).bool(), hook_name)[0]


@functools.cache
def _sweeps(model: Model, hook_name: str) -> str:
    """How rows steered at this hook are run, as a sweep decides it by comparing the ways."""
    rows = UnsteeredPass(model=model, hook_name=hook_name, prompts=TOKENS)
    return WHOLE if rows.full_pass_reason else FROM_HOOK if rows.padded_reason else PLAIN


def _models_named(refusal: str) -> str:
    return " or ".join(f"`{name}`" for name in re.findall(r'model_name="([^"]+)"', refusal))


def notes_on(sae: SAE[Any]) -> Iterator[str]:
    """What to know before using the SAE."""
    about, scaling = sae.cfg.metadata, sae.cfg.normalize_activations
    if about.centring_folded:
        yield "trained on centred weights; the centring is folded into the SAE"
    if scaling != "none":
        yield f"scales its input ({scaling})"
    if is_transcoder(sae):
        yield "pushes only"


def releases_page() -> str:
    """The table, one section for each family of models."""
    found = releases()
    usable = sum(release.usable for release in found)
    lines = [INTRO.format(n=len(found), usable=usable, version=version("sae-lens"))]
    for kind in KINDS:
        own = [release for release in found if release.family == kind]
        lines += [f"## {FAMILIES[kind]}\n", _loading(kind, own), *TABLE, *map(_row, own), ""]
    return "\n".join(lines)


TABLE = (
    "| Release | Model | SAEs | Kind | Reads | Steers | Sweeps | Usable |",
    "|---|---|---|---|---|---|---|---|",
)


def loads_as(kind: str) -> str:
    """The class of TransformerLens that models of this kind load as."""
    return type(small_model(kind)).__name__


def _loading(kind: str, own: list[Release]) -> str:
    """How models of this kind load, and under which names."""
    ids = sorted({str(hub_id(release.model)) for release in own})
    gated = sorted({name.split("/")[0] for name in ids if name.startswith(GATED)})
    access = f" Gated on the hub, so set `HF_TOKEN`: those of {gated[0]}." if gated else ""
    listed = ", ".join(f"`{name}`" for name in ids)
    kept = f"`{KINDS[kind][0]}` of transformers"
    return f"Loads as a {loads_as(kind)} ({kept}): {listed}.{access}\n"


def _row(release: Release) -> str:
    good = [verdict for verdict in release.verdicts if verdict.refusal is None]
    cells = [
        f"`{release.name}`",
        _each((release.model, *(v.named for v in good)), code=True),
        f"{release.n_ids:,}",
        f"{_each(v.kind for v in good) or '–'} ({release.loader})",
        _each((v.reads for v in good), code=True),
        _each((v.steers for v in good), code=True),
        _each(v.sweeps for v in good),
        _usable(release, good),
    ]
    return f"| {' | '.join(cells)} |"


def _each(words: Iterable[str], code: bool = False) -> str:
    return ", ".join(f"`{word}`" if code else word for word in dict.fromkeys(words))


def _usable(release: Release, good: list[Verdict]) -> str:
    if not good:
        return f"**no**: {release.reasons[0]}"
    notes = list(dict.fromkeys(note for verdict in good for note in verdict.notes))
    for verdict in release.verdicts:
        if verdict.refusal is not None:
            some = f"{len(verdict.sae_ids)} like `{verdict.sae_ids[0]}`"
            notes.append(f"not the {some}: {verdict.refusal.split('; use ')[0]}")
    return f"yes; {'; '.join(notes)}" if notes else "yes"
