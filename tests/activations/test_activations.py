"""Laws of cached activations: the model's own values, each with its right place in the index."""

from dataclasses import replace

import pytest
import torch
from checkpoints import small_tokenizer
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from saelens_steer.activations import (
    Activations,
    cache_activations,
    keep_ordinary,
    store,
    with_answers,
    without_sinks,
)
from saelens_steer.data import Prompt, encode_prompts, render, written_text
from saelens_steer.errors import InputError
from saelens_steer.model import generate

HOOK = "blocks.2.hook_resid_pre"
TEXTS = [
    Prompt("a", "Write a Python function.", "code", "```python\nprint('hello')\n```"),
    Prompt("b", "Let $x$ be a real number with $$x^2 = 2$$ and show your work", "math"),
    Prompt("c", "add", "math", "So \\(x\\) is \\[\\sqrt{2}\\]."),
    Prompt("d", "answer the question and show your work, then the sum of two numbers", "code"),
]
PROMPTS = [replace(p, messages=[{"role": "user", "content": p.text}]) for p in TEXTS]


@pytest.fixture(scope="module")
def acts(random_model) -> Activations:
    return cache_activations(random_model, PROMPTS, hook_name=HOOK, max_norm=None)


def alone(model, ids, hook_name: str = HOOK) -> torch.Tensor:
    """What run_with_cache itself reads off one unpadded prompt [pos, d_model]."""
    with torch.no_grad():
        return model.run_with_cache(torch.tensor([ids]))[1][hook_name][0]


def forbid_forward(model, monkeypatch) -> None:
    monkeypatch.setattr(model, "forward", lambda *a, **k: pytest.fail("a forward pass was made"))


def test_vectors_are_those_of_run_with_cache_on_each_prompt_alone(random_model, acts):
    for encoded in encode_prompts(random_model.tokenizer, PROMPTS):
        rows = acts.index[acts.index["prompt_id"] == encoded.prompt.id]
        ours = acts.vectors[torch.tensor(rows.index.to_numpy())]
        theirs = alone(random_model, encoded.ids)[rows["position"].to_list()]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert acts.vectors.dtype == torch.float32 and acts.hook_name == HOOK


def test_the_index_names_every_ordinary_token_in_order(random_model, acts):
    tokenizer = random_model.tokenizer
    special = set(tokenizer.all_special_ids)
    expected = [
        (encoded.prompt.id, encoded.prompt.domain, position, token, tokenizer.decode([token]))
        for encoded in encode_prompts(tokenizer, PROMPTS)
        for position, token in enumerate(encoded.ids)
        if token not in special
    ]
    columns = ["prompt_id", "domain", "position", "token", "text"]
    assert list(acts.index[columns].itertuples(index=False, name=None)) == expected
    assert len(acts) == len(acts.vectors) == len(acts.index)


def test_parts_divide_each_row_at_the_assistant_start(random_model, acts):
    tokenizer = random_model.tokenizer
    for prompt in PROMPTS:
        rows = acts.index[acts.index["prompt_id"] == prompt.id]
        head = tokenizer(render(tokenizer, prompt), add_special_tokens=False)["input_ids"]
        start = rows[rows["part"] == "assistant_start"]
        assert start["position"].to_list() == [len(head) - 1]
        assert (rows[rows["part"] == "prompt"]["position"] < len(head) - 1).all()
        answer = rows[rows["part"] == "answer"]
        assert "".join(answer["text"]) == (prompt.answer or "")
        assert answer["position"].to_list() == list(range(len(head), len(head) + len(answer)))


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_batch_size_does_not_matter(random_model, acts, batch_size):
    other = cache_activations(
        random_model, PROMPTS, hook_name=HOOK, max_norm=None, batch_size=batch_size
    )
    torch.testing.assert_close(other.vectors, acts.vectors, atol=1e-5, rtol=0)
    assert other.index.equals(acts.index)


