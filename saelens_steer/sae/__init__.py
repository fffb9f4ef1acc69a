"""SAEs: trained through SAELens or loaded, always SAELens's own classes; and how good they are."""

from saelens_steer.sae.load import (
    check_feature,
    check_sae,
    check_sae_at,
    load_sae,
    sae_fingerprint,
    save_sae,
)
from saelens_steer.sae.quality import sae_quality
from saelens_steer.sae.train import check_train_spec, train_sae

__all__ = [
    "check_feature",
    "check_sae",
    "check_sae_at",
    "check_train_spec",
    "load_sae",
    "sae_fingerprint",
    "sae_quality",
    "save_sae",
    "train_sae",
]
