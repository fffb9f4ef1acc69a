"""What callers give: texts, specs and folders, and what is said about them."""

from __future__ import annotations

import re

import pytest
from saes import random_sae

import saelens_steer as ss
from saelens_steer.config import TrainSpec
from saelens_steer.errors import InputError
from saelens_steer.sae import audit, save_sae, train_sae
from saelens_steer.sae.auditing import shipped_texts

HOOK = "blocks.2.hook_resid_pre"


def test_the_shipped_model_is_audited_on_the_chats_it_knows(tiny_model, tmp_path):
    assert len(shipped_texts(tiny_model)) > 10
    width = tiny_model.cfg.d_model
    with pytest.raises(InputError, match="does not fit tiny-qwen3: it explains"):
        ss.load_sae(save_sae(random_sae(width, HOOK), tmp_path / "sae"), model=tiny_model)


@pytest.mark.parametrize(
    ("n_controls", "why"),
    [(2, r"\d tokens are too few to audit the fit"), (0, "used no cached activations")],
)
def test_a_sweep_says_that_the_fit_was_not_checked(random_model, n_controls, why):
    options = {"features": [3], "alphas": [4.0], "chat": False}
    sae = random_sae(random_model.cfg.d_model, HOOK)
    result = ss.sweep(random_model, sae, ["add two"], n_controls=n_controls, **options)
    assert re.search(f"Whether the SAE fits was not checked: .*{why}", result.warnings[0])


@pytest.mark.usefixtures("unchecked")
def test_one_string_is_not_read_as_a_list_of_characters(random_model):
    sae = random_sae(random_model.cfg.d_model, HOOK)
    text = "add two numbers " * 200
    for measure in (ss.sae_quality, audit):
        with pytest.raises(InputError, match=r"texts is a string: write texts=\['add two"):
            measure(random_model, sae, HOOK, text)
        with pytest.raises(InputError, match=r"texts\[1\] is a int: give a string"):
            measure(random_model, sae, HOOK, [text, 3])
        with pytest.raises(InputError, match="do not fill a context"):
            measure(random_model, sae, HOOK, [])


def test_a_mapping_is_a_spec_and_other_things_are_refused_in_a_sentence(
    random_model, small, tmp_path, unchecked
):
    with pytest.raises(InputError, match="train_sae: unknown key 'archtecture'"):
        train_sae(random_model, {"archtecture": "topk"}, HOOK, tmp_path / "sae")
    with pytest.raises(InputError, match=r"give ss\.TrainSpec\(…\) or a mapping .* not str"):
        train_sae(random_model, "topk", HOOK, tmp_path / "sae")
    sae = train_sae(random_model, small().model_dump(), HOOK, tmp_path / "sae")
    assert sae.cfg.d_sae == 32


def test_another_model_is_not_trained_on_the_tiny_models_corpus_unasked(random_model, tmp_path):
    with pytest.raises(InputError, match="TrainSpec must state corpus: the defaults are for tiny"):
        train_sae(random_model, TrainSpec(d_sae=32), HOOK, tmp_path / "sae")


@pytest.mark.slow
def test_an_earlier_sae_is_kept_and_a_corpus_read_again_is_counted(
    random_model, small, tmp_path, capsys
):
    for seed in (0, 0, 1):
        train_sae(random_model, small(seed=seed), HOOK, tmp_path / "sae")
    assert {path.name for path in tmp_path.iterdir()} == {"sae", "sae.earlier-1"}
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("the old folder is now") == 1 and "training reads it" not in said
    train_sae(random_model, small(training_tokens=40_000), HOOK, tmp_path / "long")
    said = " ".join(capsys.readouterr().err.split())
    found = re.search(r"about ([\d,]+) tokens to train on, so .* reads it about (\S+) times", said)
    assert found
    n_tokens, times = (float(one.replace(",", "")) for one in found.groups())
    assert times == pytest.approx(40_000 / n_tokens, abs=0.06) and times > 3