def test_last_keeps_the_assistant_start_of_each_prompt(random_model, acts):
    last = cache_activations(random_model, PROMPTS, hook_name=HOOK, tokens="last", max_norm=None)
    starts = acts.index["part"] == "assistant_start"
    assert last.index["prompt_id"].to_list() == [p.id for p in PROMPTS]
    assert last.index.equals(acts.index[starts].reset_index(drop=True))
    expected = acts.vectors[torch.tensor(starts.to_numpy())]
    torch.testing.assert_close(last.vectors, expected, atol=1e-6, rtol=0)


def test_diagnostic_keeps_assistant_starts_fences_and_delimiters_and_no_more(random_model, acts):
    found = cache_activations(
        random_model, PROMPTS, hook_name=HOOK, tokens="diagnostic", max_norm=None
    )
    texts, marks = acts.index["text"].str.strip(), {"```", "$", "$$", "\\(", "\\["}
    expected = acts.index[(acts.index["part"] == "assistant_start") | texts.isin(marks)]
    assert found.index.equals(expected.reset_index(drop=True))
    assert {"$", "\\("} <= set(found.index["text"].str.strip())


def test_answer_keeps_the_tokens_of_answers_alone(random_model, acts):
    found = cache_activations(random_model, PROMPTS, hook_name=HOOK, tokens="answer", max_norm=None)
    rows = acts.index["part"] == "answer"
    assert set(found.index["prompt_id"]) == {"a", "c"}
    assert found.index.equals(acts.index[rows].reset_index(drop=True))
    expected = acts.vectors[torch.tensor(rows.to_numpy())]
    torch.testing.assert_close(found.vectors, expected, atol=1e-6, rtol=0)


def test_answers_that_are_not_there_are_refused_before_any_forward_pass(random_model, monkeypatch):
    forbid_forward(random_model, monkeypatch)
    with pytest.raises(InputError, match="no prompt has one: give prompts with answers"):
        cache_activations(random_model, ["add", "x"], hook_name=HOOK, tokens="answer")


def test_an_assistant_start_that_is_a_special_token_is_kept(random_model, monkeypatch):
    tokenizer = random_model.tokenizer
    template = tokenizer.chat_template.replace("<|im_start|>assistant\n", "<|im_start|>")
    monkeypatch.setattr(tokenizer, "chat_template", template)
    for tokens in ("all", "last", "diagnostic"):
        acts = cache_activations(random_model, PROMPTS, hook_name=HOOK, tokens=tokens)
        starts = acts.index[acts.index["part"] == "assistant_start"]
        assert starts["text"].to_list() == ["<|im_start|>"] * len(PROMPTS)
        others = acts.index[acts.index["part"] != "assistant_start"]
        assert not others["token"].isin(tokenizer.all_special_ids).any()


def test_role_marks_are_special_even_where_the_tokenizer_does_not_list_them():
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken("<|role|>", special=True), AddedToken("<think>")])
    role, think = tokenizer.convert_tokens_to_ids(["<|role|>", "<think>"])
    assert role not in tokenizer.all_special_ids
    tokens = torch.tensor([[tokenizer.eos_token_id, 50, role, think]])
    assert keep_ordinary(tokens, tokenizer).tolist() == [[False, True, False, True]]


def test_without_any_special_token_all_are_ordinary():
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1})))
    assert keep_ordinary(torch.tensor([[0, 1]]), bare).all()


def test_text_that_is_no_chat_is_cached_as_it_stands(random_model):
    acts = cache_activations(random_model, TEXTS[:1], hook_name=HOOK)
    assert acts.begins == [] and "".join(acts.index["text"]) == TEXTS[0].text + TEXTS[0].answer
    ids = random_model.tokenizer(PROMPTS[0].text)["input_ids"]
    starts = acts.index[acts.index["part"] == "assistant_start"]
    assert starts["position"].to_list() == [len(ids) - 1]


def test_a_system_message_comes_first(random_model):
    acts = cache_activations(random_model, PROMPTS[:1], hook_name=HOOK, system="Be brief")
    assert "".join(acts.index["text"]).startswith("system\nBe brief")


# --- attention sinks


