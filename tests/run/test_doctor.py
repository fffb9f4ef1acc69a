"""The doctor: self-tests pass on what works, and fail on what is broken."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from checkpoints import small_tokenizer
from processes import ROOT, finished
from saes import random_sae

from saelens_steer import cli
from saelens_steer.config import load_config, parse_config
from saelens_steer.data import Prompt, load_prompts
from saelens_steer.doctor import case as case_module
from saelens_steer.doctor import examine, resources, self_tests
from saelens_steer.doctor.case import N_PROMPTS, SelfTestCase, spread
from saelens_steer.doctor.self_tests import (
    SELFTESTS,
    batches,
    chat_template,
    engine,
    identity,
    kv_cache,
    padding,
    parity,
    sae_fit,
    sae_hook,
)
from saelens_steer.model import load
from saelens_steer.pipeline.checks import checked_context
from saelens_steer.steering import apply, positions
from saelens_steer.sweeps.cells import SweepCells

TINY = "configs/tiny/code_vs_math.yaml"
HOOK = "blocks.2.hook_resid_pre"
TEXTS = [
    "add two numbers",
    "return a + b",
    "show your work, and answer the question",
    "x",
    "def add",
]


def write_prompts(path: Path, texts: list[str], domains: list[str] | None = None) -> str:
    named = zip(texts, domains or ["code"] * len(texts), strict=True)
    rows = [
        {"id": f"p{i}", "messages": [{"role": "user", "content": text}], "domain": d}
        for i, (text, d) in enumerate(named)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def settings(folder: Path, model: str, model_class: str = "HookedTransformer") -> dict:
    """A config on a random model, with an SAE made for the same place by its other name."""
    random_sae(32, "blocks.1.hook_resid_post").save_model(str(folder / "sae"))
    chosen_on = write_prompts(folder / "domains.jsonl", ["print", "integral"], ["code", "math"])
    return {
        "model": {"name": model, "class": model_class},
        "hook_name": HOOK,
        "prompts": {"source": write_prompts(folder / "prompts.jsonl", TEXTS)},
        "sae": {"load": {"source": str(folder / "sae")}},
        "select": {"prompts": chosen_on, "k": 1},
        "sweep": {"n_controls": 4, "completions": {"max_new_tokens": 16}},
        "metrics": ["kl", "latex_first"],
    }


def case_of(config: dict, folder: Path) -> SelfTestCase:
    run = checked_context(parse_config(config, []), folder)
    return SelfTestCase(run, spread(run.measurement(), N_PROMPTS))


@pytest.fixture(scope="module", params=["HookedTransformer", "TransformerBridge"])
def case(request, random_folder, tmp_path_factory) -> SelfTestCase:
    folder = tmp_path_factory.mktemp("case")
    return case_of(settings(folder, str(random_folder), request.param), folder / "run")


@pytest.fixture
def hooked(random_folder, tmp_path) -> SelfTestCase:
    return case_of(settings(tmp_path, str(random_folder)), tmp_path / "run")


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """Time one direction in this process: the figures of a random model say nothing."""
    monkeypatch.setattr(resources, "TRIES", (1,))


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line in this process; exit status, stdout, stderr."""

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["saelens-steer", *args])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    return run


