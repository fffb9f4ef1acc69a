"""The label step: every feature gets a status, nothing is lost, nothing is asked twice."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import MODEL, Loopback, Reply, answer, error, serving, well
from prompt_files import prompt_file, small_run

HOOK = "blocks.2.hook_resid_pre"
ALSO = [f for f in range(32) if f % 3 == 0]


@pytest.fixture(scope="module")
def config(tmp_path_factory, random_folder) -> Path:
    """A config for the random model that labels a dozen features."""
    home = tmp_path_factory.mktemp("label-parts")
    parts = small_run(home, random_folder, HOOK, 8)
    more = prompt_file(home / "chosen.jsonl", "list", ["code", "math"] * 15)
    label = {"max_new_tokens": 4, "n_prompts": 8, "contexts": 3, "detection": 4}
    parts |= {
        "features": {"topic": None, "also": ALSO, "contexts": 2},
        "select": {**parts["select"], "prompts": more},
        "sweep": {"alphas": [1], "n_controls": 4, "completions": {"max_new_tokens": 2, "top": 1}},
        "label": label,
    }
    path = home / "study.yaml"
    path.write_text(yaml.safe_dump(parts))
    return path


@pytest.fixture(scope="module")
def labelled(config, tmp_path_factory) -> Path:
    """A run labelled by the offline provider. Read only."""
    from saelens_steer.config import load_config
    from saelens_steer.pipeline.run import run

    folder = tmp_path_factory.mktemp("runs") / "run"
    run(load_config(config), folder, until="label")
    return folder


@pytest.fixture
def folder(labelled, tmp_path) -> Path:
    """A copy of the labelled run, whose store has all steered texts but no answers."""
    return Path(shutil.copytree(labelled, tmp_path / "run"))


def asking(server: Loopback, **settings: Any) -> list[str]:
    """Command-line options that make a server the provider."""
    given = {"model": MODEL, "timeout": 2, "retries": 1, "backoff": 0.01, **settings}
    about = json.dumps({"base_url": server.base_url, **given})
    return ["--set", "label.provider=openai-compatible", "--set", f"label.server={about}"]


def entries(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "labels.json").read_text(encoding="utf-8"))["2"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def stale(folder: Path) -> set[str]:
    """The stale files and folders."""
    from saelens_steer.run_folder import RunFolder

    return {name.partition("/")[0] for name in RunFolder(folder).stale()}


def test_every_feature_on_the_pages_has_an_entry_and_a_row(labelled):
    pages = json.loads((labelled / "feature_pages.json").read_text())["pages"]
    shown = [page["feature"] for page in pages]
    found = entries(labelled)
    assert [int(f) for f in found] == shown == [int(row["feature"]) for row in rows(labelled)]
    for feature, entry in found.items():
        assert (entry["feature_number"], entry["layer"]) == (int(feature), 2)
        assert entry["status"] in ("labelled", "no_evidence")
        assert set(entry["scores"]) == {"steering_effect", "detection", "causal"}
        assert entry["provider"] == "offline"
    assert any(entry["status"] == "labelled" for entry in found.values())


def test_each_feature_and_prompt_has_a_file_of_texts_with_the_original(labelled):
    chosen = json.loads((labelled / "features.json").read_text())
    steered = {f for f, entry in entries(labelled).items() if entry["scores"]["steering_effect"]}
    files = sorted((labelled / "label_texts").iterdir())
    assert len(files) == len(steered) * 8
    feature = next(f for f in chosen["max_act"] if f in steered)
    name = f"generated_texts_layer_2_feature_{feature}_4_prompt_0.json"
    ((prompt, texts),) = json.loads((labelled / "label_texts" / name).read_text())["2"][
        feature
    ].items()
    assert prompt.startswith("sum of")
    assert list(texts) == ["original", "-2", "-1", "1", "2"]


def test_the_steering_effect_is_that_of_the_kept_texts(labelled, random_model):
    from saelens_steer.labels.scores import steering_effect

    feature, entry = next(
        (f, e) for f, e in entries(labelled).items() if e["scores"]["steering_effect"]
    )
    texts = []
    for file in (labelled / "label_texts").glob(f"*_feature_{feature}_*"):
        (found,) = json.loads(file.read_text())["2"][feature].values()
        texts += [text for strength, text in found.items() if strength != "original"]
    ids = [random_model.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    assert len(texts) == 32
    assert entry["scores"]["steering_effect"] == pytest.approx(steering_effect(ids))


def test_repeating_the_command_does_nothing(folder, config, said):
    before = (folder / "labels.json").stat().st_mtime_ns
    assert said("label", config, "--out", folder)[0] == 0
    assert (folder / "labels.json").stat().st_mtime_ns == before


def test_a_server_names_and_judges_and_is_asked_nothing_twice(folder, config, said):
    with serving() as server:
        status, out, _ = said("label", config, "--out", folder, *asking(server))
        n_asked = len(server.asked)
        assert (status, out) == (0, f"{folder / 'labels.json'}\n")
        assert said("label", config, "--out", folder, *asking(server, concurrency=3))[0] == 0
    assert len(server.asked) == n_asked
    found = [e for e in entries(folder).values() if e["status"] == "labelled"]
    assert {e["interpretation"] for e in found} == {"names of fruit"}
    assert {(e["provider"], e["model"]) for e in found} == {("openai-compatible", MODEL)}
    tested = [e["scores"]["detection"] for e in found]
    assert {s["accuracy"] for s in tested if s["status"] == "scored"} == {0.5}
    assert "names of fruit" in (folder / "features.html").read_text(encoding="utf-8")


MISCHIEF: dict[str, Callable[[dict[str, Any]], Reply]] = {
    "429": lambda q: error(429),
    "500": lambda q: error(500),
    "time-out": lambda q: Reply(well(q).body, after=6),
    "cut stream": lambda q: Reply(well(q).body, cut=True),
    "empty": lambda q: answer(""),
    "not JSON": lambda q: Reply("<html>Bad gateway", headers={"Content-Type": "text/html"}),
    "no label": lambda q: answer("I would rather not."),
    "wrong model": lambda q: error(400, "the model does not exist"),
    "5,000 words": lambda q: answer("word " * 5000),
}
OUTCOME = {
    **dict.fromkeys(["429", "500", "time-out", "cut stream", "not JSON"], "unanswered"),
    **dict.fromkeys(["empty", "no label", "5,000 words"], "unreadable"),
    "wrong model": "refused",
}


class Mischievous:
    """Misbehaves in another way for each of the first features, and then behaves."""

    def __init__(self, kinds: list[str]) -> None:
        self.left, self.by_text, self.good = kinds, dict[str, str](), False

    def __call__(self, question: dict[str, Any]) -> Reply:
        text = question["messages"][-1]["content"]
        if self.good or '"summary"' not in text:
            return well(question)
        if text not in self.by_text:
            self.by_text[text] = self.left.pop(0) if self.left else "well"
        return MISCHIEF.get(self.by_text[text], well)(question)


@pytest.mark.slow
def test_every_feature_has_a_status_however_a_server_misbehaves_and_a_rerun_asks_the_rest(
    folder, config, said
):
    reply = Mischievous(list(MISCHIEF))
    with serving(reply) as server:
        options = asking(server, timeout=2, concurrency=1, structured="off")
        status, out, errors = said("label", config, "--out", folder, *options)
        assert (status, out) == (1, f"{folder / 'labels.json'}\n")
        assert "rerun to ask the unanswered questions again" in errors
        assert "labels: label unanswered for 2 features, such as" in errors or "429" in errors
        found = entries(folder)
        assert len(found) == len(rows(folder))
        named = [e for e in found.values() if e["status"] != "no_evidence"]
        assert len(named) > len(MISCHIEF)
        assert [e["status"] for e in named] == [
            *(OUTCOME[kind] for kind in MISCHIEF),
            *["labelled"] * (len(named) - len(MISCHIEF)),
        ]
        assert all(e["detail"] for e in named if e["status"] != "labelled")
        assert all(row["status"] for row in rows(folder))
        answered = {e["feature_number"]: e for e in named if e["status"] == "labelled"}

        def named_again(*more: str) -> list[str]:
            """The kinds of mischief whose questions for a name a rerun asks again."""
            n_asked = len(server.asked)
            said("label", config, "--out", folder, *options, *more)
            asked = [q["messages"][-1]["content"] for q in server.asked[n_asked:]]
            return sorted(reply.by_text[text] for text in asked if '"summary"' in text)

        reply.good, paid = True, {kind for kind in OUTCOME if OUTCOME[kind] == "unreadable"}
        assert named_again() == sorted(OUTCOME.keys() - paid)
        assert named_again() == []
        assert named_again("--set", "label.server.ask_again=true") == sorted(paid)
        assert said("label", config, "--out", folder, *options)[0] == 0
    after = {e["feature_number"]: e for e in entries(folder).values()}
    assert all(after[feature] == entry for feature, entry in answered.items())
    assert {e["status"] for e in after.values()} <= {"labelled", "no_evidence"}


def test_a_model_unknown_to_the_server_ends_the_asking_at_once(folder, config, said):
    with serving(lambda q: error(404, "no such model")) as server:
        options = asking(server, concurrency=1)
        assert said("label", config, "--out", folder, *options)[0] == 1
    found = [e for e in entries(folder).values() if e["status"] != "no_evidence"]
    assert {e["status"] for e in found} == {"refused"}
    assert all(e["detail"].startswith("status 404: no such model") for e in found)
    assert len(server.asked) == 1


def test_the_terminal_gives_the_reason_and_the_fix(folder, config, said):
    with serving(lambda q: error(401, "Incorrect API key")) as server:
        options = asking(server, concurrency=1)
        _, _, errors = said("label", config, "--out", folder, *options)
    assert "status 401: Incorrect API key" in errors
    assert f"at {server.base_url}" in errors.replace("\n", "")
    assert "fix label.server and rerun to retry" in errors
    assert "1 requests" in errors


def test_an_interrupt_while_asking_keeps_the_old_labels(folder, config, said, monkeypatch):
    from importlib import import_module

    stage = import_module("saelens_steer.pipeline.steps.label")

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    before = {name: (folder / name).read_bytes() for name in ("labels.json", "labels.csv")}
    with serving() as server:
        with monkeypatch.context() as patched:
            patched.setattr(stage, "make_labels", stop)
            assert said("label", config, "--out", folder, *asking(server))[0] == 1
        assert {name: (folder / name).read_bytes() for name in before} == before
        assert said("label", config, "--out", folder, *asking(server))[0] == 0
    assert (folder / "labels.json").read_bytes() != before["labels.json"]


@pytest.mark.slow
def test_a_first_run_interrupted_while_asking_has_its_feature_pages(
    config, tmp_path, said, monkeypatch
):
    from importlib import import_module

    stage = import_module("saelens_steer.pipeline.steps.label")

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "make_labels", stop)
    assert said("label", config, "--out", tmp_path / "run")[0] == 1
    assert (tmp_path / "run/features.html").is_file()
    assert not (tmp_path / "run/labels.json").exists()


def test_a_spent_budget_leaves_statuses_and_a_rerun_continues(folder, config, said):
    with serving() as server:
        options = asking(server, concurrency=1, max_requests=15)
        assert said("label", config, "--out", folder, *options)[0] == 1
        assert len(server.asked) == 15
        assert "over_budget" in {e["status"] for e in entries(folder).values()}
        for _ in range(10):
            if said("label", config, "--out", folder, *options)[0] == 0:
                break
        assert {e["status"] for e in entries(folder).values()} <= {"labelled", "no_evidence"}
    texts = [q["messages"][-1]["content"] for q in server.asked]
    assert len(texts) == len(set(texts))


@pytest.mark.slow
def test_the_report_is_written_without_all_labels_and_again_once_they_are_there(
    folder, config, said
):
    with serving(lambda q: error(500)) as server:
        assert said("run", config, "--out", folder, *asking(server, retries=0))[0] == 0
        report = folder / "report.html"
        assert "names of fruit" not in report.read_text(encoding="utf-8")
        server.reply = well
        assert said("run", config, "--out", folder, *asking(server, retries=0))[0] == 0
    assert "names of fruit" in report.read_text(encoding="utf-8")
    made = report.stat().st_mtime_ns
    assert said("run", config, "--out", folder, *asking(server, retries=0))[0] == 0
    assert report.stat().st_mtime_ns == made


@pytest.mark.slow
def test_the_key_is_in_no_file_of_the_run_and_in_no_log(folder, config, said, monkeypatch, caplog):
    key = "sk-canary-77b1f0c2"
    monkeypatch.setenv("LABEL_API_KEY", key)
    caplog.set_level("DEBUG")

    def echo(question: dict[str, Any]) -> Reply:
        if '"summary"' not in question["messages"][-1]["content"]:
            return error(401, f"the key {key} is wrong")
        return answer({"summary": f"names of {key}", "analysis": f"I was asked with {key}"})

    with serving(echo) as server:
        options = asking(server, key_env="LABEL_API_KEY", concurrency=1)
        _, out, errors = said("run", config, "--out", folder, *options)
    assert server.headers[0]["authorization"] == f"Bearer {key}"
    assert "names of [key]" in (folder / "labels.json").read_text()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(".store" in path.parts for path in files)
    assert [path for path in files if key.encode() in path.read_bytes()] == []
    assert key not in out + errors + caplog.text


def test_without_a_key_or_a_server_nothing_starts(config, tmp_path, said, monkeypatch):
    monkeypatch.delenv("LABEL_API_KEY", raising=False)
    with serving() as server:
        options = asking(server, key_env="LABEL_API_KEY")
        status, _, errors = said("label", config, "--out", tmp_path / "new", *options)
    assert status == 2
    assert "LABEL_API_KEY is not set" in errors
    assert not (tmp_path / "new").exists()
    bare = ["--set", "label.provider=openai-compatible"]
    assert "needs server" in said("label", config, "--out", tmp_path / "new", *bare)[2]


def test_a_finished_run_needs_no_key(folder, config, said, monkeypatch):
    monkeypatch.setenv("LABEL_API_KEY", "sk-canary-77b1f0c2")
    with serving() as server:
        options = asking(server, key_env="LABEL_API_KEY")
        assert said("label", config, "--out", folder, *options)[0] == 0
        monkeypatch.delenv("LABEL_API_KEY")
        assert said("label", config, "--out", folder, *options)[0] == 0


def test_another_labeller_reuses_the_evidence(folder, config, said, monkeypatch):
    from saelens_steer.labels import EvidenceCollector

    def collect(self, texts):
        raise AssertionError("the evidence exists already")

    monkeypatch.setattr(EvidenceCollector, "collect", collect)
    evidence = (folder / "label_evidence.json").read_bytes()
    with serving() as server:
        assert said("label", config, "--out", folder, *asking(server))[0] == 0
    assert (folder / "label_evidence.json").read_bytes() == evidence


@pytest.mark.slow
def test_incomplete_labels_are_stale_without_their_section(folder, config, said):
    (folder / "labels.json").unlink()
    off = ["--set", "label=null"]
    status, _, errors = said("report", config, "--out", folder, *off)
    assert status == 0 and "not part of this run: label_evidence.json, label_texts/ (" in errors
    assert stale(folder) == {"labels.csv", "label_evidence.json", "label_texts"}


@pytest.mark.slow
def test_labels_are_stale_without_their_section_and_not_on_the_pages(folder, config, said):
    name = next(e["interpretation"] for e in entries(folder).values() if e["interpretation"])
    html = folder / "features.html"
    from markupsafe import escape as esc

    assert esc(name) in html.read_text(encoding="utf-8")
    off = ["--set", "label=null"]
    assert "has no section label" in said("label", config, "--out", folder, *off)[2]
    assert said("select", config, "--out", folder, *off)[0] == 0
    assert (folder / "labels.json").exists()
    nothing = ["--set", "compare_edits={variants: {}}"]
    assert said("compare-edits", config, "--out", folder, *off, *nothing)[0] == 2
    assert said("report", config, "--out", folder, *off)[0] == 0
    assert stale(folder) == {"labels.json", "labels.csv", "label_evidence.json", "label_texts"}
    assert entries(folder)
    assert esc(name) not in html.read_text(encoding="utf-8")


def test_an_sae_without_an_encoder_is_named_from_what_its_features_write(config, tmp_path, said):
    parts = yaml.safe_load(config.read_text())
    source = str(Path(parts["sae"]["load"]["source"]).parent / "decoder")
    sets = [
        f"sae={{load: {{source: '{source}'}}}}",
        "sweep.features=[3,4]",
        "features.also=[]",
    ]
    options = [part for one in sets for part in ("--set", one)]
    folder = tmp_path / "run"
    assert said("label", config, "--out", folder, *options)[0] == 0
    for entry in entries(folder).values():
        assert entry["scores"]["steering_effect"] is None
        assert entry["scores"]["detection"]["status"] in ("too_few", "no_label")