def test_a_planted_sink_is_dropped_and_counted(random_model, acts):
    def plant(resid, hook):
        resid[-1, -1] *= 1000  # the last token of the longest prompt: a batch is sorted by length
        return resid

    encoded = encode_prompts(random_model.tokenizer, PROMPTS)
    longest = max(encoded, key=lambda e: len(e.ids)).prompt.id
    with random_model.hooks(fwd_hooks=[(HOOK, plant)]):
        found = cache_activations(random_model, PROMPTS, hook_name=HOOK)
        everything = cache_activations(random_model, PROMPTS, hook_name=HOOK, max_norm=None)
    sink = (acts.index["prompt_id"] == longest) & (acts.index["part"] == "assistant_start")
    assert (found.sinks_dropped, everything.sinks_dropped) == (1, 0)
    assert found.index.equals(acts.index[~sink].reset_index(drop=True))
    assert found.vectors.equal(acts.vectors[torch.tensor(~sink.to_numpy())])
    assert everything.index.equals(acts.index)


def test_sinks_are_told_by_the_median_norm():
    vectors = torch.ones(9, 4)
    vectors[3] *= 10.5
    vectors[5] *= 9.5
    assert (~without_sinks(vectors, 10.0)).nonzero().flatten().tolist() == [3]
    assert without_sinks(vectors, None).all()
    assert without_sinks(vectors[:0], 10.0).shape == (0,)


def test_vectors_that_are_not_finite_are_refused(random_model):
    def spoil(resid, hook):
        resid[0, -1, 0] = float("nan")
        return resid

    with random_model.hooks(fwd_hooks=[(HOOK, spoil)]), pytest.raises(InputError, match="finite"):
        cache_activations(random_model, PROMPTS, hook_name=HOOK)


# --- files


