"""The SAE that the sweeps of these tests steer with."""

import pytest
from saes import random_sae


@pytest.fixture(scope="session")
def small_sae(random_model):
    """32 features with decoder rows of different norms at blocks.2.hook_resid_pre."""
    return random_sae(random_model.cfg.d_model)
