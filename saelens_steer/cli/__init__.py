"""The command `saelens-steer`. Heavy imports happen inside the commands."""

# importing these registers the commands, in the order in which help lists them
from saelens_steer.cli import steps, tools
from saelens_steer.cli.common import app


def main() -> None:
    """The console script."""
    app()


__all__ = ["app", "main"]
