"""Feature pages: which features are alive and what each responds to, as a section or a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_steer.features import FeaturePages
from saelens_steer.files import write_text
from saelens_steer.report.feature_parts import (
    Bar,
    bars,
    context_html,
    histogram,
    percent,
    token_text,
)
from saelens_steer.report.label_parts import label_body, label_of, label_title
from saelens_steer.report.markup import (
    TableCell,
    badge,
    chips,
    esc,
    figure,
    note,
    pairs,
    section,
    shell,
    table,
)
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import SIDE_COLOURS, number, short
from saelens_steer.report.topic_figures import bars_caption, side_place, topic_bars, topic_heatmap

SHOWN_RAISED = 4
"""Tokens in the overview."""
PageData = Mapping[str, Any]
"""The content of feature_pages.json."""
LabelEntries = Mapping[int, Mapping[str, Any]]
"""Feature → what labels.json says of it."""
LEAD = (
    "What these features respond to, over all cached tokens. The background of a token is its "
    "activation beside A_max, the largest in the cache; point at it for the value."
)
HOW = (
    "<b>How to read this.</b> A feature is one direction of the SAE. Its contexts show what it "
    "responds to, and the tokens that its decoder row raises what it writes: the two need not "
    "agree, and neither says what steering along it does."
)
ON_PAPER = "On paper a feature has its first three contexts, six tokens and six neighbours."
DECODER = (
    "This SAE has only its decoder, so what its features respond to is not known: there are the "
    "tokens they write, and the decoder rows that are alike."
)


def features_section(run: RunTables) -> str:
    """The section of the report; empty where the run has no feature pages."""
    data = run.feature_pages
    if not data:
        return ""
    return section(
        "features", "Features", f"{summary(data)} {lead(data)}", *parts(data, labels=run.labels)
    )


def features_page(
    data: PageData, name: str, scripts: bool = True, labels: LabelEntries | None = None
) -> str:
    """The same as a page of its own; `name` says of which run."""
    headings = ("pages", "Features"), ("topic", "By category")
    there = [(key, title) for key, title in headings if data.get(key)]
    there = there if scripts else there[:1]  # the figures of a topic need one
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in there)
    body = section("pages", "Features", lead(data), *parts(data, scripts, labels))
    return shell(
        body,
        title=f"Features: {name}",
        eyebrow=f"Features of {name}",
        headline=summary(data),
        how=HOW,
        facts=_facts(data),
        links=links,
        scripts=scripts,
    )


@dataclass(frozen=True)
class ShownFeatures(FeaturePages):
    """Feature pages that a notebook shows, and that can be saved as a page."""

    def _repr_html_(self) -> str:
        """The pages in a frame where no script runs; the figures of a topic are left out."""
        text = features_page(self.to_json(), self.hook_name, scripts=False)
        style = "width:100%;height:640px;border:1px solid #e4e7eb"
        return f'<iframe sandbox srcdoc="{esc(text)}" style="{style}"></iframe>'

    def save(self, path: str | Path) -> Path:
        """Write everything as one HTML file that loads nothing."""
        return write_text(Path(path), features_page(self.to_json(), self.hook_name))


def summary(data: PageData) -> str:
    """How many features are alive, in a sentence."""
    if data["n_alive"] is None:
        return "This SAE has only its decoder."
    return (
        f"{number(data['n_alive'], 0)} of {number(data['d_sae'], 0)} features fire on the cached "
        f"tokens, {number(data['n_dense'], 0)} of them on more than a tenth."
    )


def lead(data: PageData) -> str:
    """What the pages are, in a few sentences."""
    return DECODER if data["n_alive"] is None else LEAD


def parts(data: PageData, figures: bool = True, labels: LabelEntries | None = None) -> list[str]:
    """The overview, the pages, and the figures of the topic."""
    if not data["pages"]:
        return [note("No feature was chosen or named, so none is shown.")]
    own = [(labels or {}).get(page["feature"], {}) for page in data["pages"]]
    shown = [_overview(data, own)]
    for i, (page, label) in enumerate(zip(data["pages"], own, strict=True)):
        shown.append(_page(data, page, i == 0, label))
    shown.append('<p class="note on-paper">' + esc(ON_PAPER) + "</p>")
    return [*shown, *(_topic(data) if figures and data["topic"] else [])]


def _facts(data: PageData) -> str:
    rows = [
        ("Hook", f"<code>{esc(data['hook_name'])}</code>"),
        ("Features shown", f"{len(data['pages'])} of {number(data['d_sae'], 0)}"),
    ]
    if data["n_alive"] is not None:
        dead = data["d_sae"] - data["n_alive"]
        cached = f"{number(data['n_tokens'], 0)} <small>of {data['n_prompts']} prompts</small>"
        rows += [("Tokens", cached), ("Features that never fire here", number(dead, 0))]
    return pairs(rows, "facts")


def _overview(data: PageData, labels: Sequence[PageData]) -> str:
    headers = ["Feature", "Side", "Firing rate", "A_max", "Fires most on", "Raises"]
    rows = [_overview_row(page) for page in data["pages"]]
    if any(texts := [label_of(label) for label in labels]):
        headers.insert(2, "Label")
        for row, text in zip(rows, texts, strict=True):
            row.insert(2, TableCell(f'<span class="label">{esc(text or "–")}</span>', text))
    return f'<div class="overview">{table("The features shown", headers, rows)}</div>'


def _overview_row(page: PageData) -> list[TableCell]:
    number_, firing = page["feature"], page["firing"]
    raised = chips([token_text(t["text"]) for t in page["raised"][:SHOWN_RAISED]])
    best = _busiest(firing)
    return [
        TableCell(f'<a href="#f{number_}"><b>feature {number_}</b></a>', f"feature {number_}"),
        TableCell(esc(page["side"] or "–"), page["side"]),
        TableCell(percent(firing["firing_rate"]), float(firing["firing_rate"]))
        if firing
        else _UNKNOWN,
        TableCell(number(firing["a_max"], 2), float(firing["a_max"])) if firing else _UNKNOWN,
        TableCell(esc(best), best),
        TableCell(raised or "–", ""),
    ]


_UNKNOWN = TableCell("–", -1.0)


def _busiest(firing: PageData | None) -> str:
    """The domain on whose tokens it fires most often, or a dash."""
    if not firing or not firing["firing_rate"]:
        return "–"
    best = max(firing["domains"], key=lambda own: own["firing_rate"])
    return best["domain"] or "(no domain)"


def _page(data: PageData, page: PageData, opened: bool, label: PageData) -> str:
    """One feature, folded under a line that says the most."""
    colour = SIDE_COLOURS[side_place(data, page["side"])]
    side = badge(page["side"], "quiet") if page["side"] else ""
    about = _brief(page["firing"])
    body = label_body(label) + _responds(page["firing"]) + _panels(page, colour)
    rgb = " ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    return (
        f'<details class="feature" style="--rgb:{rgb}"{" open" if opened else ""}>'
        f"<summary>feature {page['feature']}{label_title(label)} {side} "
        f"<small>{esc(about)}</small></summary>"
        f'<div id="f{page["feature"]}">{body}</div></details>'
    )


def _brief(firing: PageData | None) -> str:
    if firing is None:
        return ""
    if not firing["firing_rate"]:
        return "never fires on the cached tokens"
    rate, top = percent(firing["firing_rate"]), short(float(f"{firing['a_max']:.3g}"))
    return f"fires on {rate} of tokens, most often on {_busiest(firing)}; A_max {top}"


def _responds(firing: PageData | None) -> str:
    if firing is None:
        return ""
    if not firing["firing_rate"]:
        return note("It never fires on the cached tokens, so there is no context to show.")
    if not firing["contexts"]:
        return note("It fires on special tokens alone, which are in no context.")
    shown = "".join(context_html(context, firing["a_max"]) for context in firing["contexts"])
    return f'<ol class="contexts">{shown}</ol>'


def _panels(page: PageData, colour: str) -> str:
    """Three columns: how it fires and what is near to it, what it raises, what it lowers."""
    firing, first = page["firing"], ""
    if firing and firing["histogram"]["counts"]:
        first += _panel("Activations above 0", histogram(**firing["histogram"], colour=colour))
        first += _panel("Firing rate by domain", bars(_domain_bars(firing["domains"])))
    if page["neighbours"]:
        near = bars(_neighbour_bars(page["neighbours"]))
        first += _panel("Nearest by decoder cosine", near, short=True)
    columns = [first] + [
        _panel(title, bars(_token_bars(page[kind])), short=True)
        for title, kind in (("Tokens it raises", "raised"), ("Tokens it lowers", "lowered"))
        if page[kind]
    ]
    return f'<div class="panels">{"".join(f"<div>{own}</div>" for own in columns if own)}</div>'


def _panel(title: str, body: str, short: bool = False) -> str:
    """A list under a heading; of a short one, paper shows the beginning."""
    kind = ' class="short"' if short else ""
    return f"<div{kind}><h3>{esc(title)}</h3>{body}</div>"


def _domain_bars(domains: Sequence[PageData]) -> list[Bar]:
    """Longest bar: the domain with the highest rate."""
    most = max(own["firing_rate"] for own in domains) or 1.0
    return [
        Bar(
            esc(own["domain"] or "(no domain)"),
            percent(own["firing_rate"]),
            own["firing_rate"] / most,
            f"{percent(own['firing_rate'])} of {own['n_tokens']} tokens; "
            f"in {percent(own['prompt_rate'])} of {own['n_prompts']} prompts",
        )
        for own in domains
    ]


def _token_bars(tokens: Sequence[PageData]) -> list[Bar]:
    most = max(abs(own["logit"]) for own in tokens) or 1.0
    return [
        Bar(
            f"<code>{esc(token_text(own['text']))}</code>",
            number(own["logit"], 2, signed=True),
            abs(own["logit"]) / most,
            f"token {own['token']}",
        )
        for own in tokens
    ]


def _neighbour_bars(others: Sequence[PageData]) -> list[Bar]:
    return [
        Bar(
            f"feature {own['feature']}"
            + (f" <small>{esc(own['side'])}</small>" * bool(own["side"])),
            number(own["cosine"], 2, signed=True),
            own["cosine"],
            "a candidate" if own["side"] else "no candidate",
        )
        for own in others
    ]


def _topic(data: PageData) -> list[str]:
    """The features by category of the topic."""
    topic = data["topic"]
    n = sum(topic["n_prompts"])
    lead = (
        f"{n} prompts{_source(data)}, in {len(topic['categories'])} categories. Strength: the mean "
        "over a category's prompts of the feature's largest activation in the prompt, without what "
        "all prompts begin or end with. A row of one colour responds to every category alike."
    )
    return [
        f'<h3 id="topic">By category</h3><p class="lead">{esc(lead)}</p>',
        figure("topic-heatmap", topic_heatmap(data)),
        figure("topic-bars", topic_bars(data), bars_caption(data)),
    ]


def _source(data: PageData) -> str:
    return f" of {data['topic_source']}" if data.get("topic_source") else ""
