"""One frozen pydantic spec per step, composed by RunSpec; YAML in, YAML out."""

from saelens_steer.config.data_specs import TINY, PromptSpec, SampleSpec
from saelens_steer.config.effect_specs import CAUSAL, REFERENCES, CompareSpec, MatrixSpec
from saelens_steer.config.feature_specs import FeaturesSpec
from saelens_steer.config.label_specs import LabelSpec, ServerSpec
from saelens_steer.config.metric_specs import (
    DEFAULT_METRICS,
    MarginMetric,
    MarginSpec,
    MentionsMetric,
    MetricSpec,
    TokenSetSpec,
)
from saelens_steer.config.patch_specs import (
    AblateSpec,
    AddSpec,
    EditSpec,
    PatchSettings,
    PatchSpec,
    ProjectOutSpec,
    ReconstructSpec,
    ScaleSpec,
    SetSpec,
    SuppressAndBoostSpec,
)
from saelens_steer.config.reading import checked, dump_config, load_config, parse_config
from saelens_steer.config.run_spec import RunSpec
from saelens_steer.config.sae_specs import (
    CausalScore,
    ContrastScore,
    LoadSpec,
    LogSpec,
    SelectSpec,
    TrainSpec,
)
from saelens_steer.config.sweep_specs import AlphaUnit, GenerateSpec, SweepSpec