def written(config: dict, folder: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.slow
def test_the_shipped_config_passes_and_the_last_line_is_the_run_folder():
    args = [sys.executable, "-m", "saelens_steer.cli", "doctor", TINY]
    lines = finished(args).splitlines()
    assert {line[6:14]: line[:4] for line in lines[1:10]}.pop("SAE fit ") == "note"
    assert [line[:4] for line in lines[1:10] if "SAE fit" not in line] == ["pass"] * 8
    assert [line[6:].startswith(name) for line, name in zip(lines[1:10], SELFTESTS, strict=True)]
    assert lines[-2:] == ["ok", "runs/code_vs_math"]
    facts = {line.split()[0]: line for line in lines[10:] if not line.startswith(" ")}
    assert "blocks.4.hook_resid_pre" in facts["hook"]
    assert "math_margin" in facts["metrics"]
    assert "20 directions and 512 controls: 51,072 rows, 4,056 texts" in facts["sweep"]
    assert "enough" in facts["controls"]
    assert {"memory", "disk", "time"} <= facts.keys()


@pytest.mark.slow
def test_a_transformer_bridge_passes_and_says_why_its_rows_take_whole_passes():
    spec = load_config(ROOT / TINY, ["model.class=TransformerBridge", "prompts.limit=4"])
    found = {finding.name: finding for finding in examine(spec)}
    noted = {name for name in SELFTESTS if found[name].verdict == "note"}
    assert noted == {"SAE fit", "engine"}
    assert {found[name].verdict for name in SELFTESTS if name not in noted} == {"pass"}
    assert "TransformerBridge" in found["engine"].detail


def test_every_self_test_passes_on_a_random_model_of_either_class(case):
    verdicts = {name: test(case).verdict for name, test in SELFTESTS.items()}
    assert verdicts.pop("SAE fit") == "note"  # the selection prompts have too few tokens
    whole = verdicts.pop("engine")
    assert whole == ("pass" if case.measurement.unsteered_pass.full_pass_reason is None else "note")
    assert set(verdicts.values()) == {"pass"}


def test_the_prompts_of_the_self_tests_go_from_the_shortest_to_the_longest(case):
    lengths = sorted(len(ids) for ids in case.run.measurement().ids)
    few = [len(ids) for ids in case.measurement.ids]
    assert (len(few), few[0], few[-1]) == (N_PROMPTS, lengths[0], lengths[-1])
    assert (
        len(
            spread(
                replace(case.measurement, prompts=case.measurement.prompts[:1]), N_PROMPTS
            ).prompts
        )
        == 1
    )


def test_a_model_that_differs_from_its_checkpoint_fails_parity(hooked):
    assert not parity(hooked).failed
    hooked.model.blocks[3].mlp.W_out.data *= 1.05
    found = parity(hooked)
    assert found.failed
    assert found.measured > 1e-3


def test_without_room_for_the_checkpoint_the_remembered_proof_is_reported(case, monkeypatch):
    monkeypatch.setattr(self_tests, "free_bytes", lambda model: 0)
    monkeypatch.setattr(self_tests, "checkpoint_of", lambda model: pytest.fail("loaded again"))
    found = parity(case)
    assert found.verdict == "pass"
    assert "from when it was loaded" in found.detail


def test_a_model_that_is_refused_at_loading_is_a_failed_self_test(
    random_folder, tmp_path, monkeypatch, command
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    get = load.get_pretrained_state_dict

    def tampered(*args, **kwargs):
        return {name: weight * 1.01 for name, weight in get(*args, **kwargs).items()}

    monkeypatch.setattr(load, "get_pretrained_state_dict", tampered)
    config = written(settings(tmp_path, str(random_folder)), tmp_path)
    status, out, _ = command("doctor", config, "--out", "elsewhere")
    assert status == 1
    assert "FAIL  parity" in out
    assert out.splitlines()[-2:] == ["failed: parity", "elsewhere"]


def test_an_edit_that_does_something_at_alpha_0_fails(case, monkeypatch):
    steer = apply.edit_where
    monkeypatch.setattr(apply, "edit_where", lambda *args: steer(*args) * 1.01)
    assert identity(case).failed


def test_a_hook_that_stays_on_the_model_fails(case, monkeypatch):
    left = []

    @contextlib.contextmanager
    def forgetful(model, *args, **kwargs):
        left.append(model.blocks[0].register_forward_hook(lambda *args: None))
        with apply.steered(model, *args, **kwargs) as receipt:
            yield receipt

    monkeypatch.setattr(case_module, "steered", forgetful)
    found = identity(case)
    left[0].remove()
    assert found.failed
    assert "1 hooks left" in found.detail


def test_a_hook_that_skips_single_positions_fails_the_cache(case, monkeypatch):
    steer = apply.edit_where
    skipping = lambda edits, x, mask: x if x.shape[1] == 1 else steer(edits, x, mask)  # noqa: E731
    monkeypatch.setattr(apply, "edit_where", skipping)
    assert kv_cache(case).failed


def test_passes_that_attend_to_padding_fail_batches_and_padding(case, monkeypatch):
    run = case_module.last_token_logits
    everything = lambda model, tokens, mask: run(model, tokens, torch.ones_like(mask))  # noqa: E731
    monkeypatch.setattr(case_module, "last_token_logits", everything)
    assert batches(case).failed
    assert padding(case).failed


def test_steering_that_takes_padding_for_text_fails_by_the_positions_it_counts(case, monkeypatch):
    monkeypatch.setattr(positions.Tracker, "_now", lambda _, mask, *size: torch.ones(size).bool())
    for found in (batches(case), padding(case)):
        assert found.failed
        assert "positions are steered" in found.detail


def test_an_engine_that_pushes_otherwise_than_the_hook_fails(hooked, monkeypatch):
    steer = SweepCells.steer
    weaker = lambda self, cells, x, chosen: x + 0.9 * (steer(self, cells, x, chosen) - x)  # noqa: E731
    assert not engine(hooked).failed
    monkeypatch.setattr(SweepCells, "steer", weaker)
    assert engine(hooked).failed


def test_an_sae_that_reads_other_than_what_is_pushed_fails(case, monkeypatch):
    found = sae_hook(case)
    assert "made for blocks.1.hook_resid_post" in found.detail
    steer = apply.edit_where
    monkeypatch.setattr(apply, "edit_where", lambda *args: 2 * steer(*args) - args[1])
    assert sae_hook(case).failed


def test_an_sae_that_does_not_fit_the_model_fails_on_the_selection_prompts(case):
    prompts = tuple(load_prompts("transport-topic"))
    found = sae_fit(replace(case, run=replace(case.run, selection_prompts=prompts)))
    assert found.failed
    assert found.measured > found.allowed
    assert "of the variance" in found.detail
    measured, allowed = found.shown
    assert f"{measured:>9}{allowed:>9}" in str(found) and allowed == "≥ 30 %"
    assert f"explains {measured} of the variance" in found.detail


def test_positions_that_leave_nothing_to_steer_are_a_failed_self_test(random_folder, tmp_path):
    config = settings(tmp_path, str(random_folder))
    config["sweep"] |= {"positions": "last", "max_norm": 1e-6}
    found = {f.name: f for f in examine(parse_config(config, [])) if f.verdict}
    assert found["batches"].failed
    assert "no position" in found["batches"].detail


@pytest.mark.slow
def test_a_turn_that_holds_special_tokens_of_the_template_fails_with_the_prompts_id(
    random_folder, tmp_path, command
):
    config = settings(tmp_path, str(random_folder))
    rendered = "<|im_start|>user\nadd two numbers<|im_end|>\n<|im_start|>assistant\n"
    write_prompts(tmp_path / "prompts.jsonl", [*TEXTS, rendered])
    status, out, _ = command("doctor", written(config, tmp_path))
    assert status == 1
    assert out.splitlines()[-2:] == ["failed: chat template", "runs/config"]
    (line,) = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert "'p5'" in line
    assert "<|im_start|> 4 times" in line


def test_selection_prompts_are_held_against_the_template_too(hooked):
    marked = Prompt("s1", messages=[{"role": "user", "content": "<|im_end|>"}])
    found = chat_template(replace(hooked, run=replace(hooked.run, selection_prompts=(marked,))))
    assert found.failed
    assert "'s1'" in found.detail


def test_a_template_that_does_not_end_at_the_assistant_start_fails(hooked, monkeypatch):
    longer = "{{ ' :' if messages[-1]['content']|length > 1 }}{% endif %}"
    template = hooked.model.tokenizer.chat_template.removesuffix("{% endif %}")
    monkeypatch.setattr(hooked.model.tokenizer, "chat_template", template + longer)
    found = chat_template(hooked)
    assert found.failed
    assert "does not end at the assistant start" in found.detail


def test_a_second_beginning_of_text_fails_without_a_template_too(hooked, monkeypatch):
    monkeypatch.setattr(hooked.model, "tokenizer", small_tokenizer(bos="<bos>"))
    texts = (Prompt("a", "add"),)
    run = replace(hooked.run, prompts=texts, selection_prompts=texts)
    assert "all plain text" in chat_template(replace(hooked, run=run)).detail
    once = replace(run, prompts=(Prompt("b", "<bos>add"),))
    assert not chat_template(replace(hooked, run=once)).failed
    twice = replace(run, prompts=(Prompt("b", "<bos><bos>add"),))
    assert "<bos> twice" in chat_template(replace(hooked, run=twice)).detail


def test_bad_input_is_one_sentence_and_status_2(tmp_path, command):
    status, _, err = command("doctor", written({"hook_name": "blocks.40.hook_resid_pre"}, tmp_path))
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "0 to 7" in err


def test_too_little_memory_is_said(hooked, monkeypatch):
    monkeypatch.setattr(resources, "free_bytes", lambda model: 0)
    said = [str(finding) for finding in examine(hooked.run.spec)]
    assert any("too little; lower sweep.batch_tokens" in line for line in said)


def test_weights_that_are_shared_count_once():
    first, second = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
    apart = resources.weight_bytes(torch.nn.Sequential(first, second))
    second.weight = first.weight
    assert (apart, resources.weight_bytes(torch.nn.Sequential(first, second))) == (512, 256)


def test_a_device_that_does_not_say_what_is_free_is_not_judged():
    assert "not known" in resources._verdict(1, None, "mps")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "under a second"),
        (42.0, "about 42 s"),
        (200.0, "about 3 min"),
        (9000.0, "about 2.5 h"),
    ],
)
def test_durations_are_said_roughly(seconds, said):
    assert resources.about(seconds) == said
