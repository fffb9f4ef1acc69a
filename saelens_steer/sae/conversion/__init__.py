"""Checkpoints in formats other than SAELens's, read without running code and converted."""

from saelens_steer.sae.conversion.checkpoint import (
    SIDECARS,
    SUFFIXES,
    checkpoint_in,
    refusing,
    settings_files,
)
from saelens_steer.sae.conversion.convert import from_parts, load_checkpoint
