"""Images of a run: every figure and the page, drawn by Chromium; what is said where it fails."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import plotly.graph_objects as go
import pytest

from saelens_steer.errors import InputError
from saelens_steer.report import export_images, images
from saelens_steer.report.images import find_browser, pdf, pictures
from saelens_steer.report.page import plots
from saelens_steer.report.run_folder import read_run

CHROMIUM = next(filter(None, map(shutil.which, images.NAMES)), None)


def browser_test(test):
    """A test that draws: skipped where nothing can."""
    reason = "no chromium or google-chrome is installed"
    return pytest.mark.slow(
        pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason=reason)(test))
    )


@pytest.fixture(scope="module")
def drawn(run_dir, report, tmp_path_factory) -> Path:
    """A run folder with its images, made once."""
    folder = tmp_path_factory.mktemp("drawn") / "a run, 100% #1"
    shutil.copytree(run_dir, folder)
    assert export_images(folder) == folder / "report.pdf"
    return folder


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a shell script in the browser's place."""

    def script(*lines: str) -> Path:
        path = tmp_path / "browser"
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)
        monkeypatch.setenv("BROWSER_PATH", str(path))
        return path

    return script


@pytest.fixture
def reported(fresh_run) -> Path:
    """A run folder with something that stands for a report."""
    (fresh_run / "report.html").write_text("<h1>report</h1>")
    return fresh_run


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and data.rstrip().endswith(b"IEND\xaeB`\x82")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@browser_test
def test_each_figure_is_an_image_twice_its_size(drawn):
    figures = dict(plots(read_run(drawn)))
    assert {p.stem for p in (drawn / "plots").glob("*.png")} == set(figures)
    for name, figure in figures.items():
        assert png_size(drawn / "plots" / f"{name}.png") == (1800, 2 * figure.layout.height)


@browser_test
def test_the_pdf_has_pages_bookmarks_and_the_headline(drawn):
    data = (drawn / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 3
    titles = re.findall(rb"/Title \((.*?)\)\n", data)
    headline = b"13 of 20 features move the margin <more> than random directions do."
    assert headline.replace(b" ", b"") in [title.replace(b" ", b"") for title in titles]
    assert {b"Claims", b"Dose-response"} <= set(titles)
    assert b"/MediaBox [0 0 594.9" in data  # A4


@browser_test
def test_nothing_else_is_left_in_the_folder(drawn, run_dir):
    new = set(files_in(drawn)) - set(files_in(run_dir))
    images = {"report.pdf"} | {f"plots/{name}.png" for name, _ in plots(read_run(drawn))}
    assert new == {*images, ".steps/report.json", ".steps/lock"}


@browser_test
def test_hostile_texts_of_a_figure_are_drawn_as_text(synthetic, tmp_path):
    title = "".join(synthetic.HOSTILE) + '"</output><output>data:image/png;base64,QQ==</output>'
    figure = go.Figure(go.Bar(x=[1, 2], y=[1, 2])).update_layout(title_text=title, height=300)
    made = pictures(find_browser(), {"../one": figure, "two": figure}, tmp_path)
    assert list(made) == ["../one", "two"]
    assert all(image.startswith(b"\x89PNG") for image in made.values())
    assert list(tmp_path.iterdir()) == []


def test_without_a_browser_one_sentence_says_how_to_get_one(reported, monkeypatch):
    for name in images.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(images.shutil, "which", lambda name: None)
    monkeypatch.setattr(images, "_downloaded", lambda: None)
    before = files_in(reported)
    with pytest.raises(InputError, match=r"BROWSER_PATH, or run plotly_get_chrome") as refused:
        export_images(reported)
    assert "\n" not in str(refused.value)
    assert files_in(reported) == before


def test_a_browser_that_is_named_goes_before_those_that_are_installed(fake, monkeypatch):
    path = fake("exit 0")
    assert find_browser() == str(path)
    monkeypatch.setenv("BROWSER_PATH", str(path) + "-is-not-there")
    with pytest.raises(InputError, match=r"BROWSER_PATH names .* not an executable"):
        find_browser()


def test_the_chrome_that_kaleido_fetched_is_found_where_none_is_installed(monkeypatch):
    chromium = pytest.importorskip("choreographer.browsers.chromium", reason="no kaleido").Chromium
    for name in images.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(images.shutil, "which", lambda name: None)
    monkeypatch.setattr(chromium, "find_browser", lambda skip_local: "/fetched/chrome")
    assert find_browser() == "/fetched/chrome"


@pytest.mark.parametrize(
    "lines, complaint",
    [
        (["echo it broke >&2", "echo dbus is not there >&2", "exit 3"], "status 3: it broke"),
        (["exit 0"], r"drew 0 of \d+ figures"),
        (["echo '<output>data:image/png;base64,QQ==</output>'"], r"drew 1 of \d+ figures"),
    ],
)
def test_a_browser_that_fails_is_one_sentence_and_changes_no_file(fake, reported, lines, complaint):
    fake(*lines)
    before = files_in(reported)
    with pytest.raises(InputError, match=complaint):
        export_images(reported)
    assert files_in(reported) == before


def test_a_browser_that_prints_nothing_keeps_the_pdf_of_before(fake, reported):
    (reported / "report.pdf").write_bytes(b"%PDF-old")
    with pytest.raises(InputError, match="made no PDF"):
        pdf(str(fake("exit 0")), reported / "report.html")
    assert (reported / "report.pdf").read_bytes() == b"%PDF-old"


def test_a_browser_that_hangs_is_ended_with_its_children(fake, reported, monkeypatch):
    monkeypatch.setattr(images, "TIMEOUT", 0.5)
    fake(f"sleep 60 & echo $! > {reported.parent / 'child'}", "echo drawing >&2", "wait")
    before, started = files_in(reported), time.monotonic()
    with pytest.raises(InputError, match=r"took over 0\.5 s: drawing"):
        export_images(reported)
    assert time.monotonic() - started < 20
    assert files_in(reported) == before
    child = int((reported.parent / "child").read_text())
    assert not _lives(child)


def _lives(pid: int) -> bool:
    """Whether a process still runs; one that has ended and waits to be collected does not."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat")
            if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except (ProcessLookupError, FileNotFoundError):
            return False
        time.sleep(0.1)
    return True


def test_a_file_that_is_no_program_is_one_sentence(fake, reported):
    fake().write_bytes(b"\x00\x01 no program")
    with pytest.raises(InputError, match="cannot be started"):
        export_images(reported)


def test_a_run_without_a_report_is_refused(fresh_run):
    with pytest.raises(InputError, match=r"no current report\.html: run the report there first"):
        export_images(fresh_run)


def test_images_are_written_in_the_run_folder_alone(reported, monkeypatch):
    away = reported.with_name("away")
    away.mkdir()
    (reported / "plots").symlink_to(away)
    monkeypatch.setattr(images, "find_browser", lambda: "browser")
    monkeypatch.setattr(images, "pictures", lambda *_: {"density": b"image"})
    monkeypatch.setattr(images, "pdf", lambda *_: b"page")
    with pytest.raises(InputError, match="is not a path inside"):
        export_images(reported)
    assert list(away.iterdir()) == [] and not (reported / "report.pdf").exists()
