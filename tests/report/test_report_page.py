"""Laws of the page: it loads nothing, shows foreign text as text, and bears missing parts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from saelens_steer.errors import InputError
from saelens_steer.report import build_report
from saelens_steer.report.page import page
from saelens_steer.report.run_folder import read_run

LOADS = {"src", "href", "srcset", "data", "action", "poster", "background"}
PART_FILES = {
    "completions.jsonl": "wrote no completions",
    "claims.csv": "made no claims",
    "sae/metrics.jsonl": "there is no training curve",
    "sae/quality.json": "was not measured",
    "provenance.json": "Config (YAML)",
    "config.yaml": "Versions",
}


class Outline(HTMLParser):
    """Tags, attributes that load something, inline data, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.data: dict[str, str] = {}
        self.text, self._script = "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for key, value in attrs if key in LOADS]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]
        self._script = (dict(attrs).get("id") or "code") if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._script = ""

    def handle_data(self, data):
        if self._script:
            self.data[self._script] = self.data.get(self._script, "") + data
        else:
            self.text += data


def built(folder, headline: str = "x") -> Outline:
    """The page of a run folder, without its plots."""
    return Outline(page(read_run(folder), headline))


@pytest.fixture(scope="session")
def outline(report) -> Outline:
    return Outline(report.read_text(encoding="utf-8"))


def test_the_page_loads_nothing(outline):
    assert all(link.startswith("#") for link in outline.loads)
    assert not {"link", "iframe", "object", "embed", "base"} & set(outline.tags)
    own = outline.data["code"].rsplit('"use strict";\n(() =>', 1)[1]
    assert "http" not in own and "import(" not in own


def test_the_style_has_no_url(report):
    style = report.read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_a_policy_forbids_what_the_page_does_not_need(report):
    assert "default-src 'none'" in report.read_text(encoding="utf-8")[:2000]


def test_the_page_is_under_eight_megabytes_and_holds_plotly_once(report):
    text = report.read_text(encoding="utf-8")
    assert report.stat().st_size < 8_000_000
    assert len(re.findall(r"plotly\.js v\d", text[:6_000_000])) == 1


def test_the_page_says_its_language_and_title(report, run_dir):
    text = report.read_text(encoding="utf-8")
    assert '<html lang="en">' in text and f"<title>Steering report: {run_dir.name}</title>" in text


def test_the_headline_is_text_in_the_only_h1(outline, report):
    assert outline.tags.count("h1") == 1
    assert "features move the margin <more> than" in outline.text


def test_warnings_stand_as_text_between_the_facts_and_the_sections(fresh_run):
    sentences = ["Only 6 prompts were steered.", "Saturated: <img src=x onerror=alert(1)>."]
    (fresh_run / "warnings.json").write_text(json.dumps(sentences), encoding="utf-8")
    shown = built(fresh_run)
    assert shown.tags.count("aside") == 1 and "img" not in shown.tags and not shown.handlers
    places = [shown.text.index(t) for t in ("Strengths α", "Read with care", *sentences, "Claims")]
    assert places == sorted(places)


def test_an_sae_that_does_not_fit_is_the_first_warning(fresh_run):
    (fresh_run / "warnings.json").write_text(json.dumps(["Only 6 prompts were steered."]))
    failure = "it explains 12 % of the variance"
    (fresh_run / "sae").mkdir(exist_ok=True)
    (fresh_run / "sae/audit.json").write_text(json.dumps({"failures": [failure]}))
    shown = built(fresh_run).text
    first = f"The SAE may not fit the model or the hook: {failure}."
    places = [shown.index(text) for text in ("Read with care", first, "Only 6 prompts")]
    assert places == sorted(places)


def test_without_warnings_the_page_has_no_place_for_them(fresh_run, outline):
    assert "aside" not in outline.tags
    (fresh_run / "warnings.json").write_text("[]")
    assert "Read with care" not in built(fresh_run).text


def test_warnings_that_are_no_list_of_texts_are_refused(fresh_run):
    (fresh_run / "warnings.json").write_text("[1]")
    with pytest.raises(InputError, match="JSON list of texts"):
        read_run(fresh_run)


def test_a_frozen_decoder_is_said_beside_the_sae(fresh_run):
    config = fresh_run / "config.yaml"
    config.write_text(
        config.read_text().replace("architecture:", "frozen_decoder: true\n    architecture:")
    )
    assert "trained in this run with a frozen random decoder" in built(fresh_run).text


