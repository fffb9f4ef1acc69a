"""One frozen pydantic spec per step, composed by RunSpec; YAML in, YAML out."""

from saelens_steer.config.base import Spec
from saelens_steer.config.data_specs import TINY, ActivationSpec, ModelSpec, PromptSpec
from saelens_steer.config.metric_specs import (
    DEFAULT_METRICS,
    MarginMetric,
    MarginSpec,
    MetricSpec,
    TokenSetSpec,
)
from saelens_steer.config.reading import checked, dump_config, load_config, parse_config
from saelens_steer.config.run_spec import RunSpec
from saelens_steer.config.sae_specs import LoadSpec, SAESpec, SelectSpec, TrainSpec
from saelens_steer.config.sweep_specs import AlphaUnit, GenerateSpec, SweepSpec

__all__ = [
    "DEFAULT_METRICS",
    "TINY",
    "ActivationSpec",
    "AlphaUnit",
    "GenerateSpec",
    "LoadSpec",
    "MarginMetric",
    "MarginSpec",
    "MetricSpec",
    "ModelSpec",
    "PromptSpec",
    "RunSpec",
    "SAESpec",
    "SelectSpec",
    "Spec",
    "SweepSpec",
    "TokenSetSpec",
    "TrainSpec",
    "checked",
    "dump_config",
    "load_config",
    "parse_config",
]
