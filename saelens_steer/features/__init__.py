"""Features: which of them stand for a domain."""

from saelens_steer.features.select import Selection, encode, feature_scores, select_features

__all__ = ["Selection", "encode", "feature_scores", "select_features"]
