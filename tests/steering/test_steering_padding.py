"""Padding is never steered and `last` is the last token of the text, whichever side is padded."""

from __future__ import annotations

import pytest
import torch
from checkpoints import random_family

from saelens_steer.errors import InputError
from saelens_steer.model import generate, load_model
from saelens_steer.steering import Edit, add, steered

HOOK = "blocks.2.hook_resid_pre"
TEXTS = ["add two numbers", "def add(a, b): return the sum of the two"]
KINDS = ("all", "prompt", "last")


@pytest.fixture(scope="module", params=["HookedTransformer", "TransformerBridge"])
def qwen(request, tmp_path_factory):
    folder = random_family(tmp_path_factory.mktemp("qwen"), "qwen")
    return load_model(str(folder), model_class=request.param)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Padding, BOS and EOS are one token."""
    model = load_model(str(random_family(tmp_path_factory.mktemp("gpt2"), "gpt2")))
    model.tokenizer.pad_token = model.tokenizer.eos_token
    return model


@pytest.fixture
def on_the_right(gpt2, monkeypatch):
    monkeypatch.setattr(gpt2.tokenizer, "padding_side", "right")
    return gpt2


def rows_of(model):
    return [model.tokenizer(t, add_special_tokens=False)["input_ids"] for t in TEXTS]


def padded(model, rows, side="right"):
    width, pad = max(map(len, rows)), model.tokenizer.pad_token_id
    pads = [[pad] * (width - len(row)) for row in rows]
    both = zip(rows, pads, strict=True)
    tokens = torch.tensor([r + p if side == "right" else p + r for r, p in both])
    mask = torch.tensor(
        [
            [1] * len(r) + [0] * len(p) if side == "right" else [0] * len(p) + [1] * len(r)
            for r, p in zip(rows, pads, strict=True)
        ]
    )
    return tokens, mask


def steered_at(model, tokens, positions, **options):
    """Which entries an edit changes."""
    seen = []

    def note(resid):
        seen.append(resid)
        return resid + 1.0

    with steered(model, Edit("note", note, pointwise=False), HOOK, positions), torch.no_grad():
        before = model.run_with_cache(tokens, names_filter=HOOK, **options)[1][HOOK]
    return (before != seen[-1]).any(-1)


def wanted(mask, positions):
    """The entries that should be steered, from the true mask."""
    real = mask.bool()
    if positions != "last":
        return real
    return real & (real.long().flip(1).cumsum(1).flip(1) == 1)


@pytest.mark.parametrize("positions", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("with_mask", [True, False])
def test_padding_is_known_by_its_token_or_by_the_mask(qwen, positions, side, with_mask):
    tokens, mask = padded(qwen, rows_of(qwen), side)
    given = {"attention_mask": mask} if with_mask else {}
    assert steered_at(qwen, tokens, positions, **given).equal(wanted(mask, positions))


@pytest.mark.parametrize("positions", KINDS)
def test_a_mask_tells_padding_from_an_end_of_text_of_the_same_token(gpt2, positions):
    eos = gpt2.tokenizer.eos_token_id
    rows = [[*rows_of(gpt2)[0], eos], rows_of(gpt2)[1]]
    tokens, mask = padded(gpt2, rows)
    found = steered_at(gpt2, tokens, positions, attention_mask=mask)
    real = mask.bool()
    if positions == "last":
        assert found.sum(1).tolist() == [1, 1] and not found[~real].any()
    else:
        assert found[real].all() and not found[~real].any()


def test_rows_padded_with_the_token_that_ends_texts_have_no_clear_last_token(gpt2):
    tokens, mask = padded(gpt2, rows_of(gpt2))
    with pytest.raises(InputError, match="attention_mask with zeros"):
        steered_at(gpt2, tokens, "last")
    assert steered_at(gpt2, tokens, "all").equal(mask.bool())


@pytest.mark.parametrize("positions", KINDS)
def test_a_tokenizer_that_pads_on_the_right_makes_it_clear(on_the_right, positions):
    bos = on_the_right.tokenizer.bos_token_id
    tokens, mask = padded(on_the_right, [[bos, *row] for row in rows_of(on_the_right)])
    assert steered_at(on_the_right, tokens, positions).equal(wanted(mask, positions))


@pytest.mark.parametrize("n", [1, 2])
def test_texts_that_all_end_in_one_eos_end_there(gpt2, n):
    row = [*rows_of(gpt2)[0], gpt2.tokenizer.eos_token_id]
    found = steered_at(gpt2, torch.tensor([row] * n), "last")
    assert found[:, -1].all() and found.sum() == n


def test_generation_from_right_padded_rows_steers_the_last_token_of_each(qwen):
    tokens, mask = padded(qwen, rows_of(qwen))
    v = torch.randn(qwen.cfg.d_model)
    with steered(qwen, add(v), HOOK, "last") as receipt, torch.no_grad():
        qwen(tokens, attention_mask=mask)
        qwen(torch.cat([tokens, tokens[:, :1]], dim=1))
    assert receipt.positions == 4


@pytest.mark.parametrize(("family", "template"), [("llama3", True), ("gemma", True)])
def test_two_bos_at_the_start_of_a_row_are_said_once(tmp_path, capsys, family, template):
    model = load_model(str(random_family(tmp_path / family, family)))
    asked = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "add"}], tokenize=False, add_generation_prompt=True
    )
    double = model.tokenizer(asked, return_tensors="pt")["input_ids"]
    single = model.tokenizer(asked, return_tensors="pt", add_special_tokens=False)["input_ids"]
    for tokens, n in ((single, 0), (double, 1), (double, 0)):
        with steered(model, add(torch.ones(model.cfg.d_model)), HOOK), torch.no_grad():
            model(tokens)
        assert capsys.readouterr().err.count("twice") == n


ENDS = {
    "one": [[10, 11, 12, "pad"]],
    "two": [[10, "pad", "pad"]],
    "in a batch": [[10, 11, "pad"], [20, 21, 22]],
}
"""Rows without padding that hold the padding token."""


def with_pads(model, rows):
    pad = model.tokenizer.pad_token_id
    return torch.tensor([[pad if i == "pad" else i for i in row] for row in rows])


@pytest.mark.parametrize("rows", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("stated", [True, False])
def test_a_positions_mask_chooses_padding_tokens_too(qwen, rows, stated):
    tokens = with_pads(qwen, rows)
    given = {"attention_mask": torch.ones_like(tokens)} if stated else {}
    for chosen in (torch.ones_like(tokens).bool(), tokens == qwen.tokenizer.pad_token_id):
        assert steered_at(qwen, tokens, chosen, **given).equal(chosen)


@pytest.mark.parametrize("rows", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("positions", KINDS)
def test_a_stated_attention_mask_is_the_whole_truth_about_padding(qwen, gpt2, rows, positions):
    for model in (qwen, gpt2):
        tokens = with_pads(model, rows)
        everything = torch.ones_like(tokens)
        found = steered_at(model, tokens, positions, attention_mask=everything)
        assert found.equal(wanted(everything, positions))


def test_no_pass_inherits_an_attention_mask_that_another_stated(qwen):
    tokens, mask = padded(qwen, rows_of(qwen))
    seen = Edit("seen", lambda x: x + 1.0)
    with steered(qwen, seen, HOOK) as receipt, torch.no_grad():
        qwen.run_with_cache(tokens, attention_mask=torch.ones_like(mask), stop_at_layer=1)
        qwen(tokens)
    assert receipt.positions == int(mask.sum())


@pytest.mark.parametrize("side", ["begin", "end"])
def test_texts_that_generate_continues_are_whole_whatever_token_they_hold(qwen, side):
    pad, n_new = qwen.tokenizer.pad_token_id, 4
    rows = [[pad, 10, 11, 12], [13, 14]] if side == "begin" else [[10, 11, 12, pad], [13, pad]]
    tokens, mask = padded(qwen, rows, "left")
    v = 3 * torch.ones(qwen.cfg.d_model)
    for positions, want in (("last", 2), ("prompt", 6), ("all", 6 + 2 * (n_new - 1))):
        with steered(qwen, add(v), HOOK, positions) as receipt:
            generate(qwen, tokens, mask.bool(), n_new)
        assert receipt.positions == want
