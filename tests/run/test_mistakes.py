"""A mistake is refused at once, by the sentence that names what to write instead."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from mistakes import CALLS, CONFIGS, OF_THE_MODEL
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

import saelens_steer as ss
from saelens_steer.config import draft_config
from saelens_steer.errors import InputError
from saelens_steer.pipeline.rules import check_config

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
HOOK = "blocks.4.hook_resid_pre"
MOST_CPU = 5.0
"""Seconds of user CPU that a refusal may take in a fresh process."""


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)


def refusal(text: str) -> str:
    with pytest.raises(InputError) as refused:
        check_config(draft_config(yaml.safe_load(text)))
    return str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("text", CONFIGS)
def test_a_mistake_in_a_config_is_told_with_its_fix(text):
    said = refusal(text)
    assert CONFIGS[text] in said
    assert ("\n" in said) == text.startswith("model: {name: ")  # neither described nor found


@pytest.mark.slow
def test_no_rule_of_a_config_imports_what_takes_seconds():
    script = """
import sys, yaml
from saelens_steer.config import draft_config
from saelens_steer.pipeline.rules import check_config
for text in sys.argv[1:]:
    try:
        check_config(draft_config(yaml.safe_load(text)))
    except ValueError:
        continue
    raise AssertionError(text)
print(sorted({"torch", "transformers", "transformer_lens", "sae_lens"} & {*sys.modules}))
"""
    command = [sys.executable, "-c", script, *CONFIGS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENV, check=True)
    assert done.stdout == "[]\n"


PATHS = {
    "keys and values": ("run", "sweep: {alphas: 3}"),
    "a file": ("run", "prompts: {source: nowhere.jsonl}"),
    "a dataset": ("run", "prompts: {source: no/such/data}"),
    "a function": ("run", "metrics: ['configs.tiny.transport:f', kl]"),
    "SAELens's architectures": ("train", "sae: {train: {architecture: topkk}}"),
    "SAELens's releases": ("sweep", "sae: {load: {source: gpt2-small-res-jbb}}"),
    "a model": ("doctor", "model: {name: gpt2-smal}"),
    "a device": ("doctor", "model: {device: gpu}"),
    "a step": ("tradeoffs", "sweep: {seed: 1}"),
}


def spent(*arguments: object) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds of user CPU that Python takes with these arguments, and how it ended."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENV)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, done


@pytest.mark.slow
@pytest.mark.parametrize("kind", PATHS)
def test_a_refusal_takes_less_than_five_seconds_of_cpu(kind, tmp_path):
    command, text = PATHS[kind]
    (tmp_path / "config.yaml").write_text(text)
    cpu, done = spent("-m", "saelens_steer.cli", command, tmp_path / "config.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("saelens-steer: ") and "Traceback" not in done.stderr
    assert cpu < MOST_CPU


@pytest.mark.slow
def test_what_the_models_config_shows_is_refused_in_the_time_that_importing_saelens_takes(tmp_path):
    (tmp_path / "config.yaml").write_text(next(iter(OF_THE_MODEL)))
    cpu, done = spent("-m", "saelens_steer.cli", "run", tmp_path / "config.yaml")
    assert done.returncode == 2 and "the model has only layers" in done.stderr
    assert cpu < 1.2 * spent("-c", "import sae_lens")[0]  # 4 to 5 s


def test_mistakes_in_several_sections_are_told_at_once():
    sections = ["sweep: {edit: scale, alpha_unit: kl, alpha: [3]}", "select: {kk: 1}",
                "metrics: [klx]", "prompts: {source: nowhere.jsonl}", "label: {n_prompts: 0}",
                "sae: {train: {architecture: topkk}}", "features: {also: [5000]}"]  # fmt: skip
    first, *each = refusal("\n".join(sections)).splitlines()
    assert first == "config has 8 mistakes:"
    assert [line.split(";")[0] for line in sorted(each)] == [
        "- feature 5000 is out of range: the SAE will have features 0 to 1023",
        "- label.n_prompts: should be greater than 0, not 0",
        "- metrics.0: unknown metric 'klx'",
        "- prompts: there is no file nowhere.jsonl",
        "- sae.train: SAELens has no training architecture 'topkk'",
        "- sweep: edit scale: strengths can be set by KL only for plain `add`: choose another "
        "alpha_unit, and leave match out",
        "- unknown key 'select.kk'",
        "- unknown key 'sweep.alpha'",
    ]


def test_all_wrong_metrics_are_told_at_once():
    said = refusal("metrics: [klx, 'nowhere:metric', 'os:no_such', 'os:getcwd']")
    assert said.startswith("config has 4 mistakes:")
    assert "known: DirEntry, " in said and " more" in said and len(said) < 1500


def test_each_mistake_is_one_line_whatever_its_key_and_value_hold():
    grid = {"architecture": "topk", "vary": {"a\nb": 3, "k": "x\ny", "c\u202e": [4]}}
    config = {"sae": {"train": {}, "grid": [grid]}, "metrics": "k\nl", "s\nweep": {}}
    with pytest.raises(InputError) as refused:
        check_config(draft_config(config))
    first, *each = str(refused.value).splitlines()
    assert first == f"config has {len(each)} mistakes:"
    assert all(line.startswith("- ") and line.isprintable() for line in each)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        # what a replaced value would have decided is not judged
        (
            "select: {positive: [3], prompts: tiny-transport-topic}",
            ["select.positive: should"],
        ),
        ("tradeoffs: {limit: -1, domain: mixed}", ["tradeoffs.limit: should be greater"]),
        ("sae: {load: {sae_id: x}}\nfeatures: {also: [5000]}", ["sae.load.source: is missing"]),
        ("activations: {tokens: answer}\nselect: {at: answr}", ["select.at: should be"]),
        # what stands under a misspelt key is, and each side is
        (
            "select: {prompts: configs/tiny/requests.txt}",
            ["'code'; give each of its rows a domain", "'math'; give each of its rows a domain"],
        ),
        ("swep: {n_controls: -1}", ["unknown key 'swep'", "sweep.n_controls: should be greater"]),
        ("metrics: [{margn: {target: codefences}}]", ["'metrics.0.margn'", "token set 'codefen"]),
    ],
)
def test_only_what_the_config_says_is_a_mistake(text, sentences):
    said = refusal(text).splitlines()
    said = said[1:] if len(said) > 1 else said
    assert len(said) == len(sentences)
    assert all(sentence in line for sentence, line in zip(sentences, said, strict=True))


@pytest.fixture(scope="module")
def saes(tmp_path_factory) -> Path:
    """Folders with an SAE of another width, one of another hook, and one that fits."""
    folder = tmp_path_factory.mktemp("saes")
    for name, width, hook in (
        ("narrow", 64, None), ("elsewhere", 192, "blocks.2.hook_resid_pre"), ("here", 192, HOOK),
    ):  # fmt: skip
        sae = StandardSAE(StandardSAEConfig(d_in=width, d_sae=8))
        sae.cfg.metadata.hook_name = hook
        sae.save_model(str(folder / name))
        ss.save_vectors(folder / f"{name}.safetensors", {"v": np.ones(width)}, hook or HOOK)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("text", OF_THE_MODEL)
def test_what_the_models_config_shows_is_refused_before_its_weights_are_read(
    text, saes, tmp_path, monkeypatch
):
    def no_weights(*args, **named):
        raise AssertionError("the weights were read")

    monkeypatch.setattr("saelens_steer.model.load._load_proven", no_weights)
    config = yaml.safe_load(text)
    if load := config.get("sae", {}).get("load"):
        load["source"] = str(saes / load["source"])
    if files := config.get("sweep", {}).get("directions"):
        files[:] = [str(saes / name) for name in files]
    with pytest.raises(InputError) as refused:
        ss.run(config, tmp_path / "run")
    assert OF_THE_MODEL[text] in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_chat_without_a_template_is_refused_before_weights_are_read(
    random_folder, tmp_path, monkeypatch
):
    folder = tmp_path / "bare"
    shutil.copytree(random_folder, folder)
    (folder / "chat_template.jinja").unlink()
    monkeypatch.setattr("saelens_steer.model.load._load_proven", None)
    config = {
        "model": {"name": str(folder)}, "hook_name": "blocks.2.hook_resid_pre", "metrics": ["kl"],
        "prompts": {"source": "configs/tiny/requests.txt", "chat": True},
        "sae": {"train": {"corpus": "configs/tiny/requests.txt"}},
        "select": {"prompts": "tiny-domains"},
    }  # fmt: skip
    with pytest.raises(InputError, match="chat template"):
        ss.run(config, tmp_path / "run")


@pytest.fixture(scope="module")
def names(tiny_model, saes):
    """What the calls of the table name."""
    prompts = [ss.Prompt("1", "Write a loop.", "code"), ss.Prompt("2", "Add the numbers.", "math")]
    return {
        "ss": ss, "HOOK": HOOK, "model": tiny_model, "v": np.ones(192), "P": ["Write.", "Add."],
        "sae": ss.load_sae(saes / "here"), "narrow": ss.load_sae(saes / "narrow"),
        "held": ss.cache_activations(tiny_model, prompts, hook_name=HOOK),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_a_mistake_in_a_call_is_told_before_any_forward_pass(call, names, monkeypatch, unchecked):
    def forward(*args, **named):
        raise AssertionError("the model was run")

    monkeypatch.setattr(names["model"], "forward", forward)
    with pytest.raises(InputError) as refused:
        eval(call, names)
    assert CALLS[call] in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_all_mistakes_of_a_call_are_told_at_once(names, unchecked):
    with pytest.raises(InputError) as refused:
        ss.sweep(names["model"], names["sae"], ["Add."], features=[1], alphas=[0],
                 alpha_unit="max", n_controls=-2)  # type: ignore[arg-type]  # fmt: skip
    assert str(refused.value).startswith("sweep has 3 mistakes:\n- alphas: needs at least one")
