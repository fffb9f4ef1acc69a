"""`saelens-steer …`: parse, call, print. Heavy imports happen inside the commands."""

from saelens_steer.cli import steps, tools  # noqa: F401 (importing them registers the commands)
from saelens_steer.cli.common import app


def main() -> None:
    """The console script."""
    app()


__all__ = ["app", "main"]