def test_hostile_completions_add_no_element_and_no_handler(outline, synthetic):
    assert "img" not in outline.tags and not outline.handlers
    shown = json.loads(outline.data["completions-data"])
    for hostile in synthetic.HOSTILE:
        assert any(hostile in prompt["text"] for prompt in shown["prompts"])
        assert hostile in json.dumps(shown, ensure_ascii=False).replace('\\"', '"').replace(
            "\\\\", "\\"
        )


def test_data_in_scripts_cannot_open_or_close_a_script(report):
    text = report.read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S)
    assert blocks
    assert not any(set("<>&\u2028\u2029") & set(block) for block in blocks)
    assert all(json.loads(block) is not None for block in blocks)


@pytest.mark.slow
def test_hostile_names_are_text_everywhere(fresh_run):
    bad = "<img src=x onerror=alert(1)>"
    for name in ("interference.csv", "claims.csv"):
        table = pd.read_csv(fresh_run / name)
        table["direction"] = table["direction"].replace("feature_12", bad)
        table.columns = [c.replace("math_margin", bad) for c in table.columns]
        table.replace("math_margin", bad).to_csv(fresh_run / name, index=False)
    assert build_report(fresh_run, bad).is_file()
    shown = built(fresh_run, bad)
    assert "img" not in shown.tags and not shown.handlers


def test_half_of_a_surrogate_pair_does_not_stop_the_report(fresh_run):
    line = (fresh_run / "completions.jsonl").read_text(encoding="utf-8").split("\n")[0]
    broken = json.dumps(json.loads(line) | {"alpha": 2.0, "completion": "\ud83d"})
    (fresh_run / "completions.jsonl").write_text(line + "\n" + broken + "\n")
    assert build_report(fresh_run, "\ud83d").is_file()


def test_tables_stand_in_the_page_without_its_script(outline):
    assert "feature 12" in outline.text and "more than random" in outline.text
    assert "? not testable" in outline.text


def test_the_claims_say_how_many_candidates_of_how_many(outline):
    count = (
        r"\d+ of 20 directions move Math margin more than random directions do "
        r"\(q < 0.05, 512 controls\)"
    )
    assert re.search(count, outline.text)
    assert "4 of 20 candidates were measured" in outline.text


def test_a_sign_rate_is_shown_where_claims_have_one(fresh_run):
    claims = pd.read_csv(fresh_run / "claims.csv").assign(sign_rate=0.875)
    claims.to_csv(fresh_run / "claims.csv", index=False)
    text = built(fresh_run).text
    assert "Opposite sign" in text and "88 %" in text


@pytest.mark.parametrize("missing", PART_FILES)
def test_a_missing_part_is_left_out_and_the_page_says_so(fresh_run, missing):
    (fresh_run / missing).unlink()
    if missing == "completions.jsonl":
        _drop_text_metrics(fresh_run)
    text = built(fresh_run).text
    assert PART_FILES[missing] in text


def test_a_summary_alone_is_enough(fresh_run):
    for missing in PART_FILES:
        (fresh_run / missing).unlink()
    assert build_report(fresh_run, "x").is_file()


def test_a_run_without_controls_has_a_report(fresh_run):
    for name, key in (("interference.csv", "family"), ("claims.csv", None)):
        table = pd.read_csv(fresh_run / name)
        if key:
            table = table[table[key] == "candidate"]
        else:
            table[["control_quantile", "p_value", "q_value"]] = float("nan")
            table = table.assign(n_controls=0, verdict="not testable with 0 controls")
        table.to_csv(fresh_run / name, index=False)
    text = built(fresh_run).text
    assert "KL: not testable with 0 controls, because a claim about 20 directions needs" in text


def with_two_families(folder) -> None:
    """The claims name their family, and controls.csv has another that reaches further."""
    claims = pd.read_csv(folder / "claims.csv").assign(controls="covariance")
    claims.to_csv(folder / "claims.csv", index=False)
    strict = claims.assign(controls="token_difference", verdict="no more than random")
    strict["control_quantile"] = 2 * claims["control_quantile"]
    pd.concat([claims, strict]).to_csv(folder / "controls.csv", index=False)


