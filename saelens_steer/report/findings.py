"""The page's first half: key facts, claims, dose-response, rates of completions."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from saelens_steer.evidence import FAILS, PASSES, least_controls, matched_by
from saelens_steer.report.control_claims import families_table
from saelens_steer.report.figures import claims_figure, interference_figure, validity_figure
from saelens_steer.report.label_parts import label_below
from saelens_steer.report.lines import rate_styles
from saelens_steer.report.markup import TableCell, badge, esc, figure, note, pairs, section, table
from saelens_steer.report.run_folder import (
    RunTables,
    candidates,
    claims_on,
    compared,
    control_counts,
    controls,
    with_texts,
)
from saelens_steer.report.theme import (
    decimals,
    direction_label,
    metric_unit,
    name_label,
    number,
    quoted,
    short,
)

SEVERAL_SETS = {
    "sizes": "The directions differ in norm: the band holds controls of every size, while a claim "
    "compares with those of its own size alone. ",
    "directions": "Each direction has controls of its own: the band holds all of them, while a "
    "claim compares with its own alone. ",
}


def slug(text: str) -> str:
    """A name that is safe as an HTML id and as a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "x"


def facts(run: RunTables) -> str:
    """The strip of key facts: a term, its value, and a smaller line below it."""
    model = run.provenance.get("model") or run.spec.get("model") or {}
    hook = run.provenance.get("hook_name") or run.features.get("hook_name")
    positions = (run.spec.get("sweep") or {}).get("positions")
    counted = "n" in run.summary and len(run.summary)
    n_prompts = short(int(max(run.summary["n"]))) if counted else ""
    rows = [
        ("Model", model.get("name"), (run.spec.get("model") or {}).get("class")),
        ("Hook", hook, f"positions: {positions}" if positions else ""),
        ("SAE", *_sae(run)),
        ("Directions tested", *_directions(run)),
        ("Controls", *_controls(run.summary)),
        ("Prompts", n_prompts, (run.provenance.get("prompts") or {}).get("source")),
        ("Strengths α", *_alphas(run.summary)),
    ]
    shown = []
    for term, value, below in rows:
        small = f"<small>{esc(below)}</small>" if below else ""
        shown.append((term, f"{esc(value or 'not recorded')}{small}"))
    return pairs(shown, "facts")


def _sae(run: RunTables) -> tuple[str, str]:
    train = (run.spec.get("sae") or {}).get("train") or {}
    about = {**(run.provenance.get("sae") or {}), **(run.features.get("sae") or {})}
    size = about.get("d_sae") or train.get("d_sae")
    features = f"{short(size)} features" if size else ""
    if not train:
        return str(about.get("source", "")), features
    how = ", its decoder left as drawn" if train.get("frozen_decoder") else ""
    kind = ", ".join(filter(None, [train.get("architecture"), features]))
    return kind, f"trained in this run{how}"


def _directions(run: RunTables) -> tuple[str, str]:
    names = set(candidates(run.summary)["direction"])
    counts = {
        s: sum(run.sides.get(d) == s for d in names) for s in dict.fromkeys(run.sides.values())
    }
    return str(len(names)), ", ".join(f"{n} {side}" for side, n in counts.items() if n)


def _controls(summary: pd.DataFrame) -> tuple[str, str]:
    families, sets, kind = control_counts(controls(summary))
    if not families:
        return "none", ""
    below = f"random directions of the same {matched_by(summary)}"
    if sets > 1:
        below += f", at each of {sets} sizes" if kind == "sizes" else f", for each of {sets}"
    return ", ".join(f"{short(n)} {family}" for family, n in families.items()), below


def _alphas(summary: pd.DataFrame) -> tuple[str, str]:
    alphas = [short(a) for a in sorted(set(summary["alpha"]))]
    shown = alphas if len(alphas) <= 9 else [*alphas[:2], "…", *alphas[-2:]]
    units = sorted(set(summary["alpha_unit"].astype(str))) if "alpha_unit" in summary else []
    return ", ".join(shown), f"unit: {', '.join(units)}" if units else ""


