"""Laws of SAELens releases and hub repositories, read offline from a hand-made cache."""

import json
import warnings
from pathlib import Path

import legacy_files as old
import pytest
import torch
from legacy_files import B_DEC, B_ENC, D_IN, D_SAE, LINEAR, OWN, W_DEC, W_ENC, X
from sae_lens.loading import pretrained_sae_loaders
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig

from saelens_steer.errors import InputError
from saelens_steer.sae import check_sae_at, load_sae, save_sae, source_version

LLAMA = ("llama-3.1-8b-instruct-andyrdt", "resid_post_layer_19_trainer_1")
LLAMA_FILES = ("andyrdt/saes-llama-3.1-8b-instruct", "resid_post_layer_19/trainer_1")
QWEN = ("qwen-scope-3-1.7b-base-w32k-l50", "layer7")
QWEN_FILES = ("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50", "layer7.sae.pt")
GEMMA = ("gemma-3-1b-res-matryoshka-dc", "blocks.12.hook_resid_post")
GEMMA_FILES = ("chanind/gemma-3-1b-batch-topk-matryoshka-saes-w-32k-l0-40", GEMMA[1])
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty hub cache, and a function that returns a repository's folder in it."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))

    def repository(name: str) -> Path:
        folder = cache / ("models--" + name.replace("/", "--"))
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs/main").write_text(COMMIT)
        return folder / "snapshots" / COMMIT

    return repository


def dictionary_learning(folder: Path, dict_class: str, **more) -> Path:
    """A folder as dictionary_learning writes it: config.json and ae.pt."""
    trainer = {
        "dict_class": dict_class,
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "k": 4,
        "layer": 19,
        "lm_name": "meta-llama/Llama-3.1-8B-Instruct",
        "submodule_name": "resid_post_layer_19",
    }
    weights = {**LINEAR, "b_dec": B_DEC, "k": torch.tensor(4), **more}
    weights.pop("decoder.bias")
    old.saved(folder / "ae.pt", weights)
    config = {"trainer": trainer, "buffer": {"ctx_len": 1024, "d_submodule": D_IN}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def llama(hub) -> Path:
    folder = hub(LLAMA_FILES[0]) / LLAMA_FILES[1]
    return dictionary_learning(folder, "BatchTopKSAE", threshold=torch.tensor(0.4))


def equal(sae, **weights: torch.Tensor) -> None:
    for name, weight in weights.items():
        assert getattr(sae, name).data.equal(weight), name


def test_a_release_of_dictionary_learning_is_loaded_as_saelens_reads_it(hub):
    llama(hub)
    sae = load_sae(*LLAMA)
    assert sae.cfg.architecture() == "jumprelu"
    assert sae.cfg.metadata.hook_name == "blocks.19.hook_resid_post"
    equal(sae, W_enc=W_ENC, W_dec=W_DEC, b_enc=B_ENC, b_dec=B_DEC)
    equal(sae, threshold=torch.full((D_SAE,), 0.4))
    check_sae_at(sae, D_IN, "blocks.20.hook_resid_pre")
    check_sae_at(sae, D_IN, "blocks.19.hook_resid_post")


def test_a_topk_checkpoint_that_breaks_the_convention_is_loaded(hub, monkeypatch):
    known = {"Qwen3-1.7B-Base": ("Qwen/Qwen3-1.7B-Base", 2)}  # its width of 2048 is fixed there
    monkeypatch.setattr(pretrained_sae_loaders, "QWEN_SCOPE_MODEL_INFO", known)
    W_enc, b_enc = torch.randn(2, 32768), torch.randn(32768)
    weights = {"W_enc": W_enc.T, "W_dec": W_enc, "b_enc": b_enc, "b_dec": torch.ones(2)}
    old.saved(hub(QWEN_FILES[0]) / QWEN_FILES[1], weights)
    for source in (QWEN, QWEN_FILES):
        sae = load_sae(*source)
        assert (sae.cfg.architecture(), sae.cfg.k) == ("topk", 50)
        assert sae.cfg.metadata.hook_name == "blocks.7.hook_resid_post"
        equal(sae, W_enc=W_enc, W_dec=W_enc.T, b_enc=b_enc)


def test_a_release_in_saelenss_own_format_is_loaded(hub):
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=D_SAE))
    sae.cfg.metadata.hook_name = GEMMA[1]
    for name, weight in OWN.items():
        getattr(sae, name).data = weight.clone()
    sae.save_model(hub(GEMMA_FILES[0]) / GEMMA_FILES[1])
    for source in (GEMMA, GEMMA_FILES):
        loaded = load_sae(*source)
        equal(loaded, **OWN)
        assert loaded.cfg.metadata.hook_name == "blocks.12.hook_resid_post"


