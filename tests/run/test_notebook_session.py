"""What a notebook does with a model, a vector, chats and a metric of its own."""

from __future__ import annotations

import pandas as pd
import torch
from checkpoints import small_tokenizer
from transformer_lens import HookedTransformer, HookedTransformerConfig

import saelens_steer as ss


def test_a_session_with_everything_of_ones_own(tmp_path):
    torch.manual_seed(0)
    shape = {"n_layers": 4, "d_model": 64, "n_heads": 4, "d_head": 16, "d_mlp": 128, "n_ctx": 256}
    cfg = HookedTransformerConfig(**shape, d_vocab=512, act_fn="gelu", init_weights=True, seed=0)
    model, hook = HookedTransformer(cfg, small_tokenizer()), "blocks.2.hook_resid_pre"

    # a CAA vector: the mean difference of the last residual, made by hand
    def last_resid(text):
        return model.run_with_cache(text, names_filter=hook)[1][hook][0, -1]

    agree, refuse = ["Yes, the answer", "Of course, show"], ["No, the answer", "No, do not show"]
    caa = torch.stack([last_resid(a) - last_resid(b) for a, b in zip(agree, refuse, strict=True)])
    caa = caa.mean(0)

    # a chat with its history, and a system prompt for all
    asked = ["Write a function that adds.", "Show the square root of two.", "Print hello."]
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    chats = [[*history, {"role": "user", "content": text}] for text in asked]
    reading = {"system": "Answer the question.", "hook_name": hook}

    # a metric in a line, a sweep with controls
    entropy = lambda logits: -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)  # noqa: E731
    result = ss.sweep(
        model,
        None,
        chats,
        directions={"caa": caa},
        alphas=[-4, 4],
        metrics=[{"entropy": entropy}, "kl"],
        n_controls=24,
        **reading,
    )
    assert set(result.claims["metric"]) == {"entropy", "kl"}
    assert set(result.claims["direction"]) == {"caa"} and "caa" in result.headline
    measured = result.rows.query("direction == 'caa' and alpha == 4")
    assert len(measured) == 3 and (measured["kl"] > 0).all()

    # texts side by side
    texts = ss.generate(model, chats, {"caa": caa}, alphas=[8], max_new_tokens=12, **reading)
    assert list(texts["variant"].unique()) == ["original", "caa", "random 1 for caa"]
    assert "<mark>" in (texts._repr_html_() or "")

    # the report, saved and reopened
    page = result.report(tmp_path / "caa.html").read_text(encoding="utf-8")
    assert result.headline.split(";")[0] in page and "http://" not in page.split("<main>")[0]
    again = ss.Result.load(result.save(tmp_path / "run"))
    assert again.headline == result.headline and repr(again) == repr(result)
    pd.testing.assert_frame_equal(again.claims, result.claims)
