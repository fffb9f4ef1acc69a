"""Which features to steer, and how large they get."""

from saelens_steer.features.select import Selection, select_features
from saelens_steer.features.size import NO_SCALE, Scale, encode, measured_scale

__all__ = [
    "NO_SCALE",
    "Scale",
    "Selection",
    "encode",
    "measured_scale",
    "select_features",
]