CLASSES = {
    "AutoEncoderTopK": {"threshold": torch.tensor(0.4)},
    "BatchTopKSAE": {"threshold": torch.tensor(0.4)},
    "MatryoshkaBatchTopKSAE": {"threshold": torch.tensor(0.4)},
}


@pytest.mark.parametrize("dict_class", CLASSES)
def test_a_folder_of_dictionary_learning_is_read_by_us_as_by_saelens(hub, dict_class):
    folder = hub(LLAMA_FILES[0]) / LLAMA_FILES[1]
    dictionary_learning(folder, dict_class, **CLASSES[dict_class])
    theirs, ours = load_sae(*LLAMA), load_sae(folder)
    assert ours.cfg.architecture() == theirs.cfg.architecture()
    assert ours(X).equal(theirs(X)) and ours.encode(X).equal(theirs.encode(X))


def test_a_relu_folder_of_dictionary_learning_is_read_by_us_as_by_saelens(hub):
    folder = hub(LLAMA_FILES[0]) / LLAMA_FILES[1]
    dictionary_learning(folder, "AutoEncoder")
    config = json.loads((folder / "config.json").read_text())
    del config["trainer"]["k"]
    (folder / "config.json").write_text(json.dumps(config))
    weights = {k: v for k, v in LINEAR.items() if k != "decoder.bias"}
    old.saved(folder / "ae.pt", {**weights, "bias": B_DEC})
    theirs, ours = load_sae(*LLAMA), load_sae(folder)
    assert ours.cfg.architecture() == theirs.cfg.architecture() == "standard"
    assert ours(X).equal(theirs(X)) and ours.encode(X).equal(theirs.encode(X))


def test_a_repository_that_saelens_knows_is_read_as_its_release(hub):
    llama(hub)
    sae = load_sae(*LLAMA_FILES)
    assert sae.cfg.metadata.hook_name == "blocks.19.hook_resid_post"
    assert sae.cfg.metadata.neuronpedia_id == "llama3.1-8b-it/19-resid-post-aa"


def test_other_repositories_hold_saes_of_saelens_and_checkpoints(hub, tmp_path):
    top = hub("someone/saes.v2")
    old.saved(top / "layer_3/sae.pt", OWN | {"k": 4} | old.SUBTRACTED)
    old.saved(top / "layer_4/sae.pt", OWN | old.RELU)
    save_sae(load_sae(top / "layer_3"), top / "converted/layer_3")
    for part in ("layer_3", "layer_3/sae.pt", "converted/layer_3"):
        sae = load_sae("someone/saes.v2", part, hook_name="blocks.1.hook_resid_pre")
        assert sae.cfg.k == 4
        equal(sae, **OWN)
    old.beside(old.saved(hub("someone/one") / "sae.safetensors", OWN), old.RELU)
    equal(load_sae("someone/one"), **OWN)
    assert source_version("someone/one") is None


def test_only_the_files_of_one_sae_are_asked_for(tmp_path, monkeypatch):
    from fnmatch import fnmatch

    asked = {}
    snapshot = lambda name, **given: asked.update(given) or str(tmp_path)  # noqa: E731
    monkeypatch.setattr("saelens_steer.sae.sources.snapshot_download", snapshot)
    files = [
        "sae.pt",
        "config.json",
        "a/sae.pt",
        "a/cfg.json",
        "a/README.md",
        "a/b/sae.pt",
        "ab/x.pt",
    ]
    wanted = {
        None: ["sae.pt", "config.json"],
        "a": ["config.json", "a/sae.pt", "a/cfg.json"],
        "a/sae.pt": ["config.json", "a/sae.pt", "a/cfg.json"],
        "a/b": ["a/cfg.json", "a/b/sae.pt"],
    }
    for part, expected in wanted.items():
        with pytest.raises(InputError):
            load_sae("someone/saes", part)
        allowed = [f for f in files if any(fnmatch(f, p) for p in asked["allow_patterns"])]
        assert [f for f in allowed if not fnmatch(f, asked["ignore_patterns"])] == expected


