"""A made-up run folder: 20 candidates, 512 controls, 5 strengths, 24 prompts, hostile texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import false_discovery_control

ALPHAS = (-4.0, -2.0, 0.0, 2.0, 4.0)
POSITIVE = (12, 87, 101, 154, 203, 377, 402, 511, 640, 722)
NEGATIVE = (3, 45, 199, 268, 333, 498, 555, 610, 801, 999)
N_CONTROLS, N_PROMPTS = 512, 24
TEXT_METRICS = (
    "code_valid",
    "code_valid_present",
    "latex_valid",
    "latex_valid_present",
    "latex_first",
)
HOSTILE = (
    "<!--<script>",
    "</script><img src=x onerror=alert(1)>",
    "$$ \\int_0^1 x\\,dx $$",
    "naïve café 数学 \u2028 \U0001f600 &amp; \"quoted\" 'text'",
)


def write_run(folder: Path, seed: int = 0) -> Path:
    """Write a whole run folder and return it."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    summary = make_summary(rng)
    summary.to_csv(folder / "interference.csv", index=False)
    make_claims(summary).to_csv(folder / "claims.csv", index=False)
    _write_lines(folder / "completions.jsonl", make_completions(rng))
    _write_json(folder / "features.json", make_features(rng))
    _write_json(folder / "provenance.json", make_provenance())
    (folder / "config.yaml").write_text(yaml.safe_dump(make_config(), sort_keys=False))
    (folder / "sae").mkdir(exist_ok=True)
    _write_lines(folder / "sae" / "metrics.jsonl", make_training(rng))
    _write_json(folder / "sae" / "quality.json", make_quality())
    return folder


def directions() -> pd.DataFrame:
    """One row per direction with its slopes: how far it moves each logit metric."""
    rng = np.random.default_rng(7)
    up = np.linspace(0.26, 0.02, len(POSITIVE))
    slopes = np.concatenate([-up, up * 0.9, rng.normal(0, 0.035, N_CONTROLS)])
    features = [*POSITIVE, *NEGATIVE]
    return pd.DataFrame(
        {
            "direction": [f"feature_{f}" for f in features]
            + [f"covariance_{i:04d}" for i in range(N_CONTROLS)],
            "family": ["candidate"] * len(features) + ["covariance"] * N_CONTROLS,
            "feature": pd.array([*features, *[None] * N_CONTROLS], dtype="Int64"),
            "slope": slopes,
        }
    )


def make_summary(rng: np.random.Generator) -> pd.DataFrame:
    """The direction × α table with two logit metrics and five text metrics."""
    table = directions().merge(pd.DataFrame({"alpha": ALPHAS}), how="cross")
    alpha = table["alpha"].to_numpy()
    n, moved = len(table), alpha != 0
    margin = (table["slope"] * alpha + 0.01 * alpha**2 * rng.normal(0, 0.6, n)) * moved
    kl = np.abs(table["slope"]) * alpha**2 * 0.08 * np.exp(rng.normal(0, 0.25, n)) * moved
    table["alpha_unit"], table["n"] = "raw", N_PROMPTS
    for name, delta, base in (("math_margin", margin, -3.2), ("kl", kl, 0.0)):
        width = (0.02 + 0.12 * np.abs(delta)) * moved
        table[name], table[f"{name}_delta"] = base + delta, delta
        table[f"{name}_ci_low"], table[f"{name}_ci_high"] = delta - width, delta + width
    for i, name in enumerate(TEXT_METRICS):
        table = _with_text_metric(table, name, i)
    return table.drop(columns="slope")


def with_completions() -> list[str]:
    """The directions that have completions: two of each side and two controls."""
    picked = [*POSITIVE[:2], *NEGATIVE[:2]]
    return [f"feature_{f}" for f in picked] + ["covariance_0000", "covariance_0001"]


def _with_text_metric(table: pd.DataFrame, name: str, shift: int) -> pd.DataFrame:
    kept = table["direction"].isin(with_completions())
    sign = -1 if name.startswith("code") else 1
    rate = (0.55 + sign * table["slope"] * table["alpha"] * 0.35 + 0.02 * shift).clip(0, 1)
    rate = ((rate * N_PROMPTS).round() / N_PROMPTS).where(kept)
    delta = rate - rate[table["alpha"] == 0].mean()
    columns = {name: rate, f"{name}_delta": delta}
    columns |= {f"{name}_ci_low": delta - 0.1, f"{name}_ci_high": delta + 0.1}
    return table.assign(**columns)


