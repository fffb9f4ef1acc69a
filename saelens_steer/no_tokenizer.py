"""What stands for the tokenizer of a model that has none: it shows token ids, and reads no text."""

from __future__ import annotations

from typing import Any, NoReturn

from transformers import PreTrainedTokenizer, PreTrainedTokenizerBase

from saelens_steer.errors import InputError


class NoTokenizer(PreTrainedTokenizer):
    """Each token's text is its id, and none is special. InputError for text to be read."""

    def __init__(self, d_vocab: int) -> None:
        self._d_vocab = d_vocab
        super().__init__()

    @property
    def vocab_size(self) -> int:
        return self._d_vocab

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(self._d_vocab)}

    def _tokenize(self, text: str, **options: Any) -> NoReturn:  # noqa: ARG002
        check_tokenizer(self, "text")
        raise AssertionError

    def _convert_id_to_token(self, index: int) -> str:
        return str(index)

    def _convert_token_to_id(self, token: str) -> int:
        return int(token)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    """Raise InputError if this stands for a missing tokenizer, which `what` needs."""
    if isinstance(tokenizer, NoTokenizer):
        raise InputError(
            f"{what} needs a tokenizer, and the model has none: set model.tokenizer, or use only "
            "token ids"
        )