def warnings_block(run: RunTables) -> str:
    """Why the numbers may mislead, as a list under a heading; empty if there is no reason."""
    texts = [*run.warnings, *(run.quality.get("warnings") or [])]
    if not texts:
        return ""
    items = "".join(f"<li>{esc(text)}</li>" for text in texts)
    return (
        '<aside class="warnings" aria-labelledby="warnings-title">'
        f'<h2 id="warnings-title">Read with care</h2><ul>{items}</ul></aside>'
    )


def claims_section(run: RunTables) -> str:
    """One table of claims for each metric; the page's script turns them into tabs."""
    if run.claims.empty:
        missing = note("This run made no claims: claims.csv is missing or empty.")
        return section("claims", "Claims", "", missing)
    families = list(run.claims["controls"].dropna()) if "controls" in run.claims else []
    against = f" Claims are held against {families[0]} controls." if families else ""
    lead = (
        "For each direction: its largest effect over the strengths, and whether random directions "
        f"of the same {matched_by(run.summary)} reach as far.{against}"
    )
    claims = {m: claims_on(run.claims, m) for m in dict.fromkeys(run.claims["metric"])}
    panels = [_claims_panel(run, own, metric) for metric, own in claims.items() if len(own)]
    tabbed = f'<div class="tabbed">{"".join(panels)}</div>'
    return section("claims", "Claims", lead, tabbed, families_table(run))


def _claims_panel(run: RunTables, own: pd.DataFrame, metric: str) -> str:
    unit = f" ({metric_unit(metric)})" if metric_unit(metric) else ""
    headers = ["Direction", "Side", "Verdict", f"Largest Δ{unit} [95\u00a0%\u00a0CI]", "at\u00a0α"]
    headers += ["95\u00a0% of controls", "p", "q"]
    signs = "sign_rate" in own.dropna(axis="columns", how="all")
    headers += ["Opposite sign"] if signs else []
    places = decimals([*own["effect"], *own["control_quantile"]])
    rows = []
    for row in own.to_dict("records"):
        cells = _claim_cells(row, run, places)
        if signs:
            rate = float(row["sign_rate"])
            cells.append(TableCell(number(100 * rate, 0) + " %", rate))
        rows.append(cells)
    label = name_label(metric)
    return (
        f'<div class="panel" id="claims-{slug(metric)}" data-label="{esc(label)}">'
        f"<h3>{esc(label)}</h3><p>{esc(_count_sentence(run, own, metric))}</p>"
        f"{table(f'Claims on {label}', headers, rows)}</div>"
    )


def _claim_cells(row: dict, run: RunTables, places: int) -> list[TableCell]:
    direction, verdict = str(row["direction"]), str(row["verdict"])
    name, side = direction_label(direction), run.sides.get(direction, "")
    label = label_below(run.label_texts.get(direction, ""))
    effect, low, high = (
        number(row[key], places, signed=True) for key in ("effect", "ci_low", "ci_high")
    )
    marks = {PASSES: badge(f"✓ {verdict}", "good"), FAILS: badge(verdict, "quiet")}
    untested = badge(f"? {verdict.split(' with ')[0]}", "warn", verdict)
    return [
        TableCell(f"<b>{esc(name)}</b>{label}", name),
        TableCell(esc(side or "–"), side),
        TableCell(marks.get(verdict, untested), verdict),
        TableCell(f"{effect} <small>[{low}, {high}]</small>", float(row["effect"])),
        TableCell(esc(short(row["alpha"])), float(row["alpha"])),
        TableCell(number(row["control_quantile"], places), float(row["control_quantile"])),
        TableCell(number(row["p_value"], 4), float(row["p_value"])),
        TableCell(number(row["q_value"], 4), float(row["q_value"])),
    ]


