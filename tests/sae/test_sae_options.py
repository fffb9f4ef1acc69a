"""Options that SAELens refuses late, or never, are refused before the first step."""

from __future__ import annotations

import copy

import pytest

from saelens_steer.config import TrainSpec
from saelens_steer.errors import InputError
from saelens_steer.sae import check_train_spec

REFUSED = [
    ("topk", {"k": 1.5}, "option k should be a valid integer, not 1.5"),
    ("topk", {"k": True}, "option k should be a valid integer"),
    ("topk", {"k": "8"}, "k must be a number up to d_sae = 64, not '8'"),
    ("topk", {"k": 0}, "up to d_sae = 64"),
    ("topk", {"k": 65}, "up to d_sae = 64"),
    ("topk", {"k": 4, "normalize_activations": "layer_norm"}, "does not support activation norm"),
    ("batchtopk", {"k": 4, "normalize_activations": "layer_norm"}, "does not support activation"),
    ("batchtopk", {"k": 4, "normalize_activations": "unit"}, "normalize_activations must be"),
    ("standard", {"l1_coefficient": "0.1"}, "option l1_coefficient"),
    ("jumprelu", {"l0_coefficient": [1.0]}, "option l0_coefficient"),
    ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [16, 128]}, "at most d_sae = 64"),
    ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [32, 16]}, r"not \[32, 16\]"),
    ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [16, 16]}, "must increase"),
    ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [0, 16]}, "must increase"),
    ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": 16}, "option matryoshka_widths"),
]
TRAINED = [
    ("standard", {"l1_coefficient": 1}),
    ("standard", {"l1_coefficient": 0.1, "normalize_activations": "expected_average_only_in"}),
    ("gated", {"l1_coefficient": 0.1}),
    ("jumprelu", {"l0_coefficient": 0.1}),
    ("topk", {"k": 4}),
    ("batchtopk", {"k": 4.5}),
    ("batchtopk", {"k": 4, "normalize_activations": "covariance_whitening"}),
    ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [16, 32]}),
    ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [16, 64]}),
]


@pytest.mark.parametrize(("architecture", "options", "why"), REFUSED)
def test_a_wrong_option_is_refused_in_a_sentence(architecture, options, why):
    spec = TrainSpec(architecture=architecture, d_sae=64, options=options)
    with pytest.raises(InputError, match=why):
        check_train_spec(spec)


@pytest.mark.parametrize(("architecture", "options"), TRAINED)
def test_an_option_that_trains_passes_and_is_left_as_it_was(architecture, options):
    spec = TrainSpec(architecture=architecture, d_sae=64, options=copy.deepcopy(options))
    check_train_spec(spec)
    assert spec.options == options