@pytest.mark.slow
def test_metrics_that_cannot_be_tested_share_one_tab(fresh_run):
    claims = pd.read_csv(fresh_run / "claims.csv")
    metrics = list(dict.fromkeys(claims["metric"]))
    page = build_report(fresh_run, "x").read_text(encoding="utf-8")
    alone = page.count('class="panel" id="claims-')
    claims.loc[claims["metric"] != metrics[0], "verdict"] = "not testable with 2 controls"
    claims.to_csv(fresh_run / "claims.csv", index=False)
    page = build_report(fresh_run, "x").read_text(encoding="utf-8")
    assert alone > 2 and page.count('class="panel" id="claims-') == 2
    assert f'data-label="Not testable: {len(metrics) - 1} metrics"' in page


def test_several_families_of_controls_stand_in_a_table_beside_the_claims(fresh_run):
    with_two_families(fresh_run)
    text = built(fresh_run).text
    assert "Claims are tested against covariance controls." in text
    assert "How the verdicts depend on the controls" in text
    claims = pd.read_csv(fresh_run / "claims.csv")
    more = claims[claims["verdict"] == "more than random"]
    first = [str(sum(more["metric"] == metric)) for metric in ("math_margin", "kl")]
    row = text.split("How the verdicts depend on the controls")[1].split("token_difference")
    assert all(f"{n} of 20" in row[0] for n in first) and row[1].count("0 of 20") == 2


def test_one_family_of_controls_needs_no_table(fresh_run):
    with_two_families(fresh_run)
    one = pd.read_csv(fresh_run / "controls.csv").query("controls == 'covariance'")
    one.to_csv(fresh_run / "controls.csv", index=False)
    assert "How the verdicts depend" not in built(fresh_run).text


def test_features_given_by_hand_have_no_selection(fresh_run):
    (fresh_run / "features.json").write_text(json.dumps({"hook_name": "blocks.4.hook_resid_pre"}))
    assert "Selection scores" not in built(fresh_run).text


def test_a_folder_without_a_summary_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"interference\.csv"):
        build_report(tmp_path, "x")


def test_a_broken_file_is_named(fresh_run):
    (fresh_run / "features.json").write_text("{")
    with pytest.raises(InputError, match=r"features\.json"):
        build_report(fresh_run, "x")


def test_every_figure_is_also_a_page_beside_one_plotly(report, run_dir):
    pages = sorted(path.stem for path in (run_dir / "plots").glob("*.html"))
    kinds = [
        f"{kind}_{metric}"
        for kind in ("claims", "interference")
        for metric in ("kl", "math_margin")
    ]
    assert pages == sorted([*kinds, "density", "scores", "training", "validity"])
    assert (run_dir / "plots" / "plotly.min.js").is_file()
    shown = Outline((run_dir / "plots" / "validity.html").read_text(encoding="utf-8"))
    assert shown.loads == ["plotly.min.js"]


def test_building_twice_gives_the_same_bytes_and_leaves_no_temporary(report, run_dir):
    before = report.read_bytes()
    assert (
        build_report(run_dir, "13 of 20 features move the margin <more> than random directions do.")
        == report
    )
    assert report.read_bytes() == before
    assert not list(run_dir.rglob("*.tmp"))


def _drop_text_metrics(folder) -> None:
    summary = pd.read_csv(folder / "interference.csv")
    dropped = [c for c in summary.columns if c.startswith(("code_", "latex_"))]
    summary.drop(columns=dropped).to_csv(folder / "interference.csv", index=False)
    claims = pd.read_csv(folder / "claims.csv")
    claims[~claims["metric"].isin(dropped)].to_csv(folder / "claims.csv", index=False)


def test_plots_are_written_in_the_run_folder_alone(fresh_run):
    away = fresh_run.with_name("away")
    away.mkdir()
    (fresh_run / "plots").symlink_to(away)
    with pytest.raises(InputError, match="is not a path inside"):
        build_report(fresh_run, "x")
    assert list(away.iterdir()) == []


@pytest.mark.parametrize("names", [("../../margin", "/margin"), ("..", "a/../../margin")])
def test_a_metric_whose_name_is_a_path_has_its_plots_beside_the_others(fresh_run, names):
    table = pd.read_csv(fresh_run / "interference.csv")
    for old, name in zip(("math_margin", "kl"), names, strict=True):
        table.columns = [column.replace(old, name) for column in table.columns]
    table.to_csv(fresh_run / "interference.csv", index=False)
    before = {p for p in fresh_run.parent.rglob("*") if fresh_run / "plots" not in p.parents}
    build_report(fresh_run, "x")
    after = {p for p in fresh_run.parent.rglob("*") if fresh_run / "plots" not in p.parents}
    assert after - before <= {fresh_run / "plots", fresh_run / "report.html"}