def test_what_is_saved_is_loaded_back_bit_by_bit(acts, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 7 * 4 * acts.d_model)
    folder = Activations(acts.vectors, acts.index, HOOK, 3).save(tmp_path / "activations")
    assert len(list(folder.glob("shard-*.safetensors"))) == -(-len(acts) // 7)
    size = sum(path.stat().st_size for path in folder.glob("shard-*.safetensors"))
    assert size < 2 * acts.vectors.nbytes, "a shard holds its own vectors alone"
    loaded = Activations.load(folder)
    assert loaded.vectors.equal(acts.vectors) and loaded.vectors.dtype == torch.float32
    assert loaded.index.equals(acts.index)
    assert (loaded.hook_name, loaded.sinks_dropped) == (HOOK, 3)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_goes_to_disk_as_it_is_computed_is_what_is_held_in_memory(
    random_model, tmp_path, monkeypatch, size
):
    def plant(resid, hook):
        resid[1, -1] *= 1000
        return resid

    monkeypatch.setattr(store, "SHARD_BYTES", size * 4 * random_model.cfg.d_model)
    options = {"hook_name": HOOK, "batch_size": 2}
    with random_model.hooks(fwd_hooks=[(HOOK, plant)]):
        held = cache_activations(random_model, PROMPTS, **options)
        out = tmp_path / "activations"
        on_disk = cache_activations(random_model, PROMPTS, **options, out=out)
    assert held.sinks_dropped == 2 and on_disk.sinks_dropped == 2
    assert on_disk.vectors.equal(held.vectors) and on_disk.index.equals(held.index)
    pieces = list(on_disk.chunks(5))
    assert {len(p) for p in pieces[:-1]} == {5} and torch.cat(pieces).equal(held.vectors)
    assert sorted(p.suffix for p in out.iterdir())[0] == ".parquet"
    assert not list(out.glob("*.new"))


def test_saving_again_keeps_what_was_there_beside_it(acts, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 7 * 4 * acts.d_model)
    acts.save(tmp_path / "activations")
    few = Activations(acts.vectors[:3], acts.index[:3], HOOK)
    few.save(tmp_path / "activations")
    assert len(Activations.load(tmp_path / "activations")) == 3
    few.save(tmp_path / "activations")  # the same once more
    assert {p.name for p in tmp_path.iterdir()} == {"activations", "activations.earlier-1"}
    assert len(Activations.load(tmp_path / "activations.earlier-1")) == len(acts)


def test_a_folder_that_is_not_whole_is_refused(acts, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no cached activations"):
        Activations.load(tmp_path)
    monkeypatch.setattr(store, "SHARD_BYTES", 7 * 4 * acts.d_model)
    folder = acts.save(tmp_path / "activations")
    (folder / "shard-00001.safetensors").unlink()
    with pytest.raises(InputError, match="is incomplete"):
        Activations.load(folder)


# --- answers


def test_answers_are_written_only_where_there_is_none(random_model):
    prompts = [*PROMPTS, Prompt("e", "two", "math", "")]
    answered = with_answers(random_model, prompts, 5, batch_size=2)
    assert [p.id for p in answered] == list("abcde")
    assert [answered[0], answered[2]] == [prompts[0], prompts[2]]
    for prompt, now in zip(prompts, answered, strict=True):
        assert replace(now, answer=None) == replace(prompt, answer=None)
        assert now.answer == (prompt.answer or greedy(random_model, prompt, 5))


def greedy(model, prompt: Prompt, n: int) -> str:
    return written_text(model.tokenizer, greedy_ids(model, prompt, n))


def greedy_ids(model, prompt: Prompt, n: int) -> list[int]:
    head = torch.tensor([encode_prompts(model.tokenizer, [prompt])[0].head])
    return generate(model, head, torch.ones_like(head, dtype=torch.bool), n)[0].tolist()


def test_the_tokens_of_a_written_answer_are_the_first_that_the_model_wrote(random_model):
    prompts = [Prompt(str(n), "two numbers " * n) for n in range(1, 7)]
    answered = with_answers(random_model, prompts, 6)
    for prompt, encoded in zip(
        prompts, encode_prompts(random_model.tokenizer, answered), strict=True
    ):
        written = greedy_ids(random_model, prompt, 6)
        assert list(encoded.answer) == written[: len(encoded.answer)]
    assert any(p.answer for p in answered)


def test_two_prompts_of_one_id_keep_their_own_answers(random_model):
    baselines = [
        Prompt("x", "add"),
        Prompt("x", "Let $x$ be a real number"),
        Prompt("x", "y", "", "z"),
    ]
    answered = with_answers(random_model, baselines, 5)
    assert [p.answer for p in answered[:2]] == [greedy(random_model, p, 5) for p in baselines[:2]]
    assert answered[2].answer == "z"


def test_no_prompt_needs_no_answer(random_model, monkeypatch):
    forbid_forward(random_model, monkeypatch)
    assert with_answers(random_model, [PROMPTS[0], PROMPTS[2]], 5) == [PROMPTS[0], PROMPTS[2]]
    assert with_answers(random_model, [], 5) == []


# --- refusals


@pytest.mark.parametrize(
    ("hook_name", "hint"),
    [
        ("blocks.2.hook_resid_pr", "hook_resid_pre"),
        ("blocks.4.hook_resid_pre", "0 to 3"),
        ("hook_embed", "not a hook of a layer"),
    ],
)
def test_an_unknown_hook_is_refused_before_any_forward_pass(
    random_model, monkeypatch, hook_name, hint
):
    forbid_forward(random_model, monkeypatch)
    with pytest.raises(InputError, match=hint):
        cache_activations(random_model, PROMPTS, hook_name=hook_name)


def test_the_default_hook_is_the_residual_before_the_middle_layer(random_model, acts):
    assert cache_activations(random_model, PROMPTS[:1]).hook_name == HOOK


def test_no_prompts_are_refused(random_model):
    with pytest.raises(InputError, match="prompt set is empty"):
        cache_activations(random_model, [], hook_name=HOOK)


def test_the_model_is_left_without_hooks(random_model):
    cache_activations(random_model, PROMPTS[:1], hook_name=HOOK)
    assert not any(point.fwd_hooks for point in random_model.hook_dict.values())


def test_a_bfloat16_model_gives_float32_vectors(random_folder):
    from saelens_steer.model import load_model

    model = load_model(str(random_folder), dtype="bfloat16")
    acts = cache_activations(model, PROMPTS, hook_name=HOOK)
    assert acts.vectors.dtype == torch.float32
    assert acts.vectors.equal(acts.vectors.bfloat16().float())
