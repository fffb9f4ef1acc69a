"""Plain text begins as its tokenizer has it or as the SAE was trained; chats are left alone."""

from __future__ import annotations

import copy
import json

import pytest
from checkpoints import FAMILIES, family_tokenizer, small_tokenizer
from checkpoints_any import random_checkpoint
from sae_lens.saes.sae import SAEMetadata
from saes import random_sae
from transformer_lens.utilities.tokenize_utils import get_tokenizer_with_bos
from transformers import AutoTokenizer

from saelens_steer.config import TemplateSpec
from saelens_steer.data import Prompt, encode_prompts, text_start, trained_with_bos
from saelens_steer.errors import InputError
from saelens_steer.model import load_model
from saelens_steer.sae import load_sae, save_sae

TEXT = "add two numbers"
OWN_BOS = ("llama3", "gemma")
DIFFER = [("gpt2", True), ("smollm2", True), ("llama3", False), ("gemma", False)]


def sae_of(prepend_bos=None, **more):
    sae = random_sae(32)
    if prepend_bos is not None:
        sae.cfg.metadata.prepend_bos = prepend_bos
    for key, value in more.items():
        sae.cfg.metadata[key] = value
    return sae


def plain(tokenizer, text=TEXT, **options):
    (one,) = encode_prompts(tokenizer, [text], TemplateSpec(chat=False), **options)
    return one


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def own(family):
    return family_tokenizer(family)


# --- the tokenizer's own


def test_plain_text_has_the_ids_of_the_checkpoints_own_tokenizer(own, family):
    one = plain(own)
    assert list(one.head) == own(TEXT)["input_ids"]
    assert (one.head[0] == own.bos_token_id) is (family in OWN_BOS)
    assert one.added == 0 and text_start(own).added == 0


def test_a_tokenizer_that_transformer_lens_read_again_counts_as_it_was_saved(
    own, family, tmp_path, capsys
):
    own.save_pretrained(tmp_path)
    if own.bos_token is None:
        pytest.skip("TransformerLens does not read it again")
    again = AutoTokenizer.from_pretrained(tmp_path, add_bos_token=True)
    assert again(TEXT)["input_ids"][0] == again.bos_token_id
    assert list(plain(again).head) == own(TEXT)["input_ids"]


def test_bos_can_be_forced_and_left_out(own, family):
    bare = own(TEXT, add_special_tokens=False)["input_ids"]
    assert list(plain(own, special_tokens=False).head) == bare
    if own.bos_token_id is None:
        with pytest.raises(InputError, match="does not have"):
            plain(own, special_tokens=True)
        return
    forced = plain(own, special_tokens=True)
    assert list(forced.head) == [own.bos_token_id, *bare]
    assert forced.added == (family not in OWN_BOS)


def test_an_answer_gets_no_special_tokens(own):
    (one,) = encode_prompts(own, [Prompt("1", TEXT, "", "x")], TemplateSpec(chat=False))
    assert list(one.answer) == own("x", add_special_tokens=False)["input_ids"]


# --- text in the chat template


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "gpt2"])
@pytest.mark.parametrize("special_tokens", [None, True, "SAE"])
def test_text_that_holds_the_chat_template_gets_nothing_added(family, special_tokens):
    own = family_tokenizer(family)
    if special_tokens and own.bos_token_id is None:
        special_tokens = None
    decides = sae_of(True) if special_tokens == "SAE" else special_tokens
    asked = own.apply_chat_template([{"role": "user", "content": TEXT}], tokenize=False)
    want = own(asked, add_special_tokens=False)["input_ids"]
    one = plain(own, asked, special_tokens=decides)
    assert list(one.head) == want and one.added == 0
    if own.bos_token and asked.startswith(own.bos_token) and family in OWN_BOS:
        without = asked.removeprefix(own.bos_token)  # still holds the marks of a turn
        want = own(without, add_special_tokens=False)["input_ids"]
        assert list(plain(own, without, special_tokens=decides).head) == want


def test_a_chat_has_what_the_template_writes_whatever_the_sae_was_trained_on(own, family):
    if family == "gpt2":
        with pytest.raises(InputError, match="without chat=True"):
            encode_prompts(own, [TEXT], TemplateSpec(chat=True))
        return
    asked = [{"role": "user", "content": TEXT}]
    (one,) = encode_prompts(own, [asked], special_tokens=sae_of(True))
    want = own.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert list(one.head) == want and one.added == 0


