"""A hundred hostile strings in the report and in a notebook run nothing and load nothing."""

from __future__ import annotations

import json
from pathlib import Path

import features_of
import hostile
import labels_of
import pytest
from hostile import HOSTILE
from test_report_browser import browser, pytestmark  # noqa: F401


@pytest.fixture
def troubles() -> list[str]:
    return []


@pytest.fixture
def shown(browser, troubles):  # noqa: F811
    """Open a file, press everything in it that can be pressed, and give the page."""
    pages = []

    def show(file: Path):
        page = browser.new_page()
        pages.append(page)
        page.on("console", lambda m: m.type in ("error", "warning") and troubles.append(m.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda r: r.url != file.as_uri() and troubles.append(r.url))
        page.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
        page.goto(file.as_uri())
        return page

    yield show
    for page in pages:
        page.close()


def test_a_hundred_strings_are_different_and_would_act(browser, tmp_path):  # noqa: F811
    assert len(set(HOSTILE)) == 100
    page, heard = browser.new_page(), []
    page.on("dialog", lambda dialog: (heard.append("dialog"), dialog.dismiss()))
    page.on("request", lambda r: "evil.test" in r.url and heard.append(r.url))
    file = tmp_path / "raw.html"
    for text in HOSTILE[:6]:
        heard.clear()
        file.write_text(text)
        page.goto(file.as_uri())
        page.wait_for_timeout(100)
        assert heard, text
    page.close()


def test_the_report_shows_them_as_text(fresh_run, shown, troubles):
    from saelens_steer.report import build_report

    sides = dict.fromkeys((12, 87, 154, 333, 3, 45, 199, 268), "code")
    features_of.write(fresh_run, features_of.feature_pages(sides))
    labels_of.write_labels(fresh_run)
    hostile.fill(fresh_run / "feature_pages.json", features_of.HOSTILE)
    hostile.fill(fresh_run / "labels.json", labels_of.HOSTILE)
    hostile.fill_completions(fresh_run / "completions.jsonl")
    page = shown(build_report(fresh_run, HOSTILE[2]))
    page.wait_for_selector("#training-loss svg.main-svg")
    seen = set[str]()
    prompts = page.locator("#choose-prompt option").count()
    alphas = page.locator("#choose-alpha option").count()
    for number in range(prompts):
        page.select_option("#choose-prompt", index=number)
        page.select_option("#choose-alpha", index=number % alphas)
        for place in ("#prompt-text", "#pane-steered"):
            text = page.locator(place).text_content()
            seen |= {one for one in HOSTILE if one in text}
    for place in page.locator("details").all():
        place.evaluate("one => { one.open = true }")
    page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.chart')).forEach("
        "e => ['mouseover', 'focus'].forEach(kind => e.dispatchEvent(new Event(kind))))"
    )
    page.wait_for_timeout(300)
    assert troubles == []
    assert len(seen) >= 24
    assert page.locator("main :is(img, iframe, object, video, base, meta, link, form)").count() == 0


def test_a_notebook_shows_them_as_text(tmp_path, shown, troubles):
    from saelens_steer.pipeline.texts import Texts

    rows = []
    for number, text in enumerate(HOSTILE):
        about = {
            "prompt_id": f"p{number // 20}",
            "domain": text,
            "prompt": HOSTILE[-1 - number // 20],
        }
        rows.append(about | {"variant": text, "completion": f"{text} {HOSTILE[-1 - number]}"})
    file = tmp_path / "texts.html"
    body = Texts(rows)._repr_html_()
    file.write_text(f"<!doctype html><meta charset=utf-8><main>{body}</main>")
    page = shown(file)
    page.wait_for_timeout(300)
    text = page.locator("main").text_content()
    assert troubles == [] and all(one in text for one in HOSTILE)
    assert (
        page.locator("main :is(script, img, svg, iframe, object, style, base, form)").count() == 0
    )


def test_strings_are_put_into_what_is_shown(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"a": ["x <b>", {"b": "plain"}], "c": 1}))
    hostile.fill(file, ("<b>",))
    assert json.loads(file.read_text()) == {"a": [HOSTILE[0], {"b": "plain"}], "c": 1}
