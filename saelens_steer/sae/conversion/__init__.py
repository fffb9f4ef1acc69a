"""Checkpoints in formats other than SAELens's, read without running code and converted."""

from saelens_steer.sae.conversion.checkpoint import SIDECARS, SUFFIXES, checkpoint_in, refusing
from saelens_steer.sae.conversion.convert import load_checkpoint