def test_bos_that_the_text_begins_with_is_not_doubled(own):
    if own.bos_token is None:
        return
    text = own.bos_token + TEXT
    want = own(text, add_special_tokens=False)["input_ids"]
    for decides in (None, True, sae_of(True)):
        one = plain(own, text, special_tokens=decides)
        assert list(one.head) == want and one.added == 0


# --- what the SAE was trained on


@pytest.mark.parametrize(("family", "with_bos"), DIFFER)
def test_plain_text_follows_the_sae_where_it_differs_which_is_said_once(family, with_bos, capsys):
    own, sae = family_tokenizer(family), sae_of(with_bos)
    one = plain(own, special_tokens=sae)
    bare = own(TEXT, add_special_tokens=False)["input_ids"]
    assert list(one.head) == [own.bos_token_id] * with_bos + bare
    assert one.added == with_bos
    plain(own, special_tokens=sae)
    said = capsys.readouterr().err
    assert said.count("as the SAE's training contexts did") == 1
    assert (own.bos_token in said) is with_bos
    record = text_start(own, sae).record(own)
    assert record["decided_by"] == "SAE" and record["unsteered"] == with_bos


def test_an_sae_that_agrees_or_states_nothing_changes_nothing(own, family, capsys):
    for sae in (sae_of(), sae_of(family in OWN_BOS)):
        one = plain(own, special_tokens=sae)
        assert list(one.head) == own(TEXT)["input_ids"] and one.added == 0
    assert "SAE" not in capsys.readouterr().err


def test_an_sae_with_bos_of_a_model_without_bos_changes_nothing():
    own = family_tokenizer("qwen")
    assert list(plain(own, special_tokens=sae_of(True)).head) == own(TEXT)["input_ids"]


def test_a_constant_of_a_loader_is_no_evidence(tmp_path):
    constant = sae_of(True, sae_lens_training_version=None)
    assert trained_with_bos(constant) is None
    assert trained_with_bos(load_sae(save_sae(constant, tmp_path / "saved"))) is None
    known = sae_of(True, sae_lens_training_version=None, neuronpedia_id="gpt2-small/6-res-jb")
    assert trained_with_bos(known) is True  # SAELens's directory has it in SAELens's own format
    foreign = sae_of(
        True, sae_lens_training_version=None, neuronpedia_id="gemma-2-2b/12-gemmascope-res-16k"
    )
    assert trained_with_bos(foreign) is None


@pytest.mark.parametrize("stated", [True, False, None])
def test_a_file_states_what_the_sae_was_trained_on(tmp_path, stated):
    folder = save_sae(sae_of(stated), tmp_path / "new")
    assert trained_with_bos(load_sae(folder)) is stated
    old = {"hook_point": "blocks.2.hook_resid_pre", "d_in": 32, "d_sae": 32, "dtype": "float32"}
    old |= {"model_name": "m", "architecture": "standard", "apply_b_dec_to_input": True}
    old |= {} if stated is None else {"prepend_bos": stated}
    (folder / "cfg.json").write_text(json.dumps(old))
    sae = load_sae(folder)
    assert trained_with_bos(sae) is stated
    assert sae.cfg.metadata == SAEMetadata.from_dict(sae.cfg.metadata.to_dict())
    assert trained_with_bos(load_sae(save_sae(sae, tmp_path / "again"))) is stated


# --- a tokenizer that was given on purpose


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    """A checkpoint whose tokenizer has a BOS token and does not write it."""
    folder = random_checkpoint("gpt2", tmp_path_factory.mktemp("silent") / "m")
    tokenizer = small_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("add_bos", [True, False])
def test_a_tokenizer_that_the_user_loaded_with_bos_counts_as_loaded(silent, add_bos):
    given = AutoTokenizer.from_pretrained(silent, add_bos_token=add_bos)
    model = load_model(silent, tokenizer=given)
    want = given(TEXT)["input_ids"]
    assert (want[0] == given.bos_token_id) is add_bos
    for tokenizer in (model.tokenizer, copy.deepcopy(model.tokenizer)):
        assert list(plain(tokenizer).head) == want
    assert model.cfg.default_prepend_bos is add_bos


def test_a_copy_that_transformer_lens_made_of_it_counts_as_it_was_saved(silent):
    copied = get_tokenizer_with_bos(AutoTokenizer.from_pretrained(silent))
    assert copied(TEXT)["input_ids"][0] == copied.bos_token_id
    assert text_start(copied).ids == ()


def test_a_file_by_which_a_tokenizer_is_called_is_not_read(silent, tmp_path, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(silent, add_bos_token=True)
    tokenizer.name_or_path = str(tmp_path / "model.gguf")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("was read"))
    assert text_start(tokenizer).ids == (tokenizer.bos_token_id,)
