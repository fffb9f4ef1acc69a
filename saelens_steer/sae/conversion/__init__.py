"""Checkpoints in other formats than SAELens's: read without running code, and converted."""

from saelens_steer.sae.conversion.checkpoint import SIDECARS, SUFFIXES, checkpoint_in, one_line
from saelens_steer.sae.conversion.convert import load_checkpoint
