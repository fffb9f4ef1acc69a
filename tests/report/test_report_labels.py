"""Laws of labels in the report: guesses with their scores, foreign text as text, no holes."""

from __future__ import annotations

import json
import re
import shutil

import features_of
import labels_of
import pytest
from labels_of import FAILED, HOSTILE, entry, no_score, score, write_labels
from markupsafe import escape as esc
from test_report_page import Outline

from saelens_steer.errors import InputError
from saelens_steer.report import features_page
from saelens_steer.report.labels import WORDS, is_good, labels_section
from saelens_steer.report.page import page, plots
from saelens_steer.report.run_folder import read_run
from saelens_steer.report.theme import one_line, quoted

SHOWN = {12: "code", 87: "code", 154: "code", 333: "math", 999: "math"}


def named(folder):
    """A run folder with labels and feature pages."""
    write_labels(folder)
    features_of.write(folder, features_of.feature_pages(SHOWN, hostile=False))
    return folder


@pytest.fixture
def named_run(fresh_run):
    return named(fresh_run)


@pytest.fixture(scope="module")
def html(synthetic, tmp_path_factory):
    """The page of such a folder, which no test changes."""
    folder = synthetic.write_run(tmp_path_factory.mktemp("named") / "run")
    return page(read_run(named(folder)), "x")


@pytest.fixture(scope="module")
def own(html):
    """The section of the labels alone."""
    return html.split('<section id="labels">')[1].split("</section>")[0]


def row(own: str, feature: int) -> str:
    """One row of the table."""
    return next(
        r for r in re.findall(r"<tr>.*?</tr>", own, re.S) if f"<b>feature {feature}</b>" in r
    )


