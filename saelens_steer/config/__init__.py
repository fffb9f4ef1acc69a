"""One frozen pydantic spec per step, composed by RunSpec; YAML in, YAML out."""

from saelens_steer.config.directions import (
    CAUSAL,
    REFERENCES,
    CausalScore,
    CompareDirectionsSpec,
    ContrastScore,
    SelectSpec,
    TradeoffsSpec,
)
from saelens_steer.config.edits import (
    AblateSpec,
    AddSpec,
    CompareEditsSettings,
    CompareEditsSpec,
    EditSpec,
    ErrorTerm,
    ProjectOutSpec,
    ReconstructSpec,
    ScaleSpec,
    SetSpec,
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
    TokenSetSpec,
)
from saelens_steer.config.labels import FeaturesSpec, LabelSpec, ServerSpec
from saelens_steer.config.run import RunSpec
from saelens_steer.config.sae import LoadSpec, LogSpec, TrainSpec
from saelens_steer.config.sweep import AlphaUnit, CompletionSpec, Family, Match, SweepSpec
from saelens_steer.config.yaml import as_config, checked, dump_config, load_config, parse_config
