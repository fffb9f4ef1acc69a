"""Laws of quality figures: a perfect SAE, an empty one, and a hand computation."""

import copy

import numpy as np
import pytest
import torch
from checkpoints import small_tokenizer
from sae_lens import SAE
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from saelens_steer.errors import InputError
from saelens_steer.sae import DENSE, sae_quality
from saelens_steer.sae import quality as module
from saelens_steer.sae.fit import density_histogram
from saelens_steer.sae.quality import packed_contexts

HOOK = "blocks.2.hook_resid_pre"
SIZE = 16


@pytest.fixture(scope="module")
def texts(corpus) -> list[str]:
    return corpus.read_text().split("\n\n")[:40]


def standard(d_in: int, d_sae: int) -> SAE:
    sae = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False))
    for weight in sae.parameters():
        weight.data.zero_()
    return sae


def identity_sae(d: int) -> SAE:
    """relu(x) − relu(−x) = x, with two features for each coordinate."""
    sae = standard(d, 2 * d)
    sae.W_enc.data = torch.cat([torch.eye(d), -torch.eye(d)], dim=1)
    sae.W_dec.data = torch.cat([torch.eye(d), -torch.eye(d)])
    return sae


def random_sae(d: int) -> SAE:
    sae = standard(d, 48)
    draw = torch.Generator().manual_seed(0)
    sae.W_dec.data = torch.randn(48, d, generator=draw) / d**0.5
    sae.W_enc.data = sae.W_dec.data.T.clone()
    sae.b_enc.data = torch.randn(48, generator=draw) - 0.5
    return sae


def test_the_identity_explains_and_recovers_everything(random_model, texts):
    sae = identity_sae(random_model.cfg.d_model)
    found = sae_quality(random_model, sae, HOOK, texts, SIZE)
    assert found["explained_variance"] == pytest.approx(1, abs=1e-6)
    assert found["loss_recovered"] == pytest.approx(1, abs=1e-5)
    assert found["ce_loss_sae"] == pytest.approx(found["ce_loss"], abs=1e-5)
    assert found["mse"] == pytest.approx(0, abs=1e-6)
    assert found["l0"] == pytest.approx(random_model.cfg.d_model), "one of each pair fires"
    assert found["dead_share"] == 0


def test_the_zero_sae_recovers_nothing(random_model, texts):
    sae = standard(random_model.cfg.d_model, 8)
    found = sae_quality(random_model, sae, HOOK, texts, SIZE)
    assert found["loss_recovered"] == pytest.approx(0, abs=1e-6)
    assert found["ce_loss_sae"] == pytest.approx(found["ce_loss_zero"])
    assert found["ce_loss_zero"] != pytest.approx(found["ce_loss"], abs=1e-2)
    assert found["explained_variance"] <= 0
    assert (found["l0"], found["dead_share"]) == (0, 1)


def test_a_constant_sae_at_the_mean_explains_nothing(random_model, texts):
    tokens = packed_contexts(random_model, texts, SIZE)
    sae = standard(random_model.cfg.d_model, 8)
    sae.b_dec.data = residuals(random_model, tokens).flatten(0, 1).mean(0)
    found = sae_quality(random_model, sae, HOOK, texts, SIZE, max_norm=None)
    assert found["explained_variance"] == pytest.approx(0, abs=1e-5)


def residuals(model, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=HOOK)[1][HOOK]


