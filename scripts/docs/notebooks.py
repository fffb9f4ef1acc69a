"""MkDocs hook: notebooks as executed pages, with figures that load nothing from other hosts.

Executed notebooks are cached in build/notebooks until the notebook or the package changes; the
tests of the notebooks fill the same cache.
"""

import html
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import plotly.io
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from plotly.offline import get_plotlyjs

from saelens_steer.files import file_digest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "notebooks"
FIGURE = "application/vnd.plotly.v1+json"
OUTPUTS: dict[str, str] = {}
"""Placeholder → HTML of an output, which replaces it after Markdown is rendered."""


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook on one thread, next to a link to configs/, and cache it with its outputs."""
    book: Any = nbformat.read(path, as_version=4)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    env["PLOTLY_RENDERER"] = "plotly_mimetype"
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "configs").symlink_to(ROOT / "configs")
        (folder := Path(work) / "notebooks").mkdir()
        run = {"metadata": {"path": str(folder)}}
        NotebookClient(book, timeout=1200, kernel_name="python3", resources=run).execute(env=env)
    KEPT.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, _kept(path))
    return book


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, from the cache if nothing has changed."""
    kept = _kept(path)
    return nbformat.read(kept, as_version=4) if kept.is_file() else execute(path)


def _kept(path: Path) -> Path:
    sources = sorted([*(ROOT / "saelens_steer").rglob("*.py"), *ROOT.glob("configs/tiny/*.*")])
    return KEPT / f"{path.stem}-{file_digest(path, *sources)}.ipynb"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook, and plotly.js for their figures."""
    books = sorted((ROOT / "notebooks").glob("*.ipynb"))
    with ThreadPoolExecutor(2) as pool:
        for path, book in zip(books, pool.map(executed, books), strict=True):
            page = File.generated(
                config, f"notebooks/{path.stem}.md", content=_page(path.stem, book)
            )
            files.append(page)
    files.append(File.generated(config, "assets/plotly.min.js", content=get_plotlyjs()))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Replace the placeholders of `_page` by outputs."""
    return re.sub(r"<p>(output-[\w-]+)</p>", lambda found: OUTPUTS[found[1]], content)


def _page(name: str, book: Any) -> str:
    lines = []
    for i, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            lines += [cell.source, ""]
            continue
        lines += ["```python", cell.source, "```", ""]
        shown = [text for output in cell.outputs if (text := _html(output, f"{name}-{i}"))]
        if shown:
            OUTPUTS[f"output-{name}-{i}"] = f'<div class="notebook-output">{"".join(shown)}</div>'
            lines += [f"output-{name}-{i}", ""]
    return "\n".join(lines)


def _html(output: Any, name: str) -> str:
    """An output as HTML, without progress bars and other messages on stderr."""
    if output.output_type == "stream":
        return _plain(output.text) if output.name == "stdout" else ""
    data = output.get("data", {})
    if FIGURE in data:
        figure = plotly.io.from_json(plotly.io.json.to_json_plotly(data[FIGURE]), skip_invalid=True)
        how: dict[str, Any] = {"include_plotlyjs": False, "full_html": False, "div_id": name}
        div = plotly.io.to_html(figure, config={"displayModeBar": False}, **how)
        return f'<script src="../../assets/plotly.min.js"></script>{div}'
    return data.get("text/html") or _plain(data.get("text/plain", ""))


def _plain(text: str) -> str:
    return f"<pre><code>{html.escape(text)}</code></pre>" if text.strip() else ""
