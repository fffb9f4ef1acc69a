"""The page around everything: one HTML text that holds all it shows and loads nothing."""

from __future__ import annotations

from importlib.resources import files
from string import Template

from plotly.offline import get_plotlyjs

from saelens_steer.report.markup import esc


def shell(
    sections: str,
    *,
    title: str,
    eyebrow: str,
    headline: str,
    how: str,
    facts: str = "",
    warnings: str = "",
    links: str = "",
    scripts: bool = True,
) -> str:
    """A whole page. title, eyebrow and headline are plain text, the others ready HTML.

    Without `scripts` it has no figures: a page of some kilobytes, to be shown inside another.
    """
    here = files("saelens_steer.report")
    text = Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=esc(title),
        style=(here / "style.css").read_text(encoding="utf-8"),
        eyebrow=esc(eyebrow),
        headline=esc(headline),
        how=how,
        facts=facts,
        warnings=warnings,
        links=links,
        sections=sections,
        plotly=get_plotlyjs() if scripts else "",
        script=(here / "page.js").read_text(encoding="utf-8") if scripts else "",
    )
    return text.encode("utf-8", "replace").decode("utf-8")
