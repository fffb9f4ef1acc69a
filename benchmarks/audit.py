"""What the audit says of right and wrong pairs: `python -m benchmarks.audit`.

Small SAEs are trained at several hooks of tiny-qwen3, of the same model after a fine-tuning on
other text, and of random models. Each right pair is then spoilt: another layer, hook or model,
another SAE's settings, a damaged file. A fault counts if it leaves at least `HARMFUL` times as
much variance unexplained as the right pair does; the rest changes too little to matter, and no
threshold can tell it from a right pair on other text. Prints one JSON line for each pair, and a
table of the figures, between whose rows the thresholds of `saelens_steer.sae.misfit` lie.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import torch
from sae_lens import SAE
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

import saelens_steer as ss
from benchmarks.audit_saes import damaged, train
from saelens_steer.data import load_corpus, render
from saelens_steer.sae.auditing import audit_tokens, read_hooks, shipped_texts
from saelens_steer.sae.misfit import judged_fit
from saelens_steer.sae.quality import packed_contexts

HARMFUL = 1.5
AUDITED = 4
"""Contexts that are audited. As many give the promises, and the rest is for training."""
FIGURES = ("explained_variance", "slope", "bias", "l0", "dead_share")


@dataclass(frozen=True, eq=False)
class Scene:
    """A model and the contexts that it reads: the first are audited, the others trained on."""

    name: str
    model: Any
    contexts: Tensor
    prompts: Tensor | None = None
    """Contexts of other texts, on which a right pair should pass too."""

    @cache  # noqa: B019 (a scene lives as long as the benchmark)
    def activations(self, hook_name: str) -> Tensor:
        """All activations at a hook but those of position 0: [context, pos, d_in]."""
        with torch.no_grad():
            return read_hooks(self.model, self.contexts, [hook_name])[hook_name][:, 1:]

    def training(self, hook_name: str) -> Tensor:
        """What SAEs are trained on: [n, d_in]."""
        return self.activations(hook_name)[2 * AUDITED :].flatten(0, 1)

    @property
    def tokens(self) -> Tensor:
        return self.contexts[:AUDITED]


@dataclass(frozen=True, eq=False)
class Place:
    """A hook of a scene, and the kind of SAE to train there."""

    scene: Scene
    hook_name: str
    kind: str
    k: int
    subtract: bool = True
    given: SAE[Any] | None = None
    """An SAE that was trained otherwise."""

    @cache  # noqa: B019
    def sae(self) -> SAE[Any]:
        """The SAE of this place."""
        if self.given is not None:
            return self.given
        return train(self.scene.training(self.hook_name), self.kind, self.k, subtract=self.subtract)

    @property
    def name(self) -> str:
        return f"{self.scene.name} {self.hook_name} {self.kind}"

    @cache  # noqa: B019
    def promised(self) -> dict[str, float]:
        """Its figures on held-out text, as quality.json states them."""
        held_out = self.scene.contexts[AUDITED : 2 * AUDITED]
        found = audit_tokens(self.scene.model, self.sae(), self.hook_name, held_out, {}).figures
        return {"explained_variance": found["explained_variance"], "l0": found["l0"]}


def tiny_scenes(model: Any) -> list[Scene]:
    """tiny-qwen3, and the same after a fine-tuning on text that it does not know."""
    texts = load_corpus("tiny", model.tokenizer, 9_000, 1)["text"]
    contexts = packed_contexts(model, texts, 128)
    others = packed_contexts(model, [p.text for p in ss.load_prompts("code-math-domains")], 32)
    prompts = packed_contexts(model, selection_texts(model), 128)[:AUDITED]
    return [Scene("tiny", model, contexts, prompts), Scene("tuned", tuned(model, others), contexts)]


def selection_texts(model: Any) -> list[str]:
    """The prompts on which the default run selects features, with their answers."""
    listed = ss.load_prompts("tiny-domains")
    return [render(model.tokenizer, prompt) + (prompt.answer or "") for prompt in listed]


def tuned(model: Any, contexts: Tensor, steps: int = 200, lr: float = 1e-3) -> Any:
    """A copy of a model after some steps of Adam on contexts of four."""
    other = copy.deepcopy(model)
    adam = torch.optim.Adam(other.parameters(), lr=lr)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(contexts), (4,), generator=draw)
        loss = other(contexts[rows], return_type="loss")
        adam.zero_grad()
        loss.backward()
        adam.step()
    return other


def random_scenes(models: Iterable[tuple[str, Any]]) -> list[Scene]:
    """Scenes of other models, on the shipped prompts."""
    return [Scene(n, m, packed_contexts(m, shipped_texts(m), 96)[:80]) for n, m in models]


def random_model(tokenizer: Any, seed: int) -> HookedTransformer:
    """Four random layers of width 32."""
    shape = {"n_layers": 4, "d_model": 32, "n_ctx": 128, "d_head": 8, "n_heads": 4, "d_mlp": 64}
    cfg = HookedTransformerConfig(
        **shape,
        act_fn="silu",
        d_vocab=len(tokenizer),
        seed=seed,
        initializer_range=0.3,
        positional_embedding_type="rotary",
        rotary_dim=8,
    )
    return HookedTransformer(cfg, tokenizer)


def tiny_places(tiny: Scene, tuned_scene: Scene) -> list[Place]:
    return [
        Place(tiny, "blocks.2.hook_resid_pre", "topk", 12),
        Place(tiny, "blocks.4.hook_resid_pre", "topk", 12),
        Place(tiny, "blocks.4.hook_resid_pre", "jumprelu", 12),
        Place(tiny, "blocks.4.hook_resid_pre", "standard", 12),
        Place(tiny, "blocks.6.hook_resid_pre", "topk", 12, subtract=False),
        Place(tiny, "blocks.7.hook_resid_post", "jumprelu", 12),
        Place(tiny, "blocks.4.hook_mlp_out", "topk", 12),
        Place(tiny, "blocks.3.hook_attn_out", "jumprelu", 12),
        Place(tuned_scene, "blocks.4.hook_resid_pre", "topk", 12),
    ]


def random_places(scene: Scene) -> list[Place]:
    return [
        Place(scene, "blocks.1.hook_resid_pre", "topk", 4),
        Place(scene, "blocks.2.hook_resid_pre", "jumprelu", 4),
        Place(scene, "blocks.3.hook_resid_pre", "standard", 4),
        Place(scene, "blocks.2.hook_mlp_out", "topk", 4, subtract=False),
        Place(scene, "blocks.1.hook_attn_out", "topk", 4),
        Place(scene, "blocks.2.hook_resid_post", "jumprelu", 4, subtract=False),
    ]


def spoilt(place: Place, others: Iterable[Scene]) -> Iterator[tuple[str, Scene, str, SAE[Any]]]:
    """Faults of a pair: what was done, then model, hook and SAE as they would be used."""
    scene, hook_name, sae = place.scene, place.hook_name, place.sae()
    block, layer, kind = hook_name.split(".", 2)
    for step in (-2, -1, 1, 2):
        if 0 <= int(layer) + step < scene.model.cfg.n_layers:
            yield f"layer {step:+d}", scene, f"{block}.{int(layer) + step}.{kind}", sae
    for other in ("hook_mlp_out", "hook_attn_out", "hook_resid_mid"):
        if other != kind:
            yield f"{other} for {kind}", scene, f"{block}.{layer}.{other}", sae
    for other in others:
        if other is not scene and other.model.cfg.d_model == sae.cfg.d_in:
            yield f"model {other.name}", other, hook_name, sae
    for fault, broken in damaged(sae, scene.training(hook_name)):
        yield fault, scene, hook_name, broken


def row(
    place: Place,
    fault: str,
    scene: Scene,
    hook_name: str,
    sae: SAE[Any],
    tokens: Tensor | None = None,
) -> dict[str, Any]:
    """What the audit says of a pair, without promises and with them."""
    tokens = scene.tokens if tokens is None else tokens
    found = audit_tokens(scene.model, sae, hook_name, tokens, {})
    stated = judged_fit(found.figures, place.promised()).failures if found.figures else ()
    failures = list(dict.fromkeys([*found.failures, *stated]))
    explained = found.figures.get("explained_variance", float("nan"))
    left = (1 - explained) / (1 - place.promised()["explained_variance"])
    figures = {key: found.figures.get(key, float("nan")) for key in FIGURES}
    about = {"place": place.name, "fault": fault, "unexplained": left, **figures}
    harmful = fault != "" and not left < HARMFUL
    return {**about, "harmful": harmful, "unaided": len(found.failures), "failures": failures}


def rows(places: Iterable[Place], scenes: Iterable[Scene]) -> Iterator[dict[str, Any]]:
    """Each right pair, then its faults."""
    for place in places:
        pair = place.scene, place.hook_name, place.sae()
        yield row(place, "", *pair)
        if place.scene.prompts is not None:
            yield row(place, "", *pair, tokens=place.scene.prompts)
        for fault in spoilt(place, scenes):
            yield row(place, *fault)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Alarms on right pairs, and the harmful faults that are caught with and without promises."""
    right, harmful = table[table["fault"] == ""], table[table["harmful"]]
    caught = harmful["failures"].map(len) > 0
    return {
        "right_pairs": len(right),
        "alarms": int((right["failures"].map(len) > 0).sum()),
        "faults": len(harmful),
        "caught": int(caught.sum()),
        "caught_without_promises": int((harmful["unaided"] > 0).sum()),
        "too_small_to_count": int(len(table) - len(right) - len(harmful)),
    }


def measured() -> Iterator[dict[str, Any]]:
    """The rows of random models, then those of tiny-qwen3 before and after fine-tuning."""
    tiny = ss.load_model("tiny-qwen3")
    models = ((f"random {i}", random_model(tiny.tokenizer, i)) for i in range(3))
    randoms = random_scenes(models)
    yield from rows([place for scene in randoms for place in random_places(scene)], randoms)
    scenes = tiny_scenes(tiny)
    yield from rows(tiny_places(*scenes), scenes)


def main() -> None:
    found = []
    for one in measured():
        print(json.dumps(one, ensure_ascii=False), flush=True)
        found.append(one)
    table = pd.DataFrame(found)
    print(table.groupby(["fault", "harmful"])[[*FIGURES, "unexplained"]].describe().to_string())
    print(json.dumps(summary(table)))


if __name__ == "__main__":
    main()