@torch.no_grad()
def test_every_figure_equals_a_calculation_by_hand(random_model, texts, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 7)
    sae = random_sae(random_model.cfg.d_model)
    found = sae_quality(random_model, sae, HOOK, texts, SIZE)
    ids = [i for t in texts for i in random_model.tokenizer(t)["input_ids"]]
    tokens = torch.tensor(ids[: len(ids) // SIZE * SIZE]).reshape(-1, SIZE)
    x = residuals(random_model, tokens).flatten(0, 1)
    z = sae.encode(x)
    error = (x - sae.decode(z)).pow(2).sum(1)
    assert found["n_tokens"] == len(x) == tokens.numel() and found["sinks_dropped"] == 0
    assert found["mse"] == pytest.approx(float(error.mean()), rel=1e-5)
    assert found["l0"] == pytest.approx(float((z > 0).sum(1).float().mean()))
    assert found["dead_share"] == pytest.approx(float((~(z > 0).any(0)).float().mean()))
    spread = (x - x.mean(0)).pow(2).sum()
    assert found["explained_variance"] == pytest.approx(float(1 - error.sum() / spread), rel=1e-4)

    rebuilt = sae.decode(z)
    cosine = (x * rebuilt).sum(1) / x.norm(dim=1) / rebuilt.norm(dim=1)
    assert found["cosine"] == pytest.approx(float(cosine.mean()), rel=1e-5)
    ratio = rebuilt.norm(dim=1) / x.norm(dim=1)
    assert found["l2_ratio"] == pytest.approx(float(ratio.mean()), rel=1e-5)
    assert found["l1"] == pytest.approx(float(z.sum(1).mean()), rel=1e-5)
    rate = (z > 0).float().mean(0)
    assert found["dense_share"] == pytest.approx(float((rate > 0.1).float().mean()))
    assert sum(found["density"]["counts"]) == int((rate > 0).sum())

    def loss(replaced) -> float:
        hooks = [] if replaced is None else [(HOOK, lambda resid, hook: replaced(resid))]
        return float(random_model.run_with_hooks(tokens, return_type="loss", fwd_hooks=hooks))

    intact, spliced, zero = loss(None), loss(sae), loss(torch.zeros_like)
    assert found["ce_loss"] == pytest.approx(intact, abs=1e-5)
    assert found["ce_loss_sae"] == pytest.approx(spliced, abs=1e-5)
    assert found["ce_loss_zero"] == pytest.approx(zero, abs=1e-5)
    recovered = (zero - spliced) / (zero - intact)
    assert found["loss_recovered"] == pytest.approx(recovered, abs=1e-4)

    def log_probs(replaced) -> torch.Tensor:
        hooks = [] if replaced is None else [(HOOK, lambda resid, hook: replaced(resid))]
        return random_model.run_with_hooks(tokens, fwd_hooks=hooks).log_softmax(-1).double()

    p = log_probs(None)
    kl, kl_zero = (
        float((p.exp() * (p - log_probs(f))).sum(-1).mean()) for f in (sae, torch.zeros_like)
    )
    assert found["kl_sae"] == pytest.approx(kl, rel=1e-4)
    assert found["kl_zero"] == pytest.approx(kl_zero, rel=1e-4)
    assert found["kl_recovered"] == pytest.approx(1 - kl / kl_zero, rel=1e-4)


class Batches:
    """The part of an activation store that SAELens's evals use, serving our contexts in batches."""

    def __init__(self, tokens: torch.Tensor, size: int) -> None:
        self.parts, self.store_batch_size_prompts = tokens.split(size), size
        self.context_size = tokens.shape[1]
        self.reset_input_dataset()

    def get_batch_tokens(self, size: int) -> torch.Tensor:
        assert size == self.store_batch_size_prompts
        return next(self.left)

    def reset_input_dataset(self) -> None:
        self.left = iter(self.parts)


SAE_LENS_NAMES = {
    "l0": ("sparsity", "l0"),
    "l1": ("sparsity", "l1"),
    "mse": ("reconstruction_quality", "mse"),
    "explained_variance": ("reconstruction_quality", "explained_variance"),
    "cosine": ("reconstruction_quality", "cossim"),
    "l2_ratio": ("shrinkage", "l2_ratio"),
    "ce_loss": ("model_performance_preservation", "ce_loss_without_sae"),
    "ce_loss_sae": ("model_performance_preservation", "ce_loss_with_sae"),
    "ce_loss_zero": ("model_performance_preservation", "ce_loss_with_ablation"),
    "loss_recovered": ("model_performance_preservation", "ce_loss_score"),
    "kl_sae": ("model_behavior_preservation", "kl_div_with_sae"),
    "kl_zero": ("model_behavior_preservation", "kl_div_with_ablation"),
    "kl_recovered": ("model_behavior_preservation", "kl_div_score"),
}


def test_every_figure_equals_that_of_sae_lens_on_the_same_batches(tiny_model):
    """On chats, whose special tokens both ignore, with the shipped model, which predicts well."""
    from sae_lens.evals import get_eval_everything_config, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    from saelens_steer.data import load_corpus

    hook, size = "blocks.4.hook_resid_pre", 64
    texts = list(load_corpus("tiny", tiny_model.tokenizer, 2048, 3)["text"])
    sae = random_sae(tiny_model.cfg.d_model)
    sae.W_dec.data *= 3
    sae.cfg.metadata.hook_name = hook
    found = sae_quality(tiny_model, sae, hook, texts, size, max_norm=None)
    tokens = packed_contexts(tiny_model, texts, size)
    batches = Batches(tokens, 16)
    config = get_eval_everything_config(16, len(batches.parts), len(batches.parts))
    ids = tiny_model.tokenizer.all_special_ids  # SAELens knows only those with a role, such as eos
    theirs, by_feature = run_evals(
        sae, batches, tiny_model, ActivationScaler(), config, exclude_special_tokens=ids
    )
    special = torch.isin(tokens, torch.tensor(ids))
    assert special.any() and found["n_tokens"] == int((~special).sum())
    for name, (group, key) in SAE_LENS_NAMES.items():
        assert found[name] == pytest.approx(theirs[group][key], rel=1e-4), name
    rate = torch.tensor(by_feature["feature_density"])
    assert found["dead_share"] == pytest.approx(float((rate == 0).float().mean()))
    assert found["dense_share"] == pytest.approx(float((rate > DENSE).float().mean()))
    assert found["density"] == density_histogram(rate.double().numpy())


def test_the_histogram_of_densities_counts_every_feature_that_fires_once():
    found = density_histogram(np.array([0.0, 1e-9, 0.02, 0.02, 0.5, 1.0]))
    edges, counts = found["log10_edges"], found["counts"]
    assert sum(counts) == 5 and len(edges) == len(counts) + 1
    assert counts[0] == 1 and counts[edges.index(-1.75)] == 2 and counts[-1] == 1


def test_batches_do_not_matter(random_model, texts, monkeypatch):
    sae = random_sae(random_model.cfg.d_model)
    whole = sae_quality(random_model, sae, HOOK, texts, SIZE)
    monkeypatch.setattr(module, "BATCH", 3)
    again = sae_quality(random_model, sae, HOOK, texts, SIZE)
    assert again.pop("density") == whole.pop("density")
    assert again == pytest.approx(whole, abs=1e-4)


def test_special_tokens_and_sinks_are_left_alone(random_model, texts):
    special = ["<|im_start|>user\n" + text + "<|im_end|>" for text in texts]
    tokens = packed_contexts(random_model, special, SIZE)
    ids = torch.tensor(random_model.tokenizer.all_special_ids)
    n_special = int(torch.isin(tokens, ids).sum())

    def plant(resid, hook):
        resid = resid.clone()
        resid[:, 0] *= 1000
        return resid

    with random_model.hooks(fwd_hooks=[(HOOK, plant)]):
        sae = standard(random_model.cfg.d_model, 8)
        found = sae_quality(random_model, sae, HOOK, special, SIZE)
        n_sinks = int((~torch.isin(tokens[:, 0], ids)).sum())
    assert n_special > 0 < n_sinks
    assert found["sinks_dropped"] == n_sinks
    assert found["n_tokens"] == tokens.numel() - n_special - n_sinks
    everything = sae_quality(random_model, sae, HOOK, special, SIZE, max_norm=None)
    assert everything["sinks_dropped"] == 0
    assert everything["n_tokens"] == tokens.numel() - n_special


def test_a_bfloat16_model_is_measured_with_a_float32_sae_in_float32(random_folder, texts):
    from saelens_steer.model import load_model

    model = load_model(str(random_folder), dtype="bfloat16")
    found = sae_quality(model, identity_sae(model.cfg.d_model), HOOK, texts, SIZE)
    assert found["loss_recovered"] == pytest.approx(1, abs=1e-6)
    assert found["explained_variance"] == pytest.approx(1, abs=1e-6)
    assert found["ce_loss"] != torch.tensor(found["ce_loss"]).bfloat16().item()


def test_contexts_and_texts_begin_with_bos_where_the_models_texts_do(random_model, texts):
    plain = packed_contexts(random_model, texts, SIZE)
    ids = [i for t in texts for i in random_model.tokenizer(t)["input_ids"]]
    assert plain.flatten().tolist() == ids[: len(ids) // SIZE * SIZE]
    with_bos = copy.copy(random_model)
    with_bos.tokenizer = small_tokenizer(bos="<bos>")
    bos, rows = with_bos.tokenizer.bos_token_id, packed_contexts(with_bos, texts, SIZE)
    by_hand: list[int] = []
    for text in texts:
        by_hand += [bos] * (len(by_hand) % SIZE > 0)
        for i in with_bos.tokenizer(text, add_special_tokens=False)["input_ids"]:
            by_hand += [bos, i] if len(by_hand) % SIZE == 0 else [i]
    assert rows.flatten().tolist() == by_hand[: len(by_hand) // SIZE * SIZE]


def test_too_little_text_is_refused(random_model):
    sae = standard(random_model.cfg.d_model, 8)
    with pytest.raises(InputError, match=r"\d+ tokens, which do not fill a context of 64"):
        sae_quality(random_model, sae, HOOK, ["add two"], 64)


def test_the_model_is_left_without_hooks(random_model, texts):
    sae_quality(random_model, standard(random_model.cfg.d_model, 8), HOOK, texts, SIZE)
    assert not any(point.fwd_hooks for point in random_model.hook_dict.values())
