"""The report in a real browser."""

from __future__ import annotations

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def troubles():
    """What went wrong in the page: errors, requests for anything else, dialogs."""
    return []


@pytest.fixture(scope="module")
def page(browser, report, troubles):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda m: m.type in ("error", "warning") and troubles.append(m.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: r.url != report.as_uri() and troubles.append(r.url))
    page.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
    page.goto(report.as_uri())
    page.wait_for_selector("#training-loss svg.main-svg")
    return page


def test_headline_and_figures_are_visible_without_errors(page, troubles):
    assert page.locator("h1").is_visible()
    charts = page.locator(".chart")
    assert charts.count() == page.locator(".chart.js-plotly-plot svg.main-svg:first-child").count()
    for chart in charts.all():
        assert chart.locator("svg.main-svg").first.is_visible()
    assert troubles == []


def test_another_prompt_changes_the_completions(page, troubles):
    before = page.locator("#pane-steered").inner_text()
    page.select_option("#choose-prompt", index=5)
    assert page.locator("#prompt-text").inner_text().startswith("Prompt 5:")
    assert page.locator("#pane-steered").inner_text() != before
    page.select_option("#choose-alpha", index=0)
    assert "α = −4" in page.locator("#steered-title").inner_text()
    assert page.locator("#pane-steered pre").count() == 1
    assert troubles == []


def test_hostile_text_is_shown_as_text(page, troubles, synthetic):
    for prompt in range(20, 24):
        page.select_option("#choose-prompt", index=prompt)
        assert synthetic.HOSTILE[prompt % 4] in page.locator("#prompt-text").text_content()
        assert synthetic.HOSTILE[prompt % 4] in page.locator("#pane-steered").text_content()
    assert page.locator("main img").count() == 0
    assert troubles == []


def test_tabs_show_one_metric_at_a_time_also_by_keyboard(page):
    panels = page.locator(".panel")
    assert [panel.is_visible() for panel in panels.all()].count(True) == 1
    page.locator("[role=tab]").first.focus()
    page.keyboard.press("ArrowRight")
    assert panels.nth(1).is_visible() and not panels.nth(0).is_visible()


def test_a_click_on_a_heading_sorts_the_table(page):
    page.locator("[role=tab]").first.click()
    table = page.locator(".panel table").first
    heading = table.locator("th button", has_text="Largest")
    for order, sign in (("ascending", 1), ("descending", -1)):
        heading.click()
        cells = table.locator("tbody td:nth-child(4)").all()
        values = [sign * float(cell.get_attribute("data-value")) for cell in cells]
        assert values == sorted(values)
        assert table.locator("th").nth(3).get_attribute("aria-sort") == order


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768])
def test_nothing_is_wider_than_the_screen(browser, report, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report.as_uri())
    page.wait_for_selector("#training-loss svg.main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_without_scripts_headline_and_all_tables_are_there(browser, report):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(report.as_uri())
    assert page.locator("h1").is_visible()
    assert all(panel.is_visible() for panel in page.locator(".panel").all())
    page.close()


@pytest.mark.slow
def test_on_paper_nothing_is_cut_at_the_right_edge(browser, report):
    page = browser.new_page(viewport={"width": 688, "height": 1016})  # A4 within its margins
    page.goto(report.as_uri())
    page.wait_for_selector("#training-loss svg.main-svg")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.locator(".modebar-container").first.is_hidden()
    assert all(panel.is_visible() for panel in page.locator(".panel").all())
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    page.close()
