"""Figures as PNG files and the page as a PDF, drawn by headless Chromium."""

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
from pathlib import Path

import plotly.graph_objects as go

from saelens_steer.errors import InputError
from saelens_steer.files import write_bytes
from saelens_steer.report.markup import render
from saelens_steer.report.page import plots
from saelens_steer.report.run_folder import REPORT, read_run
from saelens_steer.run_folder import RunFolder

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
"""No address on the pages; headings become bookmarks."""
TIMEOUT = 180.0
"""Seconds allowed for one run of the browser; the figures need about five, as does the page."""
SIZE = {"width": 900, "scale": 2}
"""CSS pixels, and image pixels per CSS pixel; each figure sets its height."""


def export_images(run_dir: str | Path) -> Path:
    """Write plots/*.png (1,800 pixels wide) and report.pdf into a run folder; returns report.pdf.

    Loads nothing from the network. Raises InputError, without changing a file, if the folder has no
    report, if no Chromium or Chrome is found, or if the browser fails.
    """
    if not Path(run_dir).is_dir():
        raise InputError(f"there is no folder {run_dir}")
    run, folder = read_run(Path(run_dir)), RunFolder(run_dir)
    if not (page := folder.current(REPORT)).is_file():
        folder.check_computed('write its page with result.report("page.html")')
        raise InputError(f"{run.path} has no current {REPORT}: run the report there first")
    browser, figures = find_browser(), dict(plots(run))
    files = {name: f"plots/{name}.png" for name in figures}
    folder.check_free([*files.values(), "report.pdf"])
    drawn, printed = pictures(browser, figures, run.path), pdf(browser, page)
    # as part of the report, so that the images are current as long as it is
    with folder.locked(), folder.writing("report"):
        for name, image in drawn.items():
            write_bytes(folder.path(files[name]), image)
        return write_bytes(folder.path("report.pdf"), printed)


def find_browser() -> str:
    """The path of Chromium or Chrome: named in a variable, installed, or downloaded by kaleido.

    Raises InputError with instructions if there is none.
    """
    for variable in VARIABLES:
        if given := os.environ.get(variable):
            if found := shutil.which(given):
                return found
            raise InputError(f"{variable} names {given}, which is not an executable program")
    installed = next(filter(None, map(shutil.which, (*NAMES, *APPLICATIONS))), None)
    if found := installed or _downloaded():
        return found
    raise InputError(
        "drawing images needs Chromium or Chrome, and neither was found: install one, name it in "
        "BROWSER_PATH, or run plotly_get_chrome from the extra saelens-steer[images]"
    )


def _downloaded() -> str | None:
    """The Chrome that plotly_get_chrome downloaded."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return None
    return Chromium.find_browser(skip_local=False)


def pictures(browser: str, figures: Mapping[str, go.Figure], folder: Path) -> dict[str, bytes]:
    """Name → PNG of each figure, all drawn in one temporary page inside `folder`.

    Raises InputError unless the browser draws every figure.
    """
    data = [json.loads(figure.to_json() or "{}") for figure in figures.values()]
    drawing = render("images.html", figures=data, size=SIZE)
    with _scratch(folder) as scratch:
        page = scratch / "figures.html"
        page.write_text(drawing, "utf-8")
        # virtual time pauses while the page is busy, so the browser waits until all is drawn
        dom = _browse(browser, scratch, "--virtual-time-budget=60000", "--dump-dom", page.as_uri())
    found = re.findall(r'<output>data:image/png;base64,([^<"]+)</output>', dom)
    if len(found) != len(figures):
        raise InputError(f"{browser} drew {len(found)} of {len(figures)} figures")
    try:
        decoded = [base64.b64decode(image, validate=True) for image in found]
    except binascii.Error:
        raise InputError("the browser returned no PNG image for a figure") from None
    return dict(zip(figures, decoded, strict=True))


def pdf(browser: str, page: Path) -> bytes:
    """The page as a PDF, all folded parts open. Raises InputError if the browser makes no PDF."""
    with _scratch(page.parent) as scratch:
        made = scratch / "page.pdf"
        _browse(browser, scratch, *PRINTED, f"--print-to-pdf={made}", page.resolve().as_uri())
        printed = made.read_bytes() if made.is_file() else b""
    if not printed.startswith(b"%PDF-"):
        raise InputError(f"{browser} made no PDF of {page}")
    return printed


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for the browser's files, inside the run because packaged browsers may not see /tmp.

    Named like the temporaries of files.py, so that the next run removes leftovers of a killed one.
    """
    try:
        made = tempfile.TemporaryDirectory(
            prefix=".images-",
            suffix=f".{os.getpid()}.tmp",
            dir=folder.resolve(),
            ignore_cleanup_errors=True,
        )
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None
    with made as name:
        yield Path(name)


def _browse(browser: str, scratch: Path, *wanted: str) -> str:
    """Start the browser once; returns its stdout. Raises InputError if it fails or hangs."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses root
    command = [browser, *FLAGS, *(["--no-sandbox"] if is_root else [])]
    command += [f"--user-data-dir={scratch / 'profile'}", *wanted]
    out, err = scratch / "stdout", scratch / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        try:
            # a new process group, so that its children can be ended with it
            process = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, start_new_session=True
            )
        except OSError as error:
            raise InputError(f"{browser} cannot be started: {error.strerror}") from None
        status = _waited(process)
    if status != 0:
        how = f"took over {TIMEOUT:g} s" if status is None else f"failed with status {status}"
        log = err.read_text(encoding="utf-8", errors="replace").splitlines()
        # dbus: complaints about a missing desktop
        said = [line.strip() for line in log if line.strip() and "dbus" not in line.lower()]
        raise InputError(f"{browser} {how}{f': {said[-1][-200:]}' if said else ''}")
    return out.read_text(encoding="utf-8", errors="replace")


def _waited(process: subprocess.Popen[bytes]) -> int | None:
    """Exit status, or None after the timeout; its child processes are ended too."""
    try:
        return process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
