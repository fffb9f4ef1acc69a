"""Feature pages, as a section of the report or a page: live features and what each responds to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from saelens_steer.features import FeaturePageData
from saelens_steer.files import write_text
from saelens_steer.numbers import number
from saelens_steer.report.labels import Entry, shown
from saelens_steer.report.markup import chart, render
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import SIDE_COLOURS
from saelens_steer.report.topic_figures import (
    Data,
    bars_caption,
    side_place,
    topic_bars,
    topic_heatmap,
)

Labels = Mapping[int, Entry]
"""labels.json by feature."""
HEIGHT = 76
"""The highest bin of a histogram, in the units of its drawing."""


def features_section(run: RunTables) -> str:
    """The section of the report; empty if the run has no feature pages."""
    if not run.feature_pages:
        return ""
    return render("features.html", **_about(run.feature_pages, run.labels))


def features_page(data: Data, name: str, scripts: bool = True, labels: Labels | None = None) -> str:
    """The pages of the run called `name` as a page of their own; `scripts=False` omits figures."""
    about = _about(data, labels or {}, figures=scripts)
    links = [("pages", "Features")] if data["pages"] else []
    links += [("topic", "By category")] if about["topic"] else []
    return render(
        "features_page.html",
        name=name,
        headline=about["summary"],
        links=links,
        scripts=scripts,
        **about,
    )


@dataclass(frozen=True)
class FeaturePages(FeaturePageData):
    """Feature pages that a notebook shows, and that can be saved as a page."""

    def __repr__(self) -> str:
        """What the pages show; `save` writes them."""
        shown = ", ".join(str(page.feature) for page in self.pages[:10])
        more = ", …" if len(self.pages) > 10 else ""
        return f"FeaturePages of {self.hook_name}: {shown}{more}. {_summary(self.to_json())}"

    def _repr_html_(self) -> str:
        """The pages in a frame in which no script runs, so without the figures of a topic."""
        page = features_page(self.to_json(), self.hook_name, scripts=False)
        return render("frame.html", page=page)

    def save(self, path: str | Path) -> Path:
        """Write everything as one self-contained HTML file."""
        return write_text(Path(path), features_page(self.to_json(), self.hook_name))


def _about(data: Data, labels: Labels, figures: bool = True) -> dict[str, Any]:
    """What the templates show: a summary, a page for each feature, the figures of the topic."""
    pages = [_page(data, page, labels.get(page["feature"])) for page in data["pages"]]
    topic = {}
    if figures and pages and data["topic"]:
        topic = {
            "n_prompts": sum(data["topic"]["n_prompts"]),
            "source": data.get("topic_source"),
            "n_categories": len(data["topic"]["categories"]),
            "heatmap": chart("topic-heatmap", topic_heatmap(data)),
            "bars": chart("topic-bars", topic_bars(data)),
            "bars_caption": bars_caption(data),
        }
    return {"data": data, "summary": _summary(data), "pages": pages, "topic": topic}


def _summary(data: Data) -> str:
    """How many features are alive, in a sentence."""
    if data["n_alive"] is None:
        return "This SAE has only a decoder."
    return (
        f"{number(data['n_alive'], 0)} of {number(data['d_sae'], 0)} features fire on the cached "
        f"tokens, {number(data['n_dense'], 0)} of them on more than a tenth."
    )


def _page(data: Data, page: Data, entry: Entry | None) -> dict[str, Any]:
    """A feature's page with its colour, its label, and the domain it fires on most often."""
    colour, firing = SIDE_COLOURS[side_place(data, page["side"])], page["firing"] or {}
    most = ""
    if firing.get("firing_rate"):
        rates = [(own["firing_rate"], own["domain"] or "(no domain)") for own in firing["domains"]]
        if len({rate for rate, _ in rates}) > 1:
            most = max(rates, key=itemgetter(0))[1]
    bins = firing["histogram"] if firing else {"counts": []}
    return {
        **page,
        "colour": colour,
        "rgb": " ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5)),
        "label": shown(entry) if entry else None,
        "busiest": most,
        "bins": _bins(**bins) if bins["counts"] else [],
    }


def _bins(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[float, float, int, float]]:
    """Ends, count and height of each bin; one that is not empty is at least one unit high."""
    heights = [max(1.0, HEIGHT * n / max(counts)) if n else 0.0 for n in counts]
    return list(zip(edges, edges[1:], counts, heights, strict=False))
