"""The command `saelens-steer`. Heavy imports happen inside the commands."""

import gc
import re
import sys
from pathlib import Path

# importing these registers the commands, in the order in which help lists them
from saelens_steer.cli import steps, tools
from saelens_steer.cli.common import app


def main() -> None:
    """The console script."""
    gc.set_threshold(10_000)  # at 700, collecting takes a quarter of the time of the imports
    sys.argv[1:] = [re.sub(r"(?<=\A--out=)~(?=/|\Z)", str(Path.home()), a) for a in sys.argv[1:]]
    app()


__all__ = ["app", "main"]
