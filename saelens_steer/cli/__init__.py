"""`saelens-steer …`: parse, call, print. Heavy imports happen inside the commands."""

# importing them registers the commands, in the order of the help
from saelens_steer.cli import steps, tools
from saelens_steer.cli.common import app


def main() -> None:
    """The console script."""
    app()


__all__ = ["app", "main"]
