"""`ss.compare_edits`: what the model writes with edits, beside what is steered by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from steering.plain_edits import F, G, encoded, firing_sae, our_edits

import saelens_steer as ss
from saelens_steer.config import CompareEditsSettings
from saelens_steer.data import Prompt, encode_prompts, pad_left
from saelens_steer.metrics import kl
from saelens_steer.model import generate, last_token_logits, run_to_hook, stop_token_ids
from saelens_steer.steering import Variant, add, set_to, steered
from saelens_steer.steering.sae_edits import ablate
from saelens_steer.sweeps import EditComparison, edits_table

HOOK, N_NEW, NEVER = "blocks.2.hook_resid_pre", 4, 63
TEXTS = [f"sum of {i} numbers" + " and more" * i for i in range(3)]


@pytest.fixture(scope="module")
def sae(random_model):
    """An SAE whose features fire on the residuals of the random model."""
    tokens = torch.tensor([[5, 6, 7, 8]])
    size = run_to_hook(random_model, tokens, torch.ones_like(tokens).bool(), HOOK).norm(dim=-1)
    return firing_sae(random_model.cfg.d_model, float(size.mean()))


@pytest.fixture(scope="module")
def edits(sae):
    """Variants that push about as hard as the residual is long."""
    push = torch.randn(sae.cfg.d_in, generator=torch.Generator().manual_seed(1))
    ours = our_edits(sae, 2.0 * push)
    kinds = ("add", "suppress_and_boost", "reconstruct", "set two")
    return {name: ours[name] for name in kinds} | {"never": ablate(sae, NEVER)}


@pytest.fixture(scope="module")
def table(random_model, edits):
    return patched(random_model, edits)


def patched(model, variants, prompts=TEXTS, **settings) -> pd.DataFrame:
    settings = {"max_new_tokens": N_NEW, "metrics": ["kl", "distinct_words"], **settings}
    return ss.compare_edits(model, variants, prompts, HOOK, **settings)


def padded(model, texts):
    """The texts' tokens and mask."""
    heads = [e.head for e in encode_prompts(model.tokenizer, texts)]
    return pad_left(heads, model.tokenizer)


def alone(model, text: str, edit, **where) -> tuple[str, float]:
    """Completion and KL of one prompt steered by hand."""
    head = encode_prompts(model.tokenizer, [text])[0].head
    tokens = torch.tensor([head])
    mask = torch.ones_like(tokens).bool()
    plain = last_token_logits(model, tokens, mask)
    if edit is None:
        logits, new = plain, generate(model, tokens, mask, N_NEW)
    else:
        logits = plain
        if where.get("positions") != "generated":
            with steered(model, edit, HOOK, **where):
                logits = last_token_logits(model, tokens, mask)
        with steered(model, edit, HOOK, **where):
            new = generate(model, tokens, mask, N_NEW)
    ids, stops = new[0].tolist(), stop_token_ids(model)
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    return model.tokenizer.decode(ids[:end], skip_special_tokens=True), float(
        kl(logits, baseline=plain)
    )


def test_one_row_for_every_prompt_and_variant_the_original_first(table, edits):
    assert list(table["variant"]) == ["original", *edits] * len(TEXTS)
    assert list(table["prompt"]) == [t for t in TEXTS for _ in range(1 + len(edits))]
    assert table["prompt_id"].unique().tolist() == ["1", "2", "3"]
    assert set(table["hook_name"]) == {"", HOOK}
    two = table[table["variant"] == "set two"]
    assert set(two["edits"]) == {"set(2.5)[5]+ablate[9]:keep"}


def test_the_original_is_the_model_as_it_is(random_model, table):
    rows = table[table["variant"] == "original"]
    assert rows["completion"].tolist() == [alone(random_model, t, None)[0] for t in TEXTS]
    assert (rows["kl"] == 0).all()
    assert (rows["receipt_changed"] == 0).all() and (rows["receipt_rel_norm"] == 0).all()
    assert rows["receipt_act"].isna().all()
    assert (rows["edits"] == "").all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ("random_model", "random_bridge"))
def test_each_variant_writes_what_steering_by_hand_writes(request, name, edits):
    model = request.getfixturevalue(name)
    table = patched(model, edits).set_index(["variant", "prompt"])
    changed = 0
    for (variant, text), row in table.iterrows():
        edit = None if variant == "original" else edits[variant]
        completion, moved = alone(model, text, edit)
        assert row["completion"] == completion, (variant, text)
        assert row["kl"] == pytest.approx(moved, abs=1e-4)
        changed += completion != table.loc[("original", text), "completion"]
    assert changed >= 6
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


