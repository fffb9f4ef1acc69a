"""Which features to steer, and how large they get."""

from saelens_steer.features.select import Selection, encode, feature_scores, select_features
from saelens_steer.features.size import NO_SCALE, Scale, max_activations, measured_scale

__all__ = [
    "NO_SCALE",
    "Scale",
    "Selection",
    "encode",
    "feature_scores",
    "max_activations",
    "measured_scale",
    "select_features",
]
