"""One frozen pydantic spec per step, composed by RunSpec; YAML in, YAML out."""

from saelens_steer.config.base import BLOCK, hook_layer, plain, whole, whole_seed
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
from saelens_steer.config.draft import Draft
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
from saelens_steer.config.environment import (
    check_architecture,
    check_labeller,
    check_loggers,
    check_sae_source,
    key_of,
)
from saelens_steer.config.inputs import (
    TINY,
    TINY_CORPUS,
    ActivationSpec,
    PromptSpec,
    SampleSpec,
    TemplateSpec,
    left_to_defaults,
)
from saelens_steer.config.labels import QUESTIONS, FeaturesSpec, LabelSpec, ServerSpec
from saelens_steer.config.metrics import (
    DEFAULT_METRICS,
    FORMS,
    METRICS,
    NO_LOGIT_METRIC,
    TOKEN_SETS,
    LogProbMetric,
    LogProbSpec,
    MarginMetric,
    MarginSpec,
    MentionsMetric,
    MetricFacts,
    MetricSpec,
    TokenSetSpec,
    check_columns,
    check_margin,
    check_metric,
)
from saelens_steer.config.run import DEMO, RunSpec
from saelens_steer.config.sae import TRAINING_COPIES, LoadSpec, LogSpec, TrainSpec
from saelens_steer.config.sizes import FLOAT32, check_memory, check_rows, check_texts, counted
from saelens_steer.config.sweep import (
    SPLICE_MAX_NORM,
    AlphaUnit,
    CompletionSpec,
    Match,
    SweepSpec,
)
from saelens_steer.config.yaml import (
    FROM_PYTHON,
    as_config,
    checked,
    draft_config,
    dump_config,
    load_config,
    parse_config,
    parse_yaml,
    spec_of,
    template_of,
)
