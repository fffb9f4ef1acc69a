"""SAEs as SAELens objects: train or load them, encode and decode, measure their quality."""

from saelens_steer.sae.auditing import audit, audit_cached
from saelens_steer.sae.centring import expects_centred, fold_centring, for_plain_weights
from saelens_steer.sae.codec import (
    check_encoder,
    check_positive,
    check_unsigned,
    counts_firing,
    decode,
    decode_change,
    encode,
    rows_at_once,
)
from saelens_steer.sae.fit import DENSE, fit_figures
from saelens_steer.sae.load import (
    check_feature,
    convert_sae,
    feature_indices,
    fitted,
    load_sae,
    sae_fingerprint,
    save_sae,
    source_version,
)
from saelens_steer.sae.misfit import AUDIT, LEAST_EXPLAINED, Audit, may_not_fit
from saelens_steer.sae.promises import promises
from saelens_steer.sae.quality import sae_quality
from saelens_steer.sae.sites import (
    check_sae,
    check_sae_at,
    check_splice,
    is_transcoder,
    reads_at,
    reads_where_it_steers,
    steers_at,
)
from saelens_steer.sae.training import (
    SAEGrid,
    check_contexts,
    check_train_spec,
    remove_checkpoints,
    train_sae,
)
from saelens_steer.sae.verdict import QUALITY, judged, read_quality
