"""Feature pages as HTML: foreign text is text, nothing is loaded, parts may be missing."""

from __future__ import annotations

import re
import shutil

import features_of
import pytest
from features_of import HOSTILE, decoder_only, feature_pages

from saelens_steer.report import features_page
from saelens_steer.report.page import page, plots, write_plots
from saelens_steer.report.run_folder import read_run
from saelens_steer.report.theme import running_text, token_text
from saelens_steer.report.topic_figures import TALLEST, topic_bars, topic_heatmap

SHOWN = {12: "code", 87: "code", 3: "math", 900: "", 45: "math"}


@pytest.fixture(scope="module")
def data():
    return feature_pages(SHOWN)


@pytest.fixture(scope="module")
def html(data):
    return features_page(data, HOSTILE[1])


@pytest.fixture(scope="module")
def body(html):
    """The page without its scripts and styles."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.S)


def test_foreign_text_makes_no_element_and_no_handler(body, html):
    tags = set(re.findall(r"<\s*([a-z0-9]+)", body))
    assert not tags & {"img", "script", "iframe", "a onmouseover"}
    assert not re.search(r"<[^>]*\son[a-z]+\s*=", body)
    assert "<b>bold</b>" not in body and "&lt;b&gt;bold&lt;/b&gt;" in body
    assert html.count("</script>") == html.count("<script"), "no data ends a script early"


def test_the_page_loads_nothing(body):
    assert not re.search(r"\b(src|href)\s*=\s*[\"'](?!#)", body)


def test_every_context_has_its_tokens_with_their_activations(body):
    assert body.count('class="tokens"') == 4 * 8, "the fifth feature never fires"
    first = body.split('class="tokens">')[1].split("</p>")[0]
    spans = re.findall(r'<span( class="peak")? style="--a:([\d.]+)" title="([\d.]+)">', first)
    assert [float(value) for *_, value in spans] == [0.25, 1, 4, 2, 3, 0.5]
    assert [bool(peak) for peak, *_ in spans].index(True) == 2
    shares = [float(a) / float(value) for _, a, value in spans]
    assert max(shares) - min(shares) < 0.03, "the background grows with the activation"


def test_line_ends_are_seen_and_break_the_line_once():
    assert running_text("a\n\n\n  b") == "a↵↵↵\n  b"
    assert running_text("a b") == "a b"
    assert running_text("\n") == "↵\n"
    assert token_text("\n ") == "↵␣" and token_text(" the") == "␣the" and token_text("a b") == "a b"
    assert token_text("\x00") == "\u2400" and token_text("") == "␀"


def test_tokens_that_do_not_follow_each_other_have_a_gap(body):
    first = body.split('class="tokens">')[1].split("</p>")[0]
    assert first.startswith("…") and not first.endswith("…")
    assert first.count("⋯") == 1 and first.index("⋯") > first.index("↵")


def test_a_feature_that_never_fires_says_so(body):
    own = body.split('id="f45"')[1]
    assert "there is no context to show" in own and "<ol" not in own.split("</details>")[0]
    assert "never fires on the cached tokens" in body


def test_a_feature_that_fires_on_special_tokens_alone_is_not_said_never_to_fire(data):
    import copy

    own = copy.deepcopy(data)
    own["pages"][0]["firing"]["contexts"] = []
    first = features_page(own, "x", scripts=False).split('id="f12"')[1].split("</details>")[0]
    assert "only on special tokens" in first and "never fires" not in first


def test_a_page_without_scripts_links_to_nothing_that_it_left_out(data):
    text = features_page(data, "x", scripts=False)
    links = re.findall(r'href="#([^"]+)"', text)
    assert links and all(f'id="{name}"' in text for name in links)


def test_a_decoder_alone_says_so_and_has_tokens_and_neighbours():
    text = features_page(decoder_only(SHOWN), "x", scripts=False)
    assert "only a decoder" in text and "Nearest by decoder cosine" in text
    assert "<ol" not in text and 'class="histogram"' not in text and 'id="topic"' not in text


def test_no_feature_at_all_is_a_sentence():
    assert "none is shown" in features_page(feature_pages({}), "x", scripts=False)


@pytest.mark.slow
def test_the_section_is_left_out_without_pages_and_there_with_them(fresh_run, data):
    assert 'id="features"' not in page(read_run(fresh_run), "x")
    features_of.write(fresh_run, data)
    text = page(read_run(fresh_run), "x")
    assert 'id="features"' in text and text.count('class="feature"') == len(SHOWN)
    assert {"topic_heatmap", "topic_bars"} <= {name for name, _ in plots(read_run(fresh_run))}


def test_the_section_and_the_page_share_their_parts(fresh_run, data, body):
    features_of.write(fresh_run, data)
    report = page(read_run(fresh_run), "x")
    for own in re.findall(r'<details class="feature".*?</details>', body, re.S):
        assert own in report


def test_a_page_of_twenty_features_is_small(synthetic, data):
    shown = dict.fromkeys((*synthetic.POSITIVE, *synthetic.NEGATIVE), "code")
    assert len(features_page(feature_pages(shown), "x", scripts=False)) < 400_000


def test_the_topic_figures_have_every_strength(data):
    heat = topic_heatmap(data).data[0]
    strengths = data["topic"]["strengths"]
    assert [list(row) for row in heat.z] == strengths and len(heat.y) == len(SHOWN)
    named = [text for text in heat.x if "<" in text or "bold" in text]
    assert (
        all("<b>" not in text and "<img" not in text for text in named) and heat.x[-1] == "(none)"
    )
    hover = next(t for t in topic_bars(data).data if t.customdata is not None)
    found = {(label, name): value for label, name, value in hover.customdata}
    assert len(found) == len(SHOWN) * 7
    for feature, own in zip(SHOWN, strengths, strict=True):
        values = [found[f"feature {feature}", name] for name in heat.x]
        assert values == own


def test_bars_are_drawn_from_the_back_to_the_front_to_scale(data):
    figure = topic_bars(data)
    faces = [t for t in figure.data if t.fill == "toself"][1:]
    assert len(faces) == 3 * len(SHOWN)
    fronts = faces[2::3]
    bases = [min(y for y in t.y if y is not None) for t in fronts]
    assert bases == sorted(bases, reverse=True), "what is drawn later stands in front"
    most = max(max(own) for own in data["topic"]["strengths"])
    totals = sorted(data["topic"]["strengths"], key=sum, reverse=True)
    for trace, own in zip(fronts, totals, strict=True):
        bottoms, tops = list(trace.y)[0::6], list(trace.y)[2::6]
        heights = [top - bottom for bottom, top in zip(bottoms, tops, strict=True)]
        assert heights == pytest.approx([TALLEST * value / most for value in own], abs=2e-3)


def test_strengths_that_are_all_0_are_drawn_too(data):
    topic = {**data["topic"], "strengths": [[0.0] * 7 for _ in SHOWN]}
    assert topic_bars({**data, "topic": topic}).data


def test_more_bars_than_can_be_seen_are_left_out_and_said_so():
    many = feature_pages(dict.fromkeys(range(60), "code"), hostile=False)
    text = features_page(many, "x")
    assert "the 40 strongest of 60 features" in text


def test_a_plot_page_of_a_topic_shows_foreign_text_as_text(fresh_run, data):
    features_of.write(fresh_run, data)
    write_plots(read_run(fresh_run))
    for name in ("topic_bars", "topic_heatmap"):
        text = (fresh_run / "plots" / f"{name}.html").read_text(encoding="utf-8")
        assert "<img" not in text and "<!--<script>" not in text


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run"]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_runs_and_a_link_unfolds_a_page(html, tmp_path, width):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path, troubles = tmp_path / "features.html", []
    path.write_text(html, encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.on("console", lambda m: m.type in ("error", "warning") and troubles.append(m.text))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda r: r.url != path.as_uri() and troubles.append(r.url))
        tab.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
        tab.goto(path.as_uri())
        tab.wait_for_selector("#topic-bars svg.main-svg")
        assert tab.locator("details.feature[open]").count() == 1
        tab.locator('a[href="#f900"]').click()
        tab.wait_for_selector("details.feature[open] #f900")
        assert HOSTILE[1] in tab.locator("#f900 .tokens").first.text_content()
        assert HOSTILE[1] in tab.locator("#topic-heatmap").text_content()
        assert tab.locator("main img").count() == 0
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("#topic-bars canvas").count() == 0, "no WebGL is needed"
        tab.evaluate("location.hash = '100%'")
        assert tab.locator("th button").count() > 0
        browser.close()
    assert troubles == []