UNFOUND = {
    "not in the cache": (("nobody/nothing", None), "not in the cache, and the hub cannot be"),
    "a part that is not there": (("someone/one", "layer_9"), "has no layer_9"),
    "a file that is not there": (("someone/one", "layer_9/sae.pt"), "has no layer_9/sae.pt"),
    "a part outside": (("someone/one", "../../secret"), "must name a folder or file in"),
    "no SAE": (("someone/one", "empty"), "and no other checkpoint"),
    "a release that is not cached": (GEMMA, "cannot fetch"),
    "no such id of a known repository": ((LLAMA_FILES[0], "layer_77"), "not in the cache"),
    "no id": (
        (LLAMA_FILES[0], None),
        rf"belongs to SAELens's release {LLAMA[0]} \(sae_id like resid_post",
    ),
    "no name": (("someone/one/more", None), "not an existing file or folder, a SAELens release"),
}


@pytest.mark.parametrize("case", UNFOUND)
def test_what_is_not_there_is_refused_in_one_sentence(hub, case):
    source, hint = UNFOUND[case]
    (hub("someone/one") / "empty").mkdir(parents=True)
    with pytest.raises(InputError, match=hint) as refused:
        load_sae(*source)
    assert "\n" not in str(refused.value)


def test_what_is_on_this_machine_goes_before_a_release_and_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old.saved(hub("runs/sae") / "sae.pt", OWN | {"k": 4} | old.SUBTRACTED)
    assert load_sae("runs/sae").cfg.architecture() == "topk"
    save_sae(load_sae(old.saved(Path("mine.pt"), OWN | old.RELU)), Path("runs/sae"))
    save_sae(load_sae("mine.pt"), Path(LLAMA[0]))
    assert load_sae("runs/sae").cfg.architecture() == load_sae(LLAMA[0]).cfg.architecture()
    with pytest.raises(InputError, match="leave out sae_id"):
        load_sae(*LLAMA)


def test_a_release_that_would_run_code_is_refused_and_runs_none(hub, tmp_path):
    made = tmp_path / "made"
    torch.save({"encoder.weight": old.Trap(made)}, llama(hub) / "ae.pt")
    with pytest.raises(InputError, match="contains more than tensors, and unpickling"):
        load_sae(*LLAMA)
    assert not made.exists()


