"""The feature and the strength of the study, from its selection prompts alone, as the plan fixes
them: `saelens-steer select configs/smollm2/code_vs_math.yaml --out RUN`, then
`python -m scripts.smollm2.choose RUN`."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import yaml

import saelens_steer as ss
from saelens_steer.activations import Activations

OF_EACH = 8
"""Prompts of code and of prose, the first, on which texts are compared."""


def main(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    found = json.loads((run / "features.json").read_text("utf-8"))
    model, sae = ss.load_model(config["model"]["name"]), ss.load_sae(run / "sae")
    feature, unit = found["code_candidates"][0], found["resid_norm"]
    selection = ss.load_prompts(config["select"]["prompts"])
    domains = (config["select"]["positive"], config["select"]["reference"])
    by_domain = {d: [prompt for prompt in selection if prompt.domain == d] for d in domains}
    prompts = [prompt for own in by_domain.values() for prompt in own[:OF_EACH]]
    direction = sae.W_dec[feature].detach()
    activations = Activations.load(run / "activations")
    suggested = ss.suggest_alpha(model, direction, prompts, sae=sae, activations=activations)
    print(suggested.table.to_string())
    if suggested.positive is None:
        raise SystemExit("no strength changes these texts without breaking them")
    norm = float(direction.norm()) / unit
    largest = found["max_act"][str(feature)] * norm
    alpha = suggested.positive * norm
    print(f"feature {feature}: suggested {alpha:.4g} × mean ‖x‖, A_max {largest:.4g} × mean ‖x‖")
    print(f"α* = {math.floor(100 * min(alpha, largest)) / 100}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
