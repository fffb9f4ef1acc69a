"""Feature pages: which features are alive and what each responds to, as a section or a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saelens_steer.features import FeaturePageData
from saelens_steer.files import write_text
from saelens_steer.report.feature_parts import (
    bars,
    context_html,
    histogram,
    percent,
    token_text,
)
from saelens_steer.report.label_parts import Entry, label_body, label_of, label_title
from saelens_steer.report.markup import (
    TableCell,
    badge,
    chips,
    esc,
    feature_link,
    figure,
    note,
    number_cell,
    pairs,
    section,
    shell,
    table,
)
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import SIDE_COLOURS, number, short
from saelens_steer.report.topic_figures import (
    Data,
    bars_caption,
    side_place,
    topic_bars,
    topic_heatmap,
)

SHOWN_RAISED = 4
"""Raised tokens per feature in the overview."""
Labels = Mapping[int, Entry]
"""labels.json by feature."""
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
    """The section of the report; empty if the run has no feature pages."""
    data = run.feature_pages
    if not data:
        return ""
    return section(
        "features", "Features", f"{_summary(data)} {_lead(data)}", _body(data, run.labels)
    )


def features_page(data: Data, name: str, scripts: bool = True, labels: Labels | None = None) -> str:
    """The same as a separate page, for the run called `name`; without scripts, without figures."""
    links = '<a href="#pages">Features</a>' if data["pages"] else ""
    if data["pages"] and data["topic"] and scripts:
        links += '<a href="#topic">By category</a>'
    body = _body(data, labels or {}, figures=scripts)
    return shell(
        section("pages", "Features", _lead(data), body),
        title=f"Features: {name}",
        eyebrow=f"Features of {name}",
        headline=_summary(data),
        how=HOW,
        facts=_facts(data),
        links=links,
        scripts=scripts,
    )


@dataclass(frozen=True)
class FeaturePages(FeaturePageData):
    """Feature pages that a notebook shows, and that can be saved as a page."""

    def _repr_html_(self) -> str:
        """The pages in a frame in which no script runs, so without the figures of a topic."""
        text = features_page(self.to_json(), self.hook_name, scripts=False)
        style = "width:100%;height:640px;border:1px solid #e4e7eb"
        return f'<iframe sandbox srcdoc="{esc(text)}" style="{style}"></iframe>'

    def save(self, path: str | Path) -> Path:
        """Write everything as one HTML file that loads nothing."""
        return write_text(Path(path), features_page(self.to_json(), self.hook_name))


def _summary(data: Data) -> str:
    """How many features are alive, in a sentence."""
    if data["n_alive"] is None:
        return "This SAE has only its decoder."
    return (
        f"{number(data['n_alive'], 0)} of {number(data['d_sae'], 0)} features fire on the cached "
        f"tokens, {number(data['n_dense'], 0)} of them on more than a tenth."
    )


def _lead(data: Data) -> str:
    return DECODER if data["n_alive"] is None else LEAD


def _facts(data: Data) -> str:
    rows = [
        ("Hook", f"<code>{esc(data['hook_name'])}</code>"),
        ("Features shown", f"{len(data['pages'])} of {number(data['d_sae'], 0)}"),
    ]
    if data["n_alive"] is not None:
        dead = data["d_sae"] - data["n_alive"]
        cached = f"{number(data['n_tokens'], 0)} <small>of {data['n_prompts']} prompts</small>"
        rows += [("Tokens", cached), ("Features that never fire here", number(dead, 0))]
    return pairs(rows, "facts")


def _body(data: Data, labels: Labels, figures: bool = True) -> str:
    """The overview, a page per feature, and the figures of the topic."""
    if not data["pages"]:
        return note("No feature was chosen or named, so none is shown.")
    body = _overview(data["pages"], labels)
    for i, page in enumerate(data["pages"]):
        body += _feature(data, page, labels.get(page["feature"], {}), opened=i == 0)
    body += f'<p class="note on-paper">{esc(ON_PAPER)}</p>'
    return body + (_topic(data) if figures and data["topic"] else "")


def _overview(pages: Sequence[Data], labels: Labels) -> str:
    headers = ["Feature", "Side", "Firing rate", "A_max", "Fires most on", "Raises"]
    rows = [_overview_row(page) for page in pages]
    texts = [label_of(labels.get(page["feature"], {})) for page in pages]
    if any(texts):
        headers.insert(2, "Label")
        for row, text in zip(rows, texts, strict=True):
            row.insert(2, TableCell(f'<span class="label">{esc(text or "–")}</span>', text))
    return f'<div class="overview">{table("The features shown", headers, rows)}</div>'


def _overview_row(page: Data) -> list[TableCell]:
    firing = page["firing"] or {}
    rate, a_max, best = firing.get("firing_rate"), firing.get("a_max"), _busiest(firing)
    raised = chips([token_text(token["text"]) for token in page["raised"][:SHOWN_RAISED]])
    return [
        feature_link(page["feature"]),
        TableCell(esc(page["side"] or "–"), page["side"]),
        number_cell(rate, "–" if rate is None else percent(rate)),
        number_cell(a_max, number(a_max, 2)),
        TableCell(esc(best), best),
        TableCell(raised or "–", ""),
    ]


def _busiest(firing: Data) -> str:
    """The domain on whose tokens it fires most often, or a dash if it never fires."""
    if not firing.get("firing_rate"):
        return "–"
    best = max(firing["domains"], key=lambda own: own["firing_rate"])
    return best["domain"] or "(no domain)"


def _feature(data: Data, page: Data, label: Entry, opened: bool) -> str:
    """One feature, folded under a line that says the most."""
    colour = SIDE_COLOURS[side_place(data, page["side"])]
    rgb = " ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    side = badge(page["side"], "quiet") if page["side"] else ""
    about, contexts = _response(page["firing"])
    return (
        f'<details class="feature" style="--rgb:{rgb}"{" open" if opened else ""}>'
        f"<summary>feature {page['feature']}{label_title(label)} {side} "
        f"<small>{esc(about)}</small></summary>"
        f'<div id="f{page["feature"]}">{label_body(label)}{contexts}{_panels(page, colour)}</div>'
        "</details>"
    )


def _response(firing: Data | None) -> tuple[str, str]:
    """What a feature responds to: in a few words, and its contexts as HTML."""
    if firing is None:
        return "", ""
    rate, a_max = firing["firing_rate"], firing["a_max"]
    if not rate:
        text = "It never fires on the cached tokens, so there is no context to show."
        return "never fires on the cached tokens", note(text)
    top = short(float(f"{a_max:.3g}"))
    about = f"fires on {percent(rate)} of tokens, most often on {_busiest(firing)}; A_max {top}"
    if not firing["contexts"]:
        return about, note("It fires on special tokens alone, which are in no context.")
    shown = "".join(context_html(context, a_max) for context in firing["contexts"])
    return about, f'<ol class="contexts">{shown}</ol>'


def _panels(page: Data, colour: str) -> str:
    """Three columns: how it fires and its nearest features, what it raises, what it lowers."""
    firing, first = page["firing"], ""
    if firing and firing["histogram"]["counts"]:
        first += _panel("Activations above 0", histogram(**firing["histogram"], colour=colour))
        first += _panel("Firing rate by domain", _domain_bars(firing["domains"]))
    if page["neighbours"]:
        near = _neighbour_bars(page["neighbours"])
        first += _panel("Nearest by decoder cosine", near, short=True)
    columns = [first] + [
        _panel(title, _token_bars(page[kind]), short=True)
        for title, kind in (("Tokens it raises", "raised"), ("Tokens it lowers", "lowered"))
        if page[kind]
    ]
    return f'<div class="panels">{"".join(f"<div>{own}</div>" for own in columns if own)}</div>'


def _panel(title: str, body: str, short: bool = False) -> str:
    """A list under a heading; of a short one, paper shows the beginning."""
    kind = ' class="short"' if short else ""
    return f"<div{kind}><h3>{esc(title)}</h3>{body}</div>"


def _domain_bars(domains: Sequence[Data]) -> str:
    most = max(own["firing_rate"] for own in domains) or 1.0
    return bars(
        (
            esc(own["domain"] or "(no domain)"),
            percent(own["firing_rate"]),
            own["firing_rate"] / most,
            f"{percent(own['firing_rate'])} of {own['n_tokens']} tokens; "
            f"in {percent(own['prompt_rate'])} of {own['n_prompts']} prompts",
        )
        for own in domains
    )


def _token_bars(tokens: Sequence[Data]) -> str:
    most = max(abs(own["logit"]) for own in tokens) or 1.0
    return bars(
        (
            f"<code>{esc(token_text(own['text']))}</code>",
            number(own["logit"], 2, signed=True),
            abs(own["logit"]) / most,
            f"token {own['token']}",
        )
        for own in tokens
    )


def _neighbour_bars(others: Sequence[Data]) -> str:
    return bars(
        (
            f"feature {own['feature']}"
            + (f" <small>{esc(own['side'])}</small>" if own["side"] else ""),
            number(own["cosine"], 2, signed=True),
            own["cosine"],
            "a candidate" if own["side"] else "no candidate",
        )
        for own in others
    )


def _topic(data: Data) -> str:
    """The features by category of the topic."""
    topic, source = data["topic"], data.get("topic_source")
    lead = (
        f"{sum(topic['n_prompts'])} prompts{f' of {source}' if source else ''}, in "
        f"{len(topic['categories'])} categories. Strength: the mean "
        "over a category's prompts of the feature's largest activation in the prompt, without what "
        "all prompts begin or end with. A row of one colour responds to every category alike."
    )
    heatmap = figure("topic-heatmap", topic_heatmap(data))
    drawn = figure("topic-bars", topic_bars(data), bars_caption(data))
    return f'<h3 id="topic">By category</h3><p class="lead">{esc(lead)}</p>{heatmap}{drawn}'
