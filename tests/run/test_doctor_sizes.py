"""The doctor counts what a run will test, label and estimate."""

from __future__ import annotations

from typing import Any

import pytest
from prompt_files import small_run

from saelens_steer.config import parse_config
from saelens_steer.doctor import resources
from saelens_steer.pipeline.checks import checked_context
from saelens_steer.pipeline.context import RunContext

HOOK = "blocks.2.hook_resid_pre"


@pytest.fixture
def checked(random_folder, tmp_path):
    """A run of a config with a loaded SAE, one candidate per side and these other keys."""

    def run(**more: object) -> RunContext:
        config: Any = small_run(tmp_path, random_folder, HOOK, 3) | {"metrics": ["kl"]}
        config |= {"select": {**config["select"], "k": 1}} | more
        return checked_context(parse_config(config, []), tmp_path / "run")

    return run


@pytest.mark.parametrize(
    ("sweep", "labels", "counted"),
    [
        ({"directions": ["difference_of_means"]}, None, "1 direction and 4 controls"),
        ({"directions": ["linear_probe", 3, "auroc", "isotropic"], "top": 2}, None, "8 directions"),
        ({"features": [2, 4, 7]}, {}, "3 directions"),
        ({}, {}, "2 directions"),
    ],
)
def test_the_directions_of_each_source_are_counted(checked, sweep, labels, counted):
    run = checked(sweep={"n_controls": 4, **sweep}, label=labels)
    measurement = run.measurement()
    sizes = resources.WorkSizes.of(run, measurement)
    found = {one.name: one.detail for one in resources.sizes_of_work(run, measurement, sizes)}
    assert found["sweep"].startswith(counted)
    assert ("labels" in found) == (labels is not None)
    if labels is not None:
        n = 2 + len(sweep.get("features", ()))
        assert found["labels"].startswith(f"{n} features") and "null" not in found["labels"]


def test_training_is_only_mentioned_if_the_run_trains(checked, monkeypatch):
    monkeypatch.setattr(resources, "TRIES", (1,))
    run = checked(sweep={"n_controls": 4})
    measurement = run.measurement()
    sizes = resources.WorkSizes.of(run, measurement)
    for trains in (False, True):
        *_, last = resources.time_of_work(measurement, sizes, trains)
        assert ("SAE training" in last.detail) == trains
