"""Which special tokens text gets: three rules, for encoding, caching, training and generation.

1. Plain text gets those that the checkpoint's own tokenizer puts before it.
2. Text that contains special tokens of the chat template, or begins with BOS, gets none.
3. If an SAE states whether its training contexts began with BOS, plain text follows the SAE. A BOS
   that the tokenizer would not add itself is left unsteered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from jinja2.exceptions import TemplateError
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from saelens_steer.errors import InputError
from saelens_steer.progress import say_once
from saelens_steer.text_start import measured_start, recorded_start

SpecialTokens = bool | SAE[Any] | None
"""None: as the tokenizer does. A bool: with or without BOS. An SAE: as it was trained."""
STATED = "prepend_bos_stated"
"""Key in the metadata of an SAE whose file states prepend_bos, so it is not a loader's default."""
TEMPLATE_ERRORS = (
    TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError,
    MemoryError, RecursionError,
)  # fmt: skip
"""What a chat template raises if it cannot write a conversation."""
MOST_ADDED = 1_000_000
"""Characters that a template may add to the tenfold text of a conversation."""
_saved = WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, ...]]()
"""Copy made by TransformerLens → the ids that the saved tokenizer puts before text."""


@dataclass(frozen=True)
class TextStart:
    """Special tokens before plain text."""

    ids: tuple[int, ...]
    added: int = 0
    """How many of them the tokenizer itself would not add; they are never steered."""
    of_sae: bool = False
    """Whether the SAE decides, and differs from the tokenizer."""
    given: bool = False
    """Whether a flag decides, and differs from the tokenizer."""
    marks: frozenset[int] = frozenset()
    """Special tokens of the chat template."""

    def record(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """What provenance.json and results say about plain text."""
        tokens = tokenizer.convert_ids_to_tokens(list(self.ids))
        decided = "SAE" if self.of_sae else "config" if self.given else "tokenizer"
        return {"begins": tokens, "unsteered": self.added, "decided_by": decided}

    def before(self, ids: Sequence[int], bos: int | None) -> tuple[int, ...]:
        """The ids to put before a text: none if it has the chat template or begins with BOS."""
        own = [i for i in (bos, *self.ids[:1]) if i is not None]
        return () if ids and (ids[0] in own or not self.marks.isdisjoint(ids)) else self.ids


def text_start(
    tokenizer: PreTrainedTokenizerBase, special_tokens: SpecialTokens = None
) -> TextStart:
    """The special tokens before plain text. InputError if BOS is requested but does not exist."""
    own, bos, marks = own_start(tokenizer), bos_id(tokenizer), template_marks(tokenizer)
    of_sae = isinstance(special_tokens, SAE)
    wanted = trained_with_bos(special_tokens) if isinstance(special_tokens, SAE) else special_tokens
    if wanted and bos is None and not own:
        if not of_sae:
            raise InputError(
                "special_tokens=True (sae.train.prepend_bos) asks for BOS, which this tokenizer "
                "does not have"
            )
        wanted = None  # SAELens then puts none before contexts either
    if wanted is None or wanted == bool(own):
        return TextStart(own, marks=marks)
    before = (bos,) if wanted and bos is not None else ()
    return TextStart(before, int(wanted), of_sae, not of_sae, marks)


def begins_with_bos(
    tokenizer: PreTrainedTokenizerBase, special_tokens: SpecialTokens = None
) -> bool:
    """Whether plain contexts begin with BOS. InputError if they begin with anything else."""
    ids, bos = text_start(tokenizer, special_tokens).ids, bos_id(tokenizer)
    if ids not in ((), (bos,)):
        raise InputError(
            f"this tokenizer begins texts with {tokenizer.convert_ids_to_tokens(list(ids))}, but "
            "contexts can begin only with BOS: set prepend_bos to false (sae.train.prepend_bos)"
        )
    return bool(ids)


def say_start(tokenizer: PreTrainedTokenizerBase, start: TextStart) -> None:
    """Say once that plain texts begin as the SAE's training contexts did, against the default."""
    if not start.of_sae:
        return
    if start.added:
        bos = tokenizer.convert_ids_to_tokens(start.ids[0])
        text = f"begin with {bos} as the SAE's training contexts did; it is not steered"
    else:
        text = "begin without special tokens, as the SAE's training contexts did"
    say_once(tokenizer, f"Plain texts {text}. This differs from the tokenizer's default.")


def trained_with_bos(sae: SAE[Any]) -> bool | None:
    """Whether the SAE's training contexts began with BOS; None if that is unknown.

    SAELens's loaders of other libraries' SAEs always set True, and set no training version.
    """
    about = sae.cfg.metadata
    found = about.prepend_bos
    if not isinstance(found, bool):
        return None
    known = about.sae_lens_training_version or about[STATED] or _trained_by_saelens(about)
    return found if not found or known else None


def _trained_by_saelens(about: Any) -> bool:
    """Whether SAELens's directory has this SAE in SAELens's own format."""
    name = about.neuronpedia_id
    return name is not None and any(
        entry.conversion_func is None and name in (entry.neuronpedia_id or {}).values()
        for entry in get_pretrained_saes_directory().values()
    )


def note_stated(sae: SAE[Any], settings: dict[str, Any]) -> SAE[Any]:
    """The SAE, with a mark if a cfg.json of SAELens 1 to 5 states prepend_bos."""
    if isinstance(settings.get("prepend_bos"), bool):
        sae.cfg.metadata[STATED] = True
    return sae


def bos_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of BOS; None if the tokenizer has none."""
    found: Any = tokenizer.bos_token_id
    return found


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of BOS, EOS, padding, role markers and all other special tokens."""
    added = tokenizer.added_tokens_decoder
    return set(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def own_start(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Special tokens that the checkpoint's own tokenizer puts before plain text.

    On a model from `load_model`, the tokenizer counts as given. TransformerLens reloads tokenizers
    with BOS switched on; for what may be such a copy, the saved one decides.
    """
    if (recorded := recorded_start(tokenizer)) is not None:
        return recorded
    if not tokenizer.init_kwargs.get("add_bos_token"):
        return measured_start(tokenizer)
    if tokenizer not in _saved:
        _saved[tokenizer] = measured_start(_as_saved(tokenizer))
    return _saved[tokenizer]


def _as_saved(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer as its folder or repository has it; itself if it was made otherwise."""
    name = str(tokenizer.name_or_path)
    if Path(name).is_file():  # transformers would read all of a GGUF file as JSON
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return tokenizer


def template_marks(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens that the chat template writes; empty without a template."""
    if not tokenizer.chat_template:
        return frozenset()
    asked = [{"role": "user", "content": "a"}]
    chats = asked, [*asked, {"role": "assistant", "content": "a"}]
    written = set[int]()
    for messages, generate in zip(chats, (True, False), strict=True):
        try:
            text = apply_template(tokenizer, messages, generate)
        except TEMPLATE_ERRORS:
            continue
        written |= {*tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]}
    return frozenset(written & special_ids(tokenizer))


def apply_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    generate: bool,
    options: Mapping[str, object] | None = None,
) -> str:
    """Apply the chat template; without other options, Qwen3's thinking block is closed.

    Raises one of TEMPLATE_ERRORS, also for a text that is far longer than the conversation. That is
    known only afterwards: jinja2's sandbox, in which transformers renders, bounds `range` and bars
    attributes of Python, but neither the time nor the memory of nested loops.
    """
    kwargs: dict[str, Any] = {"enable_thinking": False, **(options or {})}
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generate, **kwargs
    )
    if len(text) > MOST_ADDED + 10 * (given := sum(len(one["content"]) for one in messages)):
        raise ValueError(f"it turns a conversation of {given:,} characters into {len(text):,}")
    return str(text)
