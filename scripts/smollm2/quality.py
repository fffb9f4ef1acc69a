"""How well an SAE of the study reconstructs, by domain, beside simpler replacements of the stream:
`python -m scripts.smollm2.quality SAE [ACTIVATIONS]`. Its texts were held out of the training; the
mean, the principal components and the silent features come from the cached activations."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

import saelens_steer as ss
from saelens_steer.activations import keep_ordinary, without_sinks
from saelens_steer.config import load_config
from saelens_steer.sae.training.activation_stream import at_least
from saelens_steer.sae.training.train import load_texts

CONFIG = "configs/smollm2/sae.yaml"
CONTEXT, BATCH, MOST_CONTEXTS = 128, 16, 128
COMPONENTS, FITTED, ENCODED = 64, 100_000, 500_000
SINK = 10.0

Replace = Callable[[Tensor], Tensor]


def vectors_in(folder: Path) -> Iterator[Tensor]:
    (folder,) = folder.iterdir()  # the activations of one model, hook and order of texts
    for file in sorted(folder.rglob("*.safetensors")):
        yield load_file(file)["vectors"].float()


def replacements(sae: Any, folder: Path) -> dict[str, Replace]:
    some = torch.cat(at_least(vectors_in(folder), FITTED))
    mean = some.mean(0)
    top = torch.linalg.eigh((some - mean).T @ (some - mean)).eigenvectors[:, -COMPONENTS:]
    return {
        "SAE": lambda x: sae.decode(sae.encode(x)),
        "zero": torch.zeros_like,
        "mean": lambda x: mean.expand_as(x),
        f"PCA of {COMPONENTS}": lambda x: mean + (x - mean) @ top @ top.T,
    }


def spliced(replace: Replace, inside: Tensor, x: Tensor, hook: object) -> Tensor:  # noqa: ARG001
    """The stream with the tokens `inside` replaced, but for attention sinks."""
    x, inside = x.clone(), inside.clone()
    inside[inside.clone()] = without_sinks(x[inside], SINK)
    x[inside] = replace(x[inside])
    return x


def losses(
    model: Any, hook_name: str, contexts: Tensor, ways: dict[str, Replace]
) -> dict[str, float]:
    """Loss in nats per token: as it is, and with each replacement. Position 0, special tokens and
    attention sinks, on which the SAE was not trained, stay as they are."""
    sums = dict.fromkeys(("intact", *ways), 0.0)
    for tokens in contexts.split(BATCH):
        inside = keep_ordinary(tokens, model.tokenizer)
        inside[:, 0] = False
        for way in sums:
            hooks = [(hook_name, partial(spliced, ways[way], inside))] if way in ways else []
            loss = model.run_with_hooks(tokens, fwd_hooks=hooks, return_type="loss")
            sums[way] += float(loss) * len(tokens)
    return {way: total / len(contexts) for way, total in sums.items()}


@torch.no_grad()
def main(source: str, folder: Path) -> None:
    spec = load_config(CONFIG)
    assert spec.sae.train is not None
    model: Any = ss.load_model(spec.model.name)
    sae = ss.load_sae(source)
    lines = Path(spec.sae.train.corpus).read_text("utf-8").splitlines()
    domains = {row["text"]: row["domain"] for row in map(json.loads, lines)}
    held_out = load_texts(model, spec.sae.train)[1]["text"]
    texts = pd.DataFrame({"text": held_out, "domain": [domains[text] for text in held_out]})
    ways, rows = replacements(sae, folder), list[dict[str, object]]()
    for domain, own in [*texts.groupby("domain"), ("all", texts)]:
        ids = [i for text in own["text"] for i in model.tokenizer(text)["input_ids"]]
        n = min(len(ids) // CONTEXT, MOST_CONTEXTS)
        contexts = torch.tensor(ids[: n * CONTEXT]).view(n, CONTEXT)
        loss = losses(model, sae.cfg.metadata.hook_name, contexts, ways)
        added = {way: loss[way] - loss["intact"] for way in ways}
        recovered = {f"of {w}": 1 - added["SAE"] / added[w] for w in ("zero", "mean")}
        rows.append({"domain": domain, "tokens": n * CONTEXT, **loss, **added, **recovered})
    print(pd.DataFrame(rows).round(3).to_string())
    fired, total, n_tokens = torch.zeros(sae.cfg.d_sae), 0, 0
    for part in vectors_in(folder):
        z = sae.encode(part)
        fired += (z > 0).sum(0)
        total += int((z > 0).sum())
        n_tokens += len(z)
        if n_tokens >= ENCODED:
            break
    silent = float((fired == 0).float().mean())
    print(f"L0 {total / n_tokens:.1f}, silent on {n_tokens:,} cached tokens {silent:.1%}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "build/smollm2/activations"))
