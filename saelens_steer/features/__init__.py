"""Which features to steer, and how large they get."""

from saelens_steer.features.pages import FeaturePage, FeaturePages, pages_of
from saelens_steer.features.references import (
    Probe,
    difference_of_means,
    linear_probe,
    vectors_of,
)
from saelens_steer.features.select import Selection, select_features
from saelens_steer.features.size import NO_SCALE, Scale, encode, firing_rates, measured_scale

__all__ = [
    "NO_SCALE",
    "FeaturePage",
    "FeaturePages",
    "Probe",
    "Scale",
    "Selection",
    "difference_of_means",
    "encode",
    "firing_rates",
    "linear_probe",
    "measured_scale",
    "pages_of",
    "select_features",
    "vectors_of",
]
