"""Select features, measure their activations, and collect what each responds to."""

from saelens_steer.features.activity import FeatureActivity, feature_activity
from saelens_steer.features.contexts import Context, best_rows, contexts_at, shown_tokens
from saelens_steer.features.contrast import PLACES, Selection, select_features
from saelens_steer.features.decoder import WrittenToken, written_tokens
from saelens_steer.features.pages import FeaturePageData, pages_of
from saelens_steer.features.scale import NO_SCALE, Scale, firing_rates, measured_scale
