"""Which features to steer, and how large they get."""

from saelens_steer.features.contexts import (
    Context,
    best_rows,
    contexts_at,
    shown_tokens,
)
from saelens_steer.features.decoder import WrittenToken, written_tokens
from saelens_steer.features.pages import FeaturePage, FeaturePages, pages_of
from saelens_steer.features.references import (
    Probe,
    difference_of_means,
    linear_probe,
    vectors_of,
)
from saelens_steer.features.responses import Places, Responses, responses
from saelens_steer.features.select import Selection, select_features
from saelens_steer.features.size import NO_SCALE, Scale, encode, firing_rates, measured_scale

__all__ = [
    "NO_SCALE",
    "Context",
    "FeaturePage",
    "FeaturePages",
    "Places",
    "Probe",
    "Responses",
    "Scale",
    "Selection",
    "WrittenToken",
    "best_rows",
    "contexts_at",
    "difference_of_means",
    "encode",
    "firing_rates",
    "linear_probe",
    "measured_scale",
    "pages_of",
    "responses",
    "select_features",
    "shown_tokens",
    "vectors_of",
    "written_tokens",
]
