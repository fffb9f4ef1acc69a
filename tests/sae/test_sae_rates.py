"""Laws of the learning rate: warm-up, cosine annealing to lr_end, no further decay by default."""

import math
from pathlib import Path

import pytest
import torch
from sae_lens.training.sae_trainer import SAETrainer

from saelens_steer.config import TrainSpec
from saelens_steer.sae import train_sae
from saelens_steer.sae.training.config import runner_config
from saelens_steer.sae.training.runner import Runner

HALF = {"lr": 3e-3, "lr_scheduler": "cosineannealing", "lr_end": 1.5e-3, "lr_warm_up_steps": 10}


def rates(model, spec: TrainSpec) -> list[float]:
    """The learning rate at every step, from SAELens's trainer and scheduler."""
    config = runner_config(spec, model, "blocks.2.hook_mlp_out", Path("unused"))
    sae = torch.nn.Linear(1, 1)
    sae.cfg = config.sae
    sae.get_coefficients = dict
    trainer = SAETrainer(cfg=config.to_sae_trainer_config(), sae=sae, data_provider=iter([]))
    found = []
    for _ in range(spec.training_tokens // spec.batch_tokens):
        found.append(trainer.lr_scheduler.get_last_lr()[0])
        assert found[-1] == trainer.optimizer.param_groups[0]["lr"]
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    return found


def test_the_rate_warms_up_to_lr_and_falls_along_a_cosine_to_lr_end(random_model, small):
    found = rates(random_model, small(training_tokens=256 * 200, **HALF))
    assert found[0] == pytest.approx(3e-4)
    assert found[:10] == pytest.approx([3e-4 * step for step in range(1, 11)])
    for step, rate in enumerate(found[10:]):
        cosine = 1.5e-3 + 1.5e-3 * (1 + math.cos(math.pi * step / 190)) / 2
        assert rate == pytest.approx(cosine, rel=1e-6)
    assert found[-1] == pytest.approx(1.5e-3, rel=1e-3)


def test_no_linear_decay_follows_unless_it_is_asked_for(random_model, small):
    assert small(**HALF).lr_decay_steps == 0
    asked = small(training_tokens=256 * 200, lr_decay_steps=20, **HALF)
    found = rates(random_model, asked)
    assert found[180] == pytest.approx(1.5e-3) and found[-1] == pytest.approx(1.5e-3 / 20)


def test_without_lr_end_the_rates_are_as_before(random_model, small):
    spec = small(training_tokens=256 * 200, lr_scheduler="cosineannealing")
    assert spec.lr_decay_steps == TrainSpec().lr_decay_steps == 40
    found = rates(random_model, spec)
    assert found[160] == pytest.approx(spec.lr / 10) and found[-1] < spec.lr / 100
    config = runner_config(small(), random_model, "blocks.2.hook_mlp_out", Path("unused"))
    assert config.lr_end == config.lr / 10, "SAELens's own default"


def test_the_trainer_really_uses_these_rates(random_model, small, tmp_path, monkeypatch):
    used, fit = [], Runner.run_trainer_with_interruption_handling

    def watched(self, trainer):
        step = trainer.step

        def noted(batch):
            used.append(trainer.optimizer.param_groups[0]["lr"])
            return step(batch)

        trainer.step = noted
        return fit(self, trainer)

    monkeypatch.setattr(Runner, "run_trainer_with_interruption_handling", watched)
    spec = small(cached_tokens=1024, **HALF)
    train_sae(random_model, spec, "blocks.2.hook_mlp_out", tmp_path / "sae")
    assert used == pytest.approx(rates(random_model, spec))


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"lr_end": 1e-3}, "lr_end applies to cosine annealing: set lr_scheduler"),
        (HALF | {"lr_end": 4e-3}, r"lr_end must be at most lr = 0\.003, not 0\.004"),
        (HALF | {"lr_end": 0.0, "lr_decay_steps": 5}, "nothing left to decay"),
        (HALF | {"lr_end": -1.0}, "lr_end"),
    ],
)
def test_rates_that_cannot_be_are_refused_by_the_config(small, settings, hint):
    with pytest.raises(ValueError, match=hint):
        small(**settings)
