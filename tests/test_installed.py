"""What is read from the files of installed libraries is what they say when they are imported."""

import dataclasses

from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from transformer_lens.loading_from_pretrained import make_model_alias_map

from saelens_steer import installed


def test_training_architectures_and_their_options_are_those_of_saelens():
    found = {
        name: frozenset(field.name for field in dataclasses.fields(config))
        for name, (_, config) in SAE_TRAINING_CLASS_REGISTRY.items()
    }
    assert installed._written_architectures() == found == installed.training_architectures()


def test_releases_are_those_of_saelens():
    found = get_pretrained_saes_directory()
    assert {name: (one.repository, one.saes) for name, one in installed.sae_releases().items()} == {
        name: (one.repo_id, one.saes_map) for name, one in found.items()
    }


def test_names_of_models_are_those_of_transformer_lens():
    assert installed.model_names() == make_model_alias_map()
