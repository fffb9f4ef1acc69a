"""The data in the package is what the scripts write, and there is enough of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from saelens_steer.config import load_config
from saelens_steer.data.corpus import TINY_CHATS, TINY_CORPUS
from saelens_steer.sae.training.train import _text_tokens
from scripts.tiny.data import CORPUS_TOKENS, write_corpus

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "tiny").glob("*.yaml"))


@pytest.mark.slow
def test_the_shipped_corpus_is_what_the_script_writes(tmp_path):
    written = write_corpus(tmp_path / TINY_CHATS.name).read_bytes()
    # another version of zlib packs to other bytes
    assert gzip.decompress(written) == gzip.decompress(TINY_CHATS.read_bytes())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_corpus_is_enough_for_every_config(path):
    sae = load_config(path).sae
    assert sae.train and sae.train.corpus == TINY_CORPUS
    for spec in (sae.train, *sae.grid_specs.values()):
        assert _text_tokens(spec) <= CORPUS_TOKENS
