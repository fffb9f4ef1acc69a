"""SAEs: trained through SAELens or loaded, always SAELens's own classes; and how good they are."""

from saelens_steer.sae.codec import check_encoder
from saelens_steer.sae.load import (
    check_feature,
    check_sae,
    check_sae_at,
    convert_sae,
    load_sae,
    sae_fingerprint,
    save_sae,
    source_version,
)
from saelens_steer.sae.quality import DENSE, sae_quality
from saelens_steer.sae.training import (
    Grid,
    check_log,
    check_train_spec,
    remove_checkpoints,
    train_sae,
)
from saelens_steer.sae.verdict import QUALITY, judged, read_quality

__all__ = [
    "DENSE",
    "QUALITY",
    "Grid",
    "check_encoder",
    "check_feature",
    "check_log",
    "check_sae",
    "check_sae_at",
    "check_train_spec",
    "convert_sae",
    "judged",
    "load_sae",
    "read_quality",
    "remove_checkpoints",
    "sae_fingerprint",
    "sae_quality",
    "save_sae",
    "source_version",
    "train_sae",
]
