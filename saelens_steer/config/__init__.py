"""One frozen pydantic spec per step, composed by RunSpec; YAML in, YAML out."""

from saelens_steer.config.base import plain, whole
from saelens_steer.config.compare_edits import (
    CompareEditsSettings,
    CompareEditsSpec,
    GenerateSettings,
)
from saelens_steer.config.directions import (
    CAUSAL,
    CONTRASTS,
    FAMILIES,
    SOURCES,
    CausalScore,
    CompareDirectionsSpec,
    ContrastScore,
    PlacedEditSpec,
    SelectSpec,
    TradeoffsSpec,
    evidence_of,
    is_custom,
    is_file,
)
from saelens_steer.config.edits import (
    EDITS,
    AblateSpec,
    AddSpec,
    CustomSpec,
    EditOptions,
    EditSpec,
    ErrorTerm,
    ProjectOutSpec,
    ReconstructSpec,
    ScaleSpec,
    SetToSpec,
    SuppressAndBoostSpec,
)
from saelens_steer.config.inputs import (
    DEFAULT_METRICS,
    TINY,
    MarginMetric,
    MarginSpec,
    MentionsMetric,
    MetricSpec,
    PromptSpec,
    SampleSpec,
    TemplateSpec,
    TokenSetSpec,
)
from saelens_steer.config.labels import FeaturesSpec, LabelSpec, ServerSpec
from saelens_steer.config.run import RunSpec
from saelens_steer.config.sae import LoadSpec, LogSpec, TrainSpec
from saelens_steer.config.sweep import (
    SPLICE_MAX_NORM,
    AlphaUnit,
    CompletionSpec,
    Match,
    SweepSpec,
)
from saelens_steer.config.yaml import (
    as_config,
    checked,
    dump_config,
    load_config,
    parse_config,
    parse_yaml,
    template_of,
)