def make_claims(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per candidate and metric, with verdicts of all three kinds."""
    metrics = [c for c in summary.columns if f"{c}_delta" in summary.columns]
    return pd.concat([_claims_of(summary, m) for m in metrics], ignore_index=True)


def _claims_of(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    measured = summary.dropna(subset=[f"{metric}_delta"])
    at = measured.loc[measured[f"{metric}_delta"].abs().groupby(measured["direction"]).idxmax()]
    own = at[at["family"] == "candidate"].copy()
    of_controls = at.loc[at["family"] != "candidate", f"{metric}_delta"].abs().to_numpy()
    size = own[f"{metric}_delta"].abs().to_numpy()
    k = len(of_controls)
    p = (1 + (of_controls[None, :] >= size[:, None]).sum(axis=1)) / (k + 1)
    q = false_discovery_control(p)
    judged = np.where(q < 0.05, "more than random", "no more than random")
    testable = k + 1 > 20 * len(own)
    return pd.DataFrame(
        {
            "direction": own["direction"],
            "feature": own["feature"],
            "metric": metric,
            "effect": own[f"{metric}_delta"],
            "alpha": own["alpha"],
            "ci_low": own[f"{metric}_ci_low"],
            "ci_high": own[f"{metric}_ci_high"],
            "T": size,
            "control_quantile": np.quantile(of_controls, 0.95),
            "n_controls": k,
            "p_value": p,
            "q_value": q,
            "verdict": judged if testable else f"not testable with {k} controls",
        }
    )


def make_completions(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Texts for every direction that has them; the last four prompts are hostile."""
    lines = [_completion(rng, "unsteered", "none", 0.0, p) for p in range(N_PROMPTS)]
    for direction in with_completions():
        family = "candidate" if direction.startswith("feature") else "covariance"
        steered = [a for a in ALPHAS if a]
        lines += [
            _completion(rng, direction, family, a, p) for a in steered for p in range(N_PROMPTS)
        ]
    return lines


def _completion(
    rng: np.random.Generator, direction: str, family: str, alpha: float, prompt: int
) -> dict[str, Any]:
    hostile = HOSTILE[prompt % 4] if prompt >= N_PROMPTS - 4 else ""
    code = str(rng.choice(["valid", "valid", "absent", "invalid", "truncated"]))
    latex = str(rng.choice(["absent", "valid", "invalid"]))
    return {
        "direction": direction,
        "family": family,
        "feature": int(direction.split("_")[1]) if family == "candidate" else None,
        "alpha": alpha,
        "alpha_unit": "raw",
        "prompt_id": f"mixed-{prompt:03d}",
        "domain": "mixed",
        "sample": 0,
        "prompt": f"Prompt {prompt}: what is the sum of the first {prompt + 2} numbers? {hostile}",
        "completion": _text(prompt, alpha, code) + hostile,
        "truncated": code == "truncated",
        "n_tokens": 64 if code == "truncated" else 41,
        "code": code,
        "latex": latex,
        "code_valid": float(code == "valid"),
        "latex_first": float(latex == "valid"),
    }


def _text(prompt: int, alpha: float, code: str) -> str:
    if alpha > 0:
        return f"$$\\sum_{{i=1}}^{{{prompt + 2}}} i = {prompt * (prompt + 1) // 2}$$\n\nSo it is "
    end = "" if code == "truncated" else "```\n"
    return (
        "Here is a function that adds them:\n\n```python\n"
        f"def total(n={prompt + 2}):\n"
        f"    return sum(i for i in range(1, n + 1) if i < 10**6)\n{end}"
    )


def make_features(rng: np.random.Generator) -> dict[str, Any]:
    """Candidates of two sides with their scores."""
    scores = {}
    for i, feature in enumerate([*POSITIVE, *NEGATIVE]):
        sign = 1 if i < len(POSITIVE) else -1
        strength = 3.2 / (1 + 0.35 * (i % 10))
        fires = [0.9 - 0.06 * (i % 10), 0.02 + 0.01 * (i % 10)][::sign]
        scores[str(feature)] = {
            "mean_difference": round(sign * strength, 4),
            "auroc": round(0.5 + sign * (0.48 - 0.02 * (i % 10)), 4),
            "firing_rate_positive": round(fires[0], 4),
            "firing_rate_negative": round(fires[1], 4),
            "firing_difference": round(fires[0] - fires[1], 4),
            "max_act": round(float(rng.uniform(3, 9)), 4),
        }
    return {
        "hook_name": "blocks.4.hook_resid_pre",
        "sae": {"source": "trained", "d_sae": 1024, "hash": "5f1c0a7be2d94410"},
        "code_candidates": list(POSITIVE),
        "math_candidates": list(NEGATIVE),
        "positive": "code",
        "negative": "math",
        "at": "assistant_start",
        "score": "mean_difference",
        "scores": scores,
    }


def make_provenance() -> dict[str, Any]:
    """Versions, hashes, seeds and token sets."""
    return {
        "saelens_steer": "0.1.0",
        "python": "3.11.9",
        "packages": {"torch": "2.9.0", "transformer-lens": "3.9.1", "sae-lens": "6.54.0"},
        "model": {"name": "tiny-qwen3", "hash": "77aa03f2c9e1b650", "class": "HookedTransformer"},
        "sae": {"source": "trained", "hash": "5f1c0a7be2d94410"},
        "prompts": {"source": "tiny-code-math-mixed", "hash": "c0ffee1234567890", "n": N_PROMPTS},
        "token_sets": {
            "math_margin": {
                "target": ["$$", " $$", "\\(", "\\[", "$"],
                "n_target": 5,
                "n_other": 2043,
            }
        },
        "seeds": {"sweep": 0, "sae": 0, "bootstrap": 0},
        "hook_name": "blocks.4.hook_resid_pre",
    }


def make_config() -> dict[str, Any]:
    """A resolved config."""
    return {
        "model": {"name": "tiny-qwen3", "class": "HookedTransformer", "dtype": "float32"},
        "hook_name": None,
        "prompts": {"source": "tiny-code-math-mixed", "limit": N_PROMPTS},
        "sae": {"train": {"architecture": "batchtopk", "d_sae": 1024, "training_tokens": 400000}},
        "select": {"prompts": "tiny-domains", "positive": "code", "negative": "math", "k": 10},
        "sweep": {"alphas": list(ALPHAS), "alpha_unit": "raw", "positions": "all", "edit": "add"},
    }


def make_training(rng: np.random.Generator) -> list[dict[str, Any]]:
    """A plausible training curve."""
    steps = np.arange(0, 200, 4)
    noise = rng.normal(0, 0.01, (3, len(steps)))
    return [
        {
            "step": int(s),
            "tokens": int(s * 2048),
            "loss": float(40 * np.exp(-s / 30) + 6 + 20 * noise[0, i]),
            "mse_loss": float(38 * np.exp(-s / 30) + 5),
            "l0": float(32 + 30 * np.exp(-s / 15) + 10 * noise[1, i]),
            "explained_variance": float(0.91 - 0.8 * np.exp(-s / 25) + noise[2, i] / 3),
            **({"held_out_loss": 7.0, "held_out_explained_variance": 0.88} if i % 5 == 0 else {}),
        }
        for i, s in enumerate(steps)
    ]


def make_quality() -> dict[str, Any]:
    """How good the SAE is."""
    edges = np.arange(-6, 0.01, 0.25).tolist()
    return {
        "l0": 31.8,
        "explained_variance": 0.912,
        "mse": 0.0437,
        "ce_loss": 1.842,
        "ce_loss_sae": 1.957,
        "ce_loss_zero": 6.311,
        "loss_recovered": 0.974,
        "dead_share": 0.083,
        "n_tokens": 20480,
        "sinks_dropped": 12,
        "density": {"log10_edges": edges, "counts": [0] * 8 + [5, 30, 90, 120, 80, 40] + [0] * 10},
        "verdict": "Good: 97 % of the loss recovered.",
        "warnings": [],
    }


def make_grid() -> pd.DataFrame:
    """Three SAEs of two architectures."""
    rows = [
        ("topk-k8", "topk", 8.0, 0.8),
        ("topk-k16", "topk", 16.0, 0.9),
        ("x", "<img>", 12.0, 0.7),
    ]
    return pd.DataFrame(
        [
            {
                "name": name,
                "architecture": architecture,
                "d_sae": 1024,
                "options": json.dumps({"k": l0, "mode": "</script>"}),
                "l0": l0,
                "l1": 40.0,
                "mse": 100.0,
                "explained_variance": share,
                "cosine": 0.95,
                "loss_recovered": share + 0.09,
                "kl_recovered": share + 0.08,
                "dead_share": 0.03,
                "dense_share": 0.0,
                "verdict": "Good",
            }
            for name, architecture, l0, share in rows
        ]
    )


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
