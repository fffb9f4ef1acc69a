"""Laws of a grid: each SAE equals one trained alone, and activations are computed once."""

from pathlib import Path

import pytest

from saelens_steer.config import TrainSpec
from saelens_steer.config.sae import GridSpec, SAESpec
from saelens_steer.errors import InputError
from saelens_steer.file_names import file_name
from saelens_steer.sae import SAEGrid, sae_fingerprint, train_sae
from saelens_steer.sae.training import train as module

HOOK = "blocks.2.hook_resid_pre"
GRID = (
    GridSpec(architecture="batchtopk", vary={"k": (2, 4)}),
    GridSpec(
        architecture="standard",
        normalize="mean_scale",
        options={"l1_warm_up_steps": 5},
        vary={"l1_coefficient": (0.1, 0.5)},
        lr=1e-3,
    ),
)


@pytest.fixture(scope="module")
def specs(small) -> dict[str, TrainSpec]:
    train = small(cached_tokens=1024).model_dump()
    return SAESpec.model_validate(
        {"train": train, "grid": [g.model_dump() for g in GRID]}
    ).grid_specs


def test_every_combination_has_a_name_and_a_spec_of_its_own(specs):
    assert list(specs) == [
        "batchtopk-k2",
        "batchtopk-k4",
        "standard-l1_coefficient0.1",
        "standard-l1_coefficient0.5",
    ]
    last = specs["standard-l1_coefficient0.5"]
    assert last.options == {"l1_warm_up_steps": 5, "l1_coefficient": 0.5}
    assert (last.lr, last.normalize, last.d_sae, last.cached_tokens) == (
        1e-3,
        "mean_scale",
        32,
        1024,
    )
    assert specs["batchtopk-k2"].lr == 2e-3


def test_two_saes_of_one_name_are_refused_and_a_name_of_ones_own_tells_them_apart():
    twice = [{"vary": {"k": [8]}, "lr": 1e-3}, {"vary": {"k": [8]}, "lr": 1e-4}]
    with pytest.raises(ValueError, match="two SAEs of the grid are named 'batchtopk-k8'"):
        SAESpec.model_validate({"train": {}, "grid": twice})
    named = [twice[0], twice[1] | {"name": "slow"}]
    specs = SAESpec.model_validate({"train": {}, "grid": named}).grid_specs
    assert {name: spec.lr for name, spec in specs.items()} == {
        "batchtopk-k8": 1e-3,
        "slow-k8": 1e-4,
    }


@pytest.mark.parametrize(
    "name", ["", "/", "a/b", "/tmp/a", "../a", "..\\a", "a/", "a\0b", ".", "..", ".hidden", "..a"]
)
@pytest.mark.parametrize("vary", [{}, {"k": [8]}])
def test_an_sae_is_in_the_folder_of_the_grid_whatever_its_name(name, vary):
    grid = [{"name": name, "vary": vary}]
    [found] = SAESpec.model_validate({"train": {}, "grid": grid}).grid_specs
    assert found == name + ("-k8" if vary else "")
    place = file_name(found)
    assert Path(place).name == place and not place.startswith(".") and "\\" not in place


@pytest.mark.parametrize(
    "name",
    [
        "grid/grid.csv",
        "grid/frontier.html",
        "grid/tensorboard",
        "grid/wandb",
        "grid/a-checkpoints",
    ],
)
def test_an_sae_has_no_name_that_its_folder_has_for_something_else(name):
    with pytest.raises(ValueError, match="is reserved in its folder"):
        SAESpec.model_validate({"train": {}, "grid": [{"name": name.removeprefix("grid/")}]})


@pytest.mark.parametrize("value", ["../../a", "/a", "..", ".", "a/b"])
def test_whatever_varies_an_sae_is_a_folder_in_that_of_the_grid(value):
    grid = [{"architecture": "topk", "vary": {"k": [value]}}, {"vary": {f"../{value}": [1]}}]
    for name in SAESpec.model_validate({"train": {}, "grid": grid}).grid_specs:
        place = file_name(name)
        assert "/" not in place and place.startswith(("topk-", "batchtopk-"))


@pytest.mark.parametrize("name", ["slow lr", "a.b", "a..b", "grid", "grid.csv2", "β"])
def test_other_names_are_taken_as_they_are(name):
    [found] = SAESpec.model_validate({"train": {}, "grid": [{"name": name}]}).grid_specs
    assert found == name


def test_what_cannot_be_trained_is_refused_with_the_config():
    train = {"lr_scheduler": "cosineannealing", "lr_end": 1e-3}
    with pytest.raises(ValueError, match="grid, batchtopk: lr_end must be at most lr"):
        SAESpec.model_validate({"train": train, "grid": [{"vary": {"k": [8]}, "lr": 1e-4}]})


def test_two_options_that_vary_give_every_pair(small):
    grid = GridSpec(vary={"k": (2, 4), "topk_threshold_lr": (0.01, 0.03)})
    assert len(grid.specs(small())) == 4


def test_without_cached_tokens_all_training_tokens_are_cached(small):
    [spec] = GridSpec(vary={"k": (2,)}).specs(small()).values()
    assert spec.cached_tokens == spec.training_tokens == 4096


@pytest.mark.slow
def test_each_sae_is_the_one_that_training_it_alone_gives(random_model, specs, tmp_path):
    grid = SAEGrid(random_model, specs, HOOK)
    for name, spec in specs.items():
        grid.train(name, tmp_path / name)
        train_sae(random_model, spec, HOOK, tmp_path / "alone" / name)
        alone = sae_fingerprint(tmp_path / "alone" / name)
        assert sae_fingerprint(tmp_path / name) == alone, name
        quality = [p / name / "quality.json" for p in (tmp_path, tmp_path / "alone")]
        assert quality[0].read_bytes() == quality[1].read_bytes()


def test_activations_are_computed_once_and_only_when_an_sae_is_trained(
    random_model, specs, tmp_path, monkeypatch
):
    gathered, real = [], module.gather
    monkeypatch.setattr(module, "gather", lambda runner: gathered.append(1) or real(runner))
    grid = SAEGrid(random_model, specs, HOOK)
    assert gathered == []
    for name in specs:
        grid.train(name, tmp_path / name)
    assert gathered == [1]


def test_saes_that_need_other_activations_are_refused(random_model, small):
    one, other = small(cached_tokens=1024), small(cached_tokens=2048)
    with pytest.raises(InputError, match="must share corpus, prepend_bos, tokens, cached_tokens"):
        SAEGrid(random_model, {"one": one, "other": other}, HOOK)
    with pytest.raises(InputError, match="set cached_tokens"):
        SAEGrid(random_model, {"one": small()}, HOOK)
    with pytest.raises(InputError, match=r"give sae\.grid an architecture"):
        SAEGrid(random_model, {}, HOOK)
    unknown = small(cached_tokens=1024, options={"kk": 1})
    with pytest.raises(InputError, match="has no option 'kk'"):
        SAEGrid(random_model, {"one": one, "two": unknown}, HOOK)


def test_a_grid_needs_a_training_that_says_the_rest():
    with pytest.raises(ValueError, match="grid needs train, not load"):
        SAESpec.model_validate({"load": {"source": "x"}, "grid": [{"vary": {"k": [2]}}]})
