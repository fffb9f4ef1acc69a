"""A child process that caches to disk, selects and draws controls, and prints its peak memory."""

import json
import sys

import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

import saelens_steer as ss
from benchmarks.memory import Peak
from saelens_steer.activations import cache_activations, store
from saelens_steer.config import FeaturesSpec
from saelens_steer.data import Prompt
from saelens_steer.directions import draw_controls
from saelens_steer.features import contrast, firing_rates, pages_of
from saelens_steer.sae import codec

D_SAE = 512
HOOK = "blocks.1.hook_resid_pre"


def main() -> None:
    """`memory.py PROMPTS FOLDER`: peak memory growth in MB after a small first run."""
    torch.set_num_threads(1)
    store.SHARD_BYTES, store.CHUNK, codec.CHUNK, contrast.EXACT = 1 << 22, 1024, 1024, 1 << 20
    model = ss.load_model("tiny-qwen3")
    sae = StandardSAE(StandardSAEConfig(d_in=model.cfg.d_model, d_sae=D_SAE))
    n, folder = int(sys.argv[1]), sys.argv[2]

    def work(n: int) -> int:
        text = "Write a function that adds two numbers and show your work. " * 8
        prompts = [Prompt(str(i), text, ("code", "math")[i % 2], text) for i in range(n)]
        acts = cache_activations(model, prompts, hook_name=HOOK, out=folder, batch_size=8)
        found = ss.select_features(sae, acts, "code", "math", at="answer")
        for family in ("covariance", "token_difference"):
            draw_controls(family, 64, d_model=model.cfg.d_model, seed=0, vectors=acts)
        firing_rates(acts, sae)
        pages_of(model, sae, acts, range(20), FeaturesSpec(), topic=acts)
        assert len(found.scale.max_act) == D_SAE
        return len(acts)

    work(32)
    with Peak() as peak:
        tokens = work(n)
    print(json.dumps({"tokens": tokens, "grown": peak.grown}))


if __name__ == "__main__":
    main()