def _count_sentence(run: RunTables, own: pd.DataFrame, metric: str) -> str:
    more, null = (list(own["verdict"]).count(v) for v in (PASSES, FAILS))
    untested, total = len(own) - more - null, len(set(run.claims["direction"]))
    who = f"{len(own)} of {total} candidates were measured. " if len(own) < total else ""
    k = short(int(max(own["n_controls"])))
    if untested == len(own):
        least = short(least_controls(len(own)))
        return f"{who}Not testable with {k} controls: {len(own)} directions take at least {least}."
    rest = f", and {untested} cannot be tested" if untested else ""
    label, judged = name_label(metric), f"(q < 0.05, {k} controls)"
    return f"{who}{more} of {len(own)} move {label} more than random directions do {judged}{rest}."


def dose_section(run: RunTables) -> str:
    """A dose-response and a distribution of T for each metric of logits."""
    if not run.logit_metrics:
        missing = note("This run measured no metric of the logits.")
        return section("dose", "Dose-response", "", missing)
    lead = (
        "Each line is one direction. The grey band is what random directions of the same "
        f"{matched_by(run.summary)} do "
        "at the same positions: an effect inside it needs no explanation by the feature."
    )
    parts = [part for metric in run.logit_metrics for part in _dose_figures(run, metric)]
    return section("dose", "Dose-response", lead, *parts)


def _dose_figures(run: RunTables, metric: str) -> Iterable[str]:
    families, sets, kind = control_counts(compared(run.summary, run.claims))
    caption = SEVERAL_SETS[kind] if families and sets > 1 else ""
    if families:
        caption = (
            "The band covers 5–95 % of the controls, the paler one all of them; dotted: their "
            f"median. {caption}"
        )
    caption += (
        "Error bars: 95 % bootstrap intervals over prompts, for the strongest of each side; "
        "point at any line for its own."
    )
    yield f"<h3>{esc(name_label(metric))}</h3>"
    plot = interference_figure(
        run.summary, metric, claims=run.claims, sides=run.sides, labels=run.label_texts
    )
    yield figure(f"dose-{slug(metric)}", plot, caption)
    if len(claims_on(run.claims, metric)) and len(controls(run.summary)):
        plot = claims_figure(run.claims, run.summary, metric, sides=run.sides)
        caption = "Above: how far the controls reach. Below, to the same scale: each candidate."
        yield figure(f"reach-{slug(metric)}", plot, caption)


def rates_section(run: RunTables) -> str:
    """Small panels, one for each metric of completions, under one legend."""
    title = "Completions in numbers"
    if not run.text_metrics:
        return section("rates", title, "", note("This run wrote no completions."))
    grid = ""
    for metric in run.text_metrics:
        plot = validity_figure(run.summary, [metric], sides=run.sides)
        plot.layout.annotations = ()
        plot.update_layout(showlegend=False, height=236, margin={"l": 48, "r": 10, "b": 48})
        plot.update_layout(title_text=f"{name_label(metric)} against α")
        grid += (
            f"<div><h3>{esc(name_label(metric))}</h3>{figure(f'rate-{slug(metric)}', plot)}</div>"
        )
    lead = "Averages over the completions of each direction and strength; α = 0 is unsteered."
    return section("rates", title, lead, _rates_legend(run), f'<div class="grid">{grid}</div>')


def _rates_legend(run: RunTables) -> str:
    items = ""
    looks = rate_styles(with_texts(run.summary, run.text_metrics), run.sides)
    for direction, look in looks.items():
        side, label = run.sides.get(direction), quoted(run.label_texts.get(direction, ""))
        words = [direction_label(direction), f"({side})" if side else "", label]
        swatch = (
            f'class="swatch {look["line"]["dash"]}" style="border-color:{look["line"]["color"]}"'
        )
        items += f"<li><span {swatch}></span>{esc(' '.join(filter(None, words)))}</li>"
    return f'<ul class="legend">{items}</ul>'
