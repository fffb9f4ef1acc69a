"""Stopping a training in its middle, as Ctrl-C would."""

import pytest


def stop_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Every training that comes to a line of its log at this step or later is stopped."""
    from saelens_steer.sae.training import runner

    real = runner.log_line

    def stopping(trainer, output):
        if trainer.n_training_steps >= step:
            raise KeyboardInterrupt
        return real(trainer, output)

    patch.setattr(runner, "log_line", stopping)
