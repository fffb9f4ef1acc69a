"""Caches, sweeps, texts, training and quality of an SAE all begin plain text in the same way."""

from __future__ import annotations

import json

import pytest
import torch
from checkpoints import random_family
from saes import random_sae

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.model import load_model
from saelens_steer.pipeline import suggest
from saelens_steer.sae import train_sae
from saelens_steer.sae.quality import packed_contexts, sae_quality
from saelens_steer.sae.training.config import runner_config

HOOK = "blocks.2.hook_resid_pre"
TEXTS = ["add two numbers", "def add(a, b): return the sum of the two"]
OWN = {"llama3": True, "gemma": True, "smollm2": False, "qwen": False, "gpt2": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {f: load_model(str(random_family(tmp_path_factory.mktemp(f), f))) for f in OWN}


@pytest.fixture(params=OWN)
def model(request, models):
    return models[request.param]


def sae_of(with_bos):
    sae = random_sae(32, HOOK)
    if with_bos is not None:
        sae.cfg.metadata.prepend_bos = with_bos
    return sae


def begins(model, with_bos):
    """Whether plain text begins with BOS for an SAE that states this."""
    own = model.tokenizer(TEXTS[0])["input_ids"][0] == model.tokenizer.bos_token_id
    return own if with_bos is None or model.tokenizer.bos_token is None else with_bos


def rows_of(model, with_bos):
    bos = [model.tokenizer.bos_token_id] if begins(model, with_bos) else []
    return [bos + model.tokenizer(t, add_special_tokens=False)["input_ids"] for t in TEXTS]


def by_hand(model, row, hook=HOOK):
    return model.run_with_cache(torch.tensor([row]), names_filter=hook)[1][hook][0]


# --- caches


@pytest.mark.parametrize("special_tokens", [None, True, False, "SAE"])
def test_a_cache_holds_what_the_model_computes_on_those_tokens(model, special_tokens):
    with_bos = {"SAE": True}.get(special_tokens, special_tokens)
    decides = sae_of(True) if special_tokens == "SAE" else special_tokens
    how = {"hook_name": HOOK, "chat": False, "max_norm": None, "special_tokens": decides}
    if special_tokens is True and model.tokenizer.bos_token is None:
        with pytest.raises(ss.InputError, match="asks for BOS, which this tokenizer does not have"):
            ss.cache_activations(model, TEXTS, **how)
        return
    found = ss.cache_activations(model, TEXTS, **how)
    rows = rows_of(model, with_bos)
    n = int(begins(model, with_bos))
    want = torch.cat([by_hand(model, row)[n:] for row in rows])
    torch.testing.assert_close(found.vectors, want, rtol=1e-4, atol=1e-4)
    assert found.index["position"].min() == n
    assert found.begins == ([model.tokenizer.bos_token_id] if n else [])


def test_a_saved_cache_says_how_its_texts_begin(models, tmp_path):
    model = models["gpt2"]
    how = {"hook_name": HOOK, "chat": False, "special_tokens": sae_of(True)}
    stored = ss.cache_activations(model, TEXTS, **how, out=tmp_path / "stored")
    assert stored.begins == [model.tokenizer.bos_token_id]
    assert ss.Activations.load(tmp_path / "stored").begins == stored.begins


# --- sweeps


def swept(model, with_bos, prompts=TEXTS, **options):
    given = {"features": [3], "alphas": [-1, 0, 1], "n_controls": 3, "chat": False}
    return ss.sweep(model, sae_of(with_bos), prompts, **given | options)


@pytest.mark.parametrize("with_bos", [None, True, False])
def test_sweep_rows_are_passes_of_texts_that_begin_as_the_sae_was_trained(model, with_bos):
    if begins(model, None):
        with_bos = with_bos is not False
    metric = ss.margin(target=[70], other=[71], name="m")
    found = swept(model, with_bos, metrics=["kl", metric]).rows
    added = begins(model, with_bos) and not begins(model, None)
    edit = ss.add(sae_of(None).W_dec[3].detach())
    steered = found[(found.family == "candidate") & (found.alpha == 1)]
    for row, value in zip(rows_of(model, with_bos), steered["m"], strict=True):
        mask = torch.ones(1, len(row), dtype=torch.bool)
        mask[0, : int(added)] = False
        with ss.steered(model, edit, HOOK, mask):
            logits = model(torch.tensor([row]))[0, -1].detach()
        assert value == pytest.approx(float(logits[70] - logits[71]), abs=1e-3)


@pytest.mark.parametrize("edit", ["add", {"scale": {"error": "drop"}}])
def test_the_bos_that_was_added_is_never_steered_in_texts_either(models, edit, monkeypatch):
    model, metrics = models["gpt2"], ["kl", "distinct_words"]
    texts = {"completions": {"max_new_tokens": 5}, "metrics": metrics, "edit": edit}
    found = swept(model, True, **texts).completions
    monkeypatch.setattr("saelens_steer.sweeps.unsteered_pass.why_not", lambda *_: "asked")
    whole = swept(model, True, **texts).completions
    assert found["completion"].tolist() == whole["completion"].tolist()


def test_a_result_records_how_texts_began(models, capsys):
    model = models["gpt2"]
    about = swept(model, True).special_tokens
    assert about == {"begins": ["<|endoftext|>"], "unsteered": 1, "decided_by": "SAE"}
    assert swept(model, None).special_tokens["begins"] == []
    assert swept(models["llama3"], True).special_tokens["decided_by"] == "tokenizer"
    assert swept(models["llama3"], True, chat=True).special_tokens is None


def test_activations_of_texts_that_begin_otherwise_are_refused(models):
    model = models["gpt2"]
    own = ss.cache_activations(model, TEXTS, hook_name=HOOK, chat=False)
    with pytest.raises(InputError, match="special_tokens=sae"):
        swept(model, True, activations=own)
    sae = sae_of(True)
    same = ss.cache_activations(model, TEXTS, hook_name=HOOK, chat=False, special_tokens=sae)
    assert swept(model, True, activations=same).rows.equals(swept(model, True).rows)


def asked_of(model, sae, which, **options):
    """A call that caches activations of its prompts, or is given some."""
    row, how = sae.W_dec[3].detach(), {"chat": False, "max_new_tokens": 2, **options}
    if which == "suggest_alpha":
        return ss.suggest_alpha(model, row, TEXTS, sae=sae, **how).table
    return ss.generate(
        model, TEXTS, {"f": ss.set_to(sae, 3, 2.0), "row": row}, hook_name=HOOK, **how
    )


@pytest.mark.parametrize("which", ["suggest_alpha", "generate"])
def test_activations_for_texts_begin_as_the_texts_do_or_are_refused(models, which):
    for name, sae in (("gpt2", sae_of(True)), ("llama3", sae_of(False))):
        model = models[name]
        wrong, right = (
            ss.cache_activations(model, TEXTS, hook_name=HOOK, chat=False, special_tokens=decides)
            for decides in (None, sae)
        )
        with pytest.raises(InputError, match="special_tokens=sae"):
            asked_of(model, sae, which, activations=wrong)
        given = asked_of(model, sae, which, activations=right)
        assert given.equals(asked_of(model, sae, which))
        with pytest.raises(InputError, match="special_tokens=None"):
            asked_of(model, sae_of(None), which, activations=right)


def test_strengths_are_suggested_on_texts_that_begin_as_the_sae_was_trained(models, monkeypatch):
    model, read = models["gpt2"], []
    monkeypatch.setattr(
        suggest, "text_losses", lambda _, heads, new: read.extend(heads) or [1.0] * len(new)
    )
    for with_bos in (True, None):
        read.clear()
        asked_of(model, sae_of(with_bos), "suggest_alpha")
        assert {tuple(row) for row in read} == {tuple(row) for row in rows_of(model, with_bos)}
    with pytest.raises(InputError, match="sae is None: give hook_name="):
        ss.suggest_alpha(model, torch.ones(32), TEXTS, chat=False)


def test_comparisons_of_edits_begin_texts_as_their_sae_was_trained(models):
    model, sae = models["gpt2"], sae_of(True)
    edit, options = ss.set_to(sae, 3, 2.0), {"chat": False, "max_new_tokens": 2}
    found = ss.compare_edits(model, {"on": edit}, TEXTS, HOOK, **options, max_norm=None)
    changed = found[found["variant"] == "on"]["receipt_changed"].tolist()
    assert changed == [len(row) - 1 for row in rows_of(model, True)]


# --- training and quality


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"add {i} and the sum of two numbers" for i in range(600)))
    return str(path)


