"""Figures as PNG files and the page as a PDF, drawn by an installed Chromium without a window."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from saelens_steer.errors import InputError
from saelens_steer.files import inside, write_bytes
from saelens_steer.report.markup import script_json
from saelens_steer.report.page import plots
from saelens_steer.report.run_folder import read_run

VARIABLES = ("BROWSER_PATH", "CHROME_PATH")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
PRINTED = ("--no-pdf-header-footer", "--generate-pdf-document-outline")
"""No address on the pages; the headings as bookmarks."""
TIMEOUT = 180.0
"""Seconds for one start of the browser; the figures of a run take about five, so does the page."""
SIZE = {"width": 900, "scale": 2}
"""CSS pixels, and image pixels to each of them; a figure's height is its own."""


def export_images(run_dir: str | Path) -> Path:
    """Write plots/*.png (1,800 pixels wide) and report.pdf into a run folder; returns report.pdf.

    Nothing is loaded from the network. Raises InputError where the folder holds no report, where
    no Chromium or Chrome is found, and where that fails; no file is then changed.
    """
    if not Path(run_dir).is_dir():
        raise InputError(f"there is no folder {run_dir}")
    run = read_run(Path(run_dir))
    page = run.path / "report.html"
    if not page.is_file():
        raise InputError(f"{run.path} has no report.html: run the report there first")
    browser = find_browser()
    drawn, printed = pictures(browser, dict(plots(run)), run.path), pdf(browser, page)
    for name, image in drawn.items():
        write_bytes(inside(run.path, f"plots/{name}.png"), image)
    return write_bytes(run.path / "report.pdf", printed)


def find_browser() -> str:
    """The program of a Chromium or Chrome: the one that is named, installed, or was downloaded.

    InputError where there is none, saying how to get one.
    """
    for variable in VARIABLES:
        if given := os.environ.get(variable):
            if found := shutil.which(given):
                return found
            raise InputError(f"{variable} names {given}, which is no program that can be run")
    installed = next(filter(None, map(shutil.which, (*NAMES, *APPLICATIONS))), None)
    if found := installed or _downloaded():
        return found
    raise InputError(
        "images are drawn by Chromium or Chrome, and none was found: install one, name it in "
        "BROWSER_PATH, or run plotly_get_chrome from the extra saelens-steer[images]"
    )


def _downloaded() -> str | None:
    """The Chrome that plotly_get_chrome has fetched."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return None
    return Chromium.find_browser(skip_local=False)


def pictures(browser: str, figures: Mapping[str, go.Figure], folder: Path) -> dict[str, bytes]:
    """Name → PNG of each figure, all drawn in one page; `folder` is where that may lie for a while.

    Raises InputError unless the browser draws every one.
    """
    drawing = (files("saelens_steer.report") / "images.html").read_text(encoding="utf-8")
    data = {name: json.loads(figure.to_json() or "{}") for name, figure in figures.items()}
    blocks = script_json("figures", list(data.values())) + script_json("size", SIZE)
    with _room(folder) as room:
        page = room / "figures.html"
        page.write_text(Template(drawing).substitute(data=blocks, plotly=get_plotlyjs()), "utf-8")
        # the page's clock stands still while it is busy: it stops when all is drawn
        dom = _browse(browser, room, "--virtual-time-budget=60000", "--dump-dom", page.as_uri())
    found = re.findall(r'<output>data:image/png;base64,([^<"]+)</output>', dom)
    if len(found) != len(figures):
        raise InputError(f"{browser} drew {len(found)} of {len(figures)} figures")
    return dict(zip(figures, map(_decoded, found), strict=True))


def _decoded(image: str) -> bytes:
    try:
        return base64.b64decode(image, validate=True)
    except binascii.Error:
        raise InputError("the browser drew a figure that is no image") from None


def pdf(browser: str, page: Path) -> bytes:
    """The page as a PDF, all folded parts open. Raises InputError where the browser makes none."""
    with _room(page.parent) as room:
        made = room / "page.pdf"
        wanted = (*PRINTED, f"--print-to-pdf={made}")
        _browse(browser, room, *wanted, page.resolve().as_uri())
        printed = made.read_bytes() if made.is_file() else b""
    if not printed.startswith(b"%PDF-"):
        raise InputError(f"{browser} made no PDF of {page}")
    return printed


@contextlib.contextmanager
def _room(folder: Path) -> Iterator[Path]:
    """A folder for the browser's own files, inside the run: packaged browsers may not see /tmp.

    It is named like files.py's temporaries, so that the next run clears what a killed one left.
    """
    named = {"prefix": ".images-", "suffix": f".{os.getpid()}.tmp"}
    try:
        made = tempfile.TemporaryDirectory(
            dir=folder.resolve(), ignore_cleanup_errors=True, **named
        )
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}") from None
    with made as room:
        yield Path(room)


def _browse(browser: str, room: Path, *wanted: str) -> str:
    """Start the browser once; what it writes to stdout. InputError where it fails or hangs."""
    command = [browser, *FLAGS, *_as_root(), f"--user-data-dir={room / 'profile'}", *wanted]
    out, err = room / "stdout", room / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        try:
            # a group of its own, so that its children can be ended with it
            process = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, start_new_session=True
            )
        except OSError as error:
            raise InputError(f"{browser} cannot be started: {error.strerror}") from None
        status = _waited(process)
    if status != 0:
        how = f"took over {TIMEOUT:g} s" if status is None else f"failed with status {status}"
        raise InputError(f"{browser} {how}{_last_words(err)}")
    return out.read_text(encoding="utf-8", errors="replace")


def _as_root() -> tuple[str, ...]:
    """Chromium's sandbox does not start for root."""
    return ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()


def _waited(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status, None for one that had to be stopped; its children end with it."""
    try:
        return process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_words(log: Path) -> str:
    """The last line of a log, without what Chromium says of a desktop that is not there."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip() and "dbus" not in line.lower()]
    return f": {said[-1][-200:]}" if said else ""