def bare(text: str) -> str:
    """A page without its scripts and styles."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)


def test_labels_stand_just_before_the_features(html):
    names = re.findall(r'<section id="(\w+)">', html)
    assert names.index("labels") + 1 == names.index("features")


def test_foreign_text_makes_no_element_and_no_handler(html):
    shown = Outline(html)
    assert "img" not in shown.tags and not shown.handlers
    assert "<b>bold</b>" in shown.text and "<!--<script>" in shown.text
    assert html.count("</script>") == html.count("<script"), "no data ends a script early"


def test_every_hostile_label_is_shown_as_text(own):
    for text in HOSTILE:
        assert own.count(esc(one_line(text))) > 2, "as a label, as a side, as the name of a model"
    assert not re.search("[\u202e\x00\ud83d]", own)


def test_every_feature_of_the_file_has_a_row_in_its_order(own):
    assert [int(f) for f in re.findall(r"<b>feature (\d+)</b>", own)] == list(labels_of.labels())


@pytest.mark.parametrize(("feature", "status"), [*zip(labels_of.WITHOUT, FAILED, strict=True)])
def test_a_feature_without_a_label_says_why_in_its_row(own, feature, status):
    assert WORDS[status] in row(own, feature) and FAILED[status] in row(own, feature)
    assert "_" not in row(own, feature), "the status stands there in plain words"


def test_a_score_has_its_interval_its_number_and_what_was_right(own):
    cells = row(own, 12)
    assert "85\u00a0% [62, 97]" in cells and "of 20" in cells
    assert 'title="17 of 20 right, p 0.0013"' in cells and ">0.71<" in cells


def test_a_score_is_good_only_where_its_whole_interval_is_above_chance(own):
    assert is_good(score(17, 0.62, 0.97)) and not is_good(score(14, 0.46, 0.88))
    assert not is_good(score(15, 0.5, 0.91)) and not is_good(score(3, 0.03, 0.38))
    assert not is_good(no_score("too_few"))
    assert row(own, 12).count('"badge good"') == 1 and row(own, 12).count('"badge quiet"') == 1
    assert '"badge good"' not in row(own, 101)
    assert "above it for 1 feature in detection and 1 in the causal test." in own


def test_a_missing_score_is_words_with_the_detail_on_hover(own):
    hover = 'title="Only 3 contexts are there; it takes 8."'
    assert re.search(hover + ">too few contexts<", row(own, 87))
    assert re.search(hover + ">too few texts<", row(own, 101))


def test_the_analysis_unfolds_in_the_row_of_its_feature(own):
    assert row(own, 12).count("<details><summary>Analysis</summary>") == 1
    assert "hardly on anything else" in row(own, 12)
    assert "<details" not in row(own, 154)


def test_only_https_is_a_link(html, own):
    assert f'href="{labels_of.SITE}/12" rel="noreferrer">def keywords</a>' in row(own, 12)
    assert ">no label there</a>" in row(own, 101)
    links = re.findall(r'href="([^"]*)"', bare(html))
    assert all(link.startswith(("#", labels_of.SITE)) for link in links)


def test_neuronpedia_has_a_column_only_where_there_is_any_of_it(named_run):
    assert ">Neuronpedia<" in labels_section(read_run(named_run))
    write_labels(named_run, {12: entry(12, "Lists")})
    assert ">Neuronpedia<" not in labels_section(read_run(named_run))


def test_the_lead_says_who_named_the_features(named_run, own):
    assert f"8 of 13 features have a label, from {labels_of.MODEL} (openai-compatible)" in own
    assert "Offline" not in own
    write_labels(named_run, {12: entry(12, "Lists", provider="offline", model=None)})
    alone = labels_section(read_run(named_run))
    assert "1 of 1 features has a label, from the offline provider." in alone
    assert "the judge looks for the words of the label" in alone


def test_a_feature_is_a_link_where_it_has_a_page(own):
    assert '<a href="#f12">' in row(own, 12) and "<a href=" not in row(own, 203)


def test_labels_stand_beside_features_in_the_other_sections(html):
    label = "“Python function definitions”"
    for name in ("claims", "rates", "texts", "features"):
        assert label in html.split(f'<section id="{name}">')[1].split("</section>")[0], name


def test_a_long_label_beside_a_number_is_cut_between_words():
    assert quoted("lists of numbers", 14) == "“lists of…”"
    assert quoted("x" * 99, 10) == "“" + "x" * 9 + "…”"
    assert quoted("lists") == "“lists”" and quoted("") == ""


def test_the_interference_figure_has_labels_as_data_that_plotly_shows_as_text(named_run):
    figure = dict(plots(read_run(named_run)))["interference_kl"]
    said = _said(figure)
    assert "“Python function definitions”" in said
    assert not any("<" in text for text in said)


def _said(figure) -> set[str]:
    drawn = (trace.customdata for trace in figure.data if trace.customdata is not None)
    return {points[0][2] for points in drawn if len(points[0]) > 2}


def test_a_feature_page_has_its_label_its_reasons_and_its_link():
    data = features_of.feature_pages(SHOWN, hostile=False)
    text = features_page(data, "x", scripts=False, labels=labels_of.labels())
    first = text.split('<details class="feature"')[1].split("</details>")[0]
    summary, body = first.split("</summary>")
    assert "“Python function definitions”" in summary
    assert "hardly on anything else" in body and ">def keywords</a>" in body
    assert '<th scope="col">Label</th>' in text
    failed = text.split('id="f154"')[1].split("</details>")[0]
    assert "No label:" in failed and FAILED["unreadable"] in failed
    assert "No label" not in text.split('id="f999"')[1].split("</details>")[0]


def test_feature_pages_without_any_label_have_no_column_for_them():
    data = features_of.feature_pages(SHOWN)
    plain = features_page(data, "x")
    assert plain == features_page(data, "x", labels={}) and ">Label<" not in plain
    failed = features_page(data, "x", labels={12: entry(12)})
    assert ">Label<" not in failed and "not answered" in failed


@pytest.mark.slow
def test_a_run_without_labels_shows_nothing_of_them(named_run):
    (named_run / "labels.json").write_text("{}")
    empty = page(read_run(named_run), "x")
    (named_run / "labels.json").unlink()
    text = page(read_run(named_run), "x")
    assert text == empty
    assert not re.search('id="labels"|class="[^"]*label|“', bare(text).split('id="method"')[0])


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        '{"4": []}',
        '{"4": {"twelve": {}}}',
        '{"4": {"12": []}}',
        json.dumps({"4": {"12": {**entry(12), "scores": None}}}),
        json.dumps({"4": {"12": {**entry(12), "interpretation": ["x"]}}}),
        json.dumps({"4": {"12": {**entry(12), "neuronpedia": "https://x"}}}),
        json.dumps({"4": {"12": entry(12, scores={"detection": {"status": "scored"}})}}),
        json.dumps({"4": {"12": entry(12)}, "5": {"12": entry(12)}}),
    ],
)
def test_a_broken_file_is_named(fresh_run, broken):
    (fresh_run / "labels.json").write_text(broken)
    with pytest.raises(InputError, match=r"labels\.json"):
        read_run(fresh_run)


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run"]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_runs_and_long_labels_are_no_wider_than_the_screen(
    html, tmp_path, width
):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path, troubles = tmp_path / "report.html", []
    path.write_text(html, encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.on("console", lambda m: troubles.append(m.text))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda r: r.url != path.as_uri() and troubles.append(r.url))
        tab.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
        tab.goto(path.as_uri())
        tab.wait_for_selector("#training-loss svg.main-svg")
        for details in tab.locator("#labels details, details.feature").all():
            details.evaluate("one => one.open = true")
        assert tab.locator("#labels .analysis").first.is_visible()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert one_line(HOSTILE[1]) in tab.locator("#labels").text_content()
        assert tab.locator("main img").count() == 0
        tab.select_option("#choose-direction", index=1)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        if width == 1280:
            tab.set_viewport_size({"width": 688, "height": 1016})  # A4 within its margins
            tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
            tab.emulate_media(media="print")
            assert tab.evaluate("document.documentElement.scrollWidth") <= 688
        browser.close()
    assert troubles == []