WHERE = {
    "the last prompt token": {"positions": "last"},
    "the prompt": {"positions": "prompt"},
    "what is generated": {"positions": "generated"},
    "no special tokens": {"exclude_special_tokens": True},
    "no large norms": {"max_norm": 1.1},
}


@pytest.mark.parametrize("case", WHERE)
def test_settings_mean_what_they_mean_to_steered(random_model, edits, case):
    few = {name: edits[name] for name in ("add", "set two")}
    table = patched(random_model, few, **WHERE[case]).set_index(["variant", "prompt"])
    for name, edit in few.items():
        for text in TEXTS:
            completion, moved = alone(random_model, text, edit, **WHERE[case])
            row = table.loc[(name, text)]
            assert row["completion"] == completion
            assert row["kl"] == pytest.approx(moved, abs=1e-4)


def test_positions_generated_leave_the_prompts_logits_as_they_are(random_model, edits):
    table = patched(random_model, edits, positions="generated")
    assert (table["kl"] == 0).all()
    assert (table["receipt_changed"] == 0).all()
    original = table[table["variant"] == "original"].set_index("prompt")["completion"]
    rows = table[table["variant"] == "add"].set_index("prompt")["completion"]
    assert (rows != original).any()


def test_texts_that_end_at_their_first_token_are_not_edited_beyond_the_prompt(
    random_model, edits, monkeypatch
):
    first = alone(random_model, TEXTS[0], None)[0]
    new = generate(random_model, *padded(random_model, TEXTS), 1)[:, 0]
    stops = [*stop_token_ids(random_model), *new.tolist()]
    for module in ("model.generation", "sweeps.compare_edits"):
        monkeypatch.setattr(f"saelens_steer.{module}.stop_token_ids", lambda _: stops)
    table = patched(random_model, edits, positions="generated")
    assert first and (table["completion"] == "").all() and not table["truncated"].any()


def test_a_batch_of_prompts_equals_one_by_one(table, random_model, edits):
    single = patched(random_model, edits, batch_size=1)
    exact = ["prompt_id", "variant", "completion", "truncated", "n_tokens", "receipt_changed"]
    pd.testing.assert_frame_equal(single[exact], table[exact])
    numbers = ["kl", "distinct_words", "receipt_rel_norm", "receipt_act", "receipt_act_before"]
    pd.testing.assert_frame_equal(single[numbers], table[numbers], atol=1e-4, rtol=1e-4)
    three = patched(random_model, edits, batch_size=2)
    pd.testing.assert_frame_equal(three[exact], table[exact])


def test_ablating_a_feature_that_never_fires_changes_nothing_and_says_so(table):
    never = table[table["variant"] == "never"].reset_index(drop=True)
    original = table[table["variant"] == "original"].reset_index(drop=True)
    assert (never["receipt_changed"] == 0).all()
    assert (never["receipt_act_before"] == 0).all() and (never["receipt_act"] == 0).all()
    same = ["completion", "kl", "n_tokens"]
    pd.testing.assert_frame_equal(never[same], original[same])


def test_the_receipt_has_the_activations_before_the_edit_and_after_re_encoding(random_model, sae):
    table = patched(random_model, {"v": set_to(sae, F, 9.0), "two": set_to(sae, [F, G], 2.0)})
    for name, which, value in (("v", [F], 9.0), ("two", [F, G], 2.0)):
        for text, row in table[table["variant"] == name].set_index("prompt").iterrows():
            tokens = torch.tensor([encode_prompts(random_model.tokenizer, [text])[0].head])
            x = run_to_hook(random_model, tokens, torch.ones_like(tokens).bool(), HOOK)[0]
            z = encoded(sae, x)
            moved = x + ((value - z[:, which]) @ sae.W_dec[which]).detach()
            before = z[:, which].amax(0).mean()
            after = encoded(sae, moved)[:, which].amax(0).mean()
            assert row["receipt_act_before"] == pytest.approx(float(before), rel=1e-4)
            assert row["receipt_act"] == pytest.approx(float(after), rel=1e-4)
            assert row["receipt_changed"] == len(x)
            size = ((moved - x).norm(dim=-1) / x.norm(dim=-1)).mean()
            assert row["receipt_rel_norm"] == pytest.approx(float(size), rel=1e-4)


def at_two_hooks(model, variant: Variant, sae) -> pd.Series:
    """The patched row of one prompt."""
    prompts = encode_prompts(model.tokenizer, [Prompt("p", TEXTS[2])])
    spec = CompareEditsSettings(max_new_tokens=2)
    return edits_table(EditComparison(model, prompts, [variant], [], spec, sae)).iloc[1]