def spec_of(corpus, **changes):
    given = {"architecture": "topk", "d_sae": 32, "options": {"k": 4}, "corpus": corpus}
    sizes = {"training_tokens": 512, "context_size": 16, "batch_tokens": 64}
    return ss.TrainSpec(**given, **sizes | changes)


@pytest.mark.parametrize("prepend_bos", [None, True, False])
def test_training_contexts_begin_as_the_tokenizer_or_the_spec_has_it(
    model, corpus, prepend_bos, tmp_path
):
    if prepend_bos and model.tokenizer.bos_token is None:
        with pytest.raises(InputError, match="does not have"):
            train_sae(model, spec_of(corpus, prepend_bos=True), HOOK, tmp_path / "sae")
        return
    want = begins(model, prepend_bos)
    spec = spec_of(corpus, prepend_bos=prepend_bos)
    config = runner_config(spec, model, HOOK, tmp_path)
    assert config.prepend_bos is want
    assert config.sequence_separator_token == ("bos" if want else None)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama3", "gpt2"])
def test_a_trained_sae_states_its_contexts_and_is_measured_on_such(
    models, family, corpus, tmp_path
):
    model = models[family]
    train_sae(model, spec_of(corpus, prepend_bos=True), HOOK, tmp_path / "sae")
    about = json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]
    assert about["prepend_bos"] is True and about["sequence_separator_token"] == "bos"
    sae = ss.load_sae(tmp_path / "sae")
    rows = packed_contexts(model, TEXTS * 9, 16, sae)
    bos, bare = model.tokenizer.bos_token_id, rows_of(model, False)
    assert (rows[:, 0] == bos).all()
    joined = [i for i in rows.flatten().tolist() if i != bos]
    assert joined == [i for row in bare * 9 for i in row][: len(joined)]
    quality = sae_quality(model, sae, HOOK, TEXTS * 9, 16)
    sae.cfg.metadata.prepend_bos = False
    sae.cfg.metadata.sequence_separator_token = None
    assert packed_contexts(model, TEXTS * 9, 16, sae).flatten().ne(bos).all()
    assert sae_quality(model, sae, HOOK, TEXTS * 9, 16)["ce_loss"] != quality["ce_loss"]


def test_quality_without_a_statement_begins_contexts_as_the_tokenizer_does(model):
    rows = packed_contexts(model, TEXTS * 9, 16, sae_of(None))
    assert rows.equal(packed_contexts(model, TEXTS * 9, 16))
    bos = -1 if model.tokenizer.bos_token_id is None else model.tokenizer.bos_token_id
    assert rows[:, 0].eq(bos).all().item() is begins(model, None)


def test_contexts_longer_than_the_models_are_refused_before_training(models, corpus, tmp_path):
    model = models["qwen"]
    spec = spec_of(corpus, context_size=model.cfg.n_ctx + 1)
    with pytest.raises(InputError, match=rf"n_ctx={model.cfg.n_ctx}"):
        train_sae(model, spec, HOOK, tmp_path / "sae")