DAMAGES = {
    "a missing weight": lambda folder: torch.save({"encoder.weight": W_ENC.T}, folder / "ae.pt"),
    "another size": lambda folder: torch.save(
        {**LINEAR, "b_dec": torch.ones(9), "threshold": torch.tensor(1.0)}, folder / "ae.pt"
    ),
    "half a file": lambda folder: (folder / "ae.pt").write_bytes(b"PK\x03\x04half"),
    "no config": lambda folder: (folder / "config.json").write_text("{}"),
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_release_is_refused_in_one_sentence(hub, case):
    DAMAGES[case](llama(hub))
    with pytest.raises(InputError, match=f"SAELens cannot load {LLAMA[0]}/{LLAMA[1]}: ") as said:
        load_sae(*LLAMA)
    assert "\n" not in str(said.value)


AMBIGUOUS = {
    ("google/gemma-scope-2-1b-it", "layer_12_width_16k_l0_small"): 4,
    ("google/gemma-scope-2-1b-pt", "layer_13_width_16k_l0_medium"): 3,
    ("google/gemma-scope-2-270m-pt", "layer_5_width_16k_l0_small"): 3,
}


@pytest.mark.parametrize("source", AMBIGUOUS)
def test_an_id_that_fits_several_saes_of_a_repository_is_refused_with_all(monkeypatch, source):
    never = lambda *args, **given: pytest.fail("one was taken")  # noqa: E731
    monkeypatch.setattr("sae_lens.SAE.from_pretrained", never)
    with pytest.raises(InputError, match="matches several SAEs") as refused:
        load_sae(*source)
    assert str(refused.value).count(f"/{source[1]})") >= AMBIGUOUS[source]


def test_the_folder_of_an_ambiguous_id_chooses_its_release(monkeypatch):
    asked = []

    def noted(release, sae_id, **given):
        asked.append((release, sae_id))
        raise OSError("enough")

    monkeypatch.setattr("sae_lens.SAE.from_pretrained", noted)
    part = "layer_12_width_16k_l0_small"
    with pytest.raises(InputError, match="enough"):
        load_sae("google/gemma-scope-2-1b-it", f"resid_post_all/{part}")
    assert asked == [("gemma-scope-2-1b-it-res-all", part)]


def test_one_sae_under_two_ids_is_no_choice(monkeypatch):
    def found(release, sae_id, **given):
        raise OSError(f"{release} it is")

    monkeypatch.setattr("sae_lens.SAE.from_pretrained", found)
    with pytest.raises(InputError, match="gemma-scope-2b-pt-res it is"):
        load_sae("google/gemma-scope-2b-pt-res", "layer_0/width_16k/average_l0_105")


def test_a_repository_without_an_id_lists_all_its_releases():
    with pytest.raises(InputError) as refused:
        load_sae("google/gemma-scope-2-1b-it")
    for part in ("res", "mlp", "att", "transcoders"):
        assert f"gemma-scope-2-1b-it-{part}-all (sae_id like layer_" in str(refused.value)


TEMPORAL = ("temporal-sae-gemma-2-2b", "blocks.12.hook_resid_post")
UNSUPPORTED = {
    TEMPORAL: "a temporal SAE",
    ("canrager/temporalSAEs", "gemma-2-2B/layer_12/temporal"): "a temporal SAE",
    ("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_3"): "one layer of a cross-layer transcoder",
}


@pytest.mark.parametrize("source", UNSUPPORTED)
def test_kinds_that_do_not_work_at_one_hook_are_refused_by_name(source):
    with pytest.raises(InputError, match=f"is {UNSUPPORTED[source]}.*: it is not supported"):
        load_sae(*source)


def test_a_release_whose_scale_is_missing_is_refused(hub, monkeypatch):
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=D_SAE))
    sae.cfg.normalize_activations = "expected_average_only_in"
    sae.save_model(hub(GEMMA_FILES[0]) / GEMMA_FILES[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # SAELens only warns
        with pytest.raises(InputError, match="has no norm_scaling_factor for it"):
            load_sae(*GEMMA)


TWO_MODELS = ("gemma-scope-9b-it-res", "layer_20/width_131k/average_l0_13")


def test_two_models_for_one_release_are_asked_about_before_any_download():
    with pytest.raises(InputError) as refused:
        load_sae(*TWO_MODELS)
    for name in ("gemma-2-9b", "gemma-2-9b-it"):
        assert f'model_name="{name}"' in str(refused.value)
    with pytest.raises(InputError, match="was trained on gemma-2-9b or gemma-2-9b-it, not on gpt2"):
        load_sae(*TWO_MODELS, model_name="gpt2")


def test_the_model_that_is_given_is_recorded(monkeypatch):
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=D_SAE))
    sae.cfg.metadata.hook_name = "blocks.20.hook_resid_post"
    monkeypatch.setattr("sae_lens.SAE.from_pretrained", lambda *args, **given: sae)
    loaded = load_sae(*TWO_MODELS, model_name="google/gemma-2-9b-it")
    assert loaded.cfg.metadata.model_name == "google/gemma-2-9b-it"
    with pytest.raises(InputError, match=r"made for blocks\.20\.hook_resid_post, not for"):
        load_sae(*TWO_MODELS, model_name="gemma-2-9b-it", hook_name="blocks.9.hook_resid_post")


def test_both_models_of_the_distilled_release_are_named(hub):
    release = "llama_scope_r1_distill"
    folder = hub("fnlp/Llama-Scope-R1-Distill") / "800M-Slimpajama-0-OpenR1-Math-220k/L0R"
    folder.mkdir(parents=True)
    settings = {"d_model": D_IN, "expansion_factor": 8, "hook_point_in": "blocks.0.hook_resid_post"}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r'name="deepseek-ai/.*name="meta-llama/Llama-3\.1-8B"'):
        load_sae(release, "l0r_800m_slimpajama")


def test_all_other_releases_of_loaders_that_name_the_model_agree_with_the_directory():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    from saelens_steer.sae import sources

    offline = ("gemma_2", "gemma_2_transcoder", "qwen_scope", "goodfire", "deepseek_r1")
    asked = []
    for release, entry in get_pretrained_saes_directory().items():
        if entry.conversion_func in offline:
            try:
                sources._model_of(release, min(entry.saes_map), None)
            except InputError:
                asked.append(release)
    assert asked == ["gemma-scope-9b-it-res"]