@pytest.mark.parametrize("name", ("random_model", "random_bridge"))
def test_at_two_hooks_the_activations_are_those_where_the_sae_was_made_for(request, name, sae):
    model = request.getfixturevalue(name)
    made_for = firing_sae(sae.cfg.d_in, 10.0, hook_name="blocks.1.hook_resid_post")
    edits = {"blocks.1.hook_mlp_out": (add(sae.W_dec[G]),), HOOK: (set_to(made_for, F, 40.0),)}
    row = at_two_hooks(model, Variant("v", edits, (F,)), made_for)
    tokens = torch.tensor([encode_prompts(model.tokenizer, [TEXTS[2]])[0].head])
    mask = torch.ones_like(tokens).bool()
    with steered(model, edits["blocks.1.hook_mlp_out"], "blocks.1.hook_mlp_out"):
        z = encoded(made_for, run_to_hook(model, tokens, mask, HOOK)[0])
    assert row["receipt_act_before"] == pytest.approx(float(z[:, F].max()), rel=1e-3)
    assert row["receipt_act"] > row["receipt_act_before"]
    assert row["receipt_changed"] == 2 * tokens.shape[1]
    elsewhere = {"blocks.1.hook_mlp_out": (add(sae.W_dec[F]),)}
    assert pd.isna(at_two_hooks(model, Variant("v", elsewhere, (F,)), made_for)["receipt_act"])


def test_a_decoder_alone_can_be_added_and_its_activations_are_not_known(random_model, sae):
    bare = firing_sae(sae.cfg.d_in)
    bare.cfg.metadata.decoder_only = True
    with pytest.raises(ss.InputError, match="only a decoder"):
        patched(random_model, {"v": ss.ablate(bare, F)})
    row = at_two_hooks(random_model, Variant("v", {HOOK: (add(bare.W_dec[F], 3.0),)}, (F,)), bare)
    assert pd.isna(row["receipt_act"]) and row["receipt_changed"] > 0


def test_prompts_may_be_raw_text_and_stand_under_a_system_message(random_model, edits):
    bare = patched(random_model, {"add": edits["add"]}, TEXTS[:1], chat=False)
    tokens = torch.tensor([random_model.tokenizer(TEXTS[0])["input_ids"]])
    new = generate(random_model, tokens, torch.ones_like(tokens).bool(), N_NEW)[0]
    expected = random_model.tokenizer.decode(new, skip_special_tokens=True)
    assert bare.loc[0, "completion"] == expected
    told = {"chat": True, "system": "Answer briefly. " * 3}
    told = patched(random_model, {"add": edits["add"]}, TEXTS[:1], **told)
    asked = patched(random_model, {"add": edits["add"]}, TEXTS[:1], chat=True)
    assert told.loc[0, "completion"] != asked.loc[0, "completion"] != expected


@pytest.fixture
def untouched(random_model, monkeypatch):
    """The model, of which no pass is asked."""
    refuse = lambda *args, **kwargs: pytest.fail("a forward pass was made")  # noqa: E731
    monkeypatch.setattr(random_model, "forward", refuse)
    return random_model


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"variants": {"original": add(torch.ones(32))}}, "cannot be called 'original'"),
        ({"variants": {"v": []}}, "'v' has no edit"),
        ({"variants": {}}, r"nothing to apply: give \{\"push\": ss\.add\(vector, 2\.0\)\}"),
        ({"positions": "generated", "max_new_tokens": 1}, "max_new_tokens should be at least 2"),
        ({"variants": {"v": [ablate(firing_sae(32), F)] * 2}}, "two edits at one hook"),
        ({"variants": {"v": ablate(firing_sae(16), F)}}, "16 dimensions"),
        ({"hook_name": "blocks.2.hook_resid_pr"}, "hook_resid_pre"),
        ({"hook_name": "blocks.9.hook_resid_pre"}, "0 to 3"),
        ({"hook_name": "blocks.2.attn.hook_q"}, "one vector for each position"),
        ({"prompts": []}, "prompts is empty"),
        (
            {"max_new_tokens": 600},
            r"max_new_tokens \(600\) more would exceed the model's n_ctx \(512\)",
        ),
        ({"max_norm": -1.0}, "max_norm: should be a positive number"),
        ({"metrics": ["latex_firs"]}, "latex_first"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_forward_pass(untouched, change, hint):
    given = {"variants": {"v": add(torch.ones(32))}, "prompts": TEXTS, "hook_name": HOOK} | change
    with pytest.raises(ss.InputError, match=hint):
        ss.compare_edits(untouched, **given)
