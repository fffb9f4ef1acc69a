"""The page's first half: key facts, claims, dose-response, rates of completions."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from saelens_steer.evidence import FAILS, PASSES, least_controls, matched_by
from saelens_steer.report.control_claims import families_lead, families_table
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
    having,
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
    rows = [
        ("Model", model.get("name"), (run.spec.get("model") or {}).get("class")),
        (
            "Hook",
            hook,
            f"positions: {_sweep(run, 'positions')}" if _sweep(run, "positions") else "",
        ),
        ("SAE", *_sae_words(run)),
        ("Directions tested", *_directions(run)),
        ("Controls", *_controls(run.summary)),
        ("Prompts", *_prompts(run)),
        ("Strengths α", *_alphas(run.summary)),
    ]
    return pairs([(term, _fact(value, below)) for term, value, below in rows], "facts")


def warnings_block(run: RunTables) -> str:
    """Why the numbers may mislead, as a list under a heading; nothing where there is no reason."""
    texts = [*run.warnings, *(run.quality.get("warnings") or [])]
    if not texts:
        return ""
    items = "".join(f"<li>{esc(text)}</li>" for text in texts)
    return (
        '<aside class="warnings" aria-labelledby="warnings-title">'
        f'<h2 id="warnings-title">Read with care</h2><ul>{items}</ul></aside>'
    )


def _fact(value: object, below: object) -> str:
    small = f"<small>{esc(below)}</small>" if below else ""
    return f"{esc(value or 'not recorded')}{small}"


def _sweep(run: RunTables, key: str) -> object:
    return (run.spec.get("sweep") or {}).get(key)


def _sae_words(run: RunTables) -> tuple[str, str]:
    train = (run.spec.get("sae") or {}).get("train") or {}
    about = {**(run.provenance.get("sae") or {}), **(run.features.get("sae") or {})}
    size = about.get("d_sae") or train.get("d_sae")
    features = f"{short(size)} features" if size else ""
    if train:
        how = ", its decoder left as drawn" if train.get("frozen_decoder") else ""
        kind = ", ".join(filter(None, [train.get("architecture"), features]))
        return kind, f"trained in this run{how}"
    return str(about.get("source", "")), features


def _directions(run: RunTables) -> tuple[str, str]:
    names = set(candidates(run.summary)["direction"])
    counts = {
        s: sum(run.sides.get(d) == s for d in names) for s in dict.fromkeys(run.sides.values())
    }
    return str(len(names)), ", ".join(f"{n} {side}" for side, n in counts.items() if n)


def _controls(summary: pd.DataFrame) -> tuple[str, str]:
    families, sets, kind = control_counts(controls(summary))
    words = ", ".join(f"{short(n)} {family}" for family, n in families.items())
    below = f"random directions of the same {matched_by(summary)}"
    if sets > 1:
        below += f", at each of {sets} sizes" if kind == "sizes" else f", for each of {sets}"
    return (words, below) if words else ("none", "")


def _prompts(run: RunTables) -> tuple[str, str]:
    n = max(run.summary["n"]) if "n" in run.summary and len(run.summary) else None
    source = (run.provenance.get("prompts") or {}).get("source", "")
    return "" if n is None else short(int(n)), str(source)


def _alphas(summary: pd.DataFrame) -> tuple[str, str]:
    alphas = [short(a) for a in sorted(set(summary["alpha"]))]
    shown = alphas if len(alphas) <= 9 else [*alphas[:2], "…", *alphas[-2:]]
    units = sorted(set(summary["alpha_unit"].astype(str))) if "alpha_unit" in summary else []
    return ", ".join(shown), f"unit: {', '.join(units)}" if units else ""


def claims_section(run: RunTables) -> str:
    """One table of claims for each metric; the page's script turns them into tabs."""
    lead = (
        "For each direction: its largest effect over the strengths, and whether random directions "
        f"of the same {matched_by(run.summary)} reach as far.{families_lead(run)}"
    )
    if run.claims.empty:
        return section(
            "claims", "Claims", "", note("This run made no claims: claims.csv is missing or empty.")
        )
    metrics = [m for m in dict.fromkeys(run.claims["metric"]) if len(claims_on(run.claims, m))]
    panels = [_claims_panel(run, m) for m in metrics]
    tabbed = f'<div class="tabbed">{"".join(panels)}</div>'
    return section("claims", "Claims", lead, tabbed, families_table(run))


def _claims_panel(run: RunTables, metric: str) -> str:
    own = claims_on(run.claims, metric)
    unit = metric_unit(metric)
    effect = f"Largest Δ{f' ({unit})' if unit else ''} [95\u00a0%\u00a0CI]"
    controls_end = "95\u00a0% of controls"
    headers = ["Direction", "Side", "Verdict", effect, "at\u00a0α", controls_end, "p", "q"]
    signs = "sign_rate" in own and len(having(own, "sign_rate")) > 0
    headers += ["Opposite sign"] if signs else []
    places = decimals([*own["effect"], *own["control_quantile"]])
    rows = [_claim_row(row, run, places, signs) for row in own.to_dict("records")]
    label = name_label(metric)
    return (
        f'<div class="panel" id="claims-{slug(metric)}" data-label="{esc(label)}">'
        f"<h3>{esc(label)}</h3><p>{esc(_count_sentence(run, own, metric))}</p>"
        f"{table(f'Claims on {label}', headers, rows)}</div>"
    )


def _claim_row(row: dict, run: RunTables, places: int, signs: bool) -> list[TableCell]:
    direction = str(row["direction"])
    name, side = direction_label(direction), run.sides.get(direction, "")
    low, high = (number(row[end], places, signed=True) for end in ("ci_low", "ci_high"))
    effect = f"{number(row['effect'], places, signed=True)} <small>[{low}, {high}]</small>"
    cells = [
        TableCell(f"<b>{esc(name)}</b>{label_below(run.label_texts.get(direction, ''))}", name),
        TableCell(esc(side or "–"), side),
        TableCell(verdict_badge(str(row["verdict"])), str(row["verdict"])),
        TableCell(effect, float(row["effect"])),
        TableCell(esc(short(row["alpha"])), float(row["alpha"])),
        TableCell(number(row["control_quantile"], places), float(row["control_quantile"])),
        TableCell(number(row["p_value"], 4), float(row["p_value"])),
        TableCell(number(row["q_value"], 4), float(row["q_value"])),
    ]
    return cells + (
        [TableCell(number(100 * row["sign_rate"], 0) + " %", float(row["sign_rate"]))]
        if signs
        else []
    )


def verdict_badge(verdict: str) -> str:
    """The verdict in words, with a mark that does not rely on colour."""
    if verdict == PASSES:
        return badge(f"✓ {verdict}", "good")
    if verdict == FAILS:
        return badge(verdict, "quiet")
    return badge(f"? {verdict.split(' with ')[0]}", "warn", verdict)


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
        return section(
            "dose", "Dose-response", "", note("This run measured no metric of the logits.")
        )
    parts = [part for metric in run.logit_metrics for part in _dose_figures(run, metric)]
    lead = (
        "Each line is one direction. The grey band is what random directions of the same "
        f"{matched_by(run.summary)} do "
        "at the same positions: an effect inside it needs no explanation by the feature."
    )
    return section("dose", "Dose-response", lead, *parts)


def _dose_figures(run: RunTables, metric: str) -> Iterable[str]:
    label = name_label(metric)
    yield f"<h3>{esc(label)}</h3>"
    plot = interference_figure(
        run.summary, metric, claims=run.claims, sides=run.sides, labels=run.label_texts
    )
    yield figure(f"dose-{slug(metric)}", plot, _dose_caption(run))
    if len(claims_on(run.claims, metric)) and len(controls(run.summary)):
        plot = claims_figure(run.claims, run.summary, metric, sides=run.sides)
        caption = "Above: how far the controls reach. Below, to the same scale: each candidate."
        yield figure(f"reach-{slug(metric)}", plot, caption)


def _dose_caption(run: RunTables) -> str:
    families, sets, kind = control_counts(compared(run.summary, run.claims))
    band = (
        "The band covers 5–95 % of the controls, the paler one all of them; dotted: their median. "
    )
    band += SEVERAL_SETS[kind] if sets > 1 else ""
    return (band if families else "") + (
        "Error bars: 95 % bootstrap intervals over prompts, for the strongest of each side; "
        "point at any line for its own."
    )


def rates_section(run: RunTables) -> str:
    """Small panels, one for each metric of completions, under one legend."""
    if not run.text_metrics:
        return section(
            "rates", "Completions in numbers", "", note("This run wrote no completions.")
        )
    grid = "".join(
        f"<div><h3>{esc(name_label(m))}</h3>{figure(f'rate-{slug(m)}', _rate_panel(run, m))}</div>"
        for m in run.text_metrics
    )
    lead = "Averages over the completions of each direction and strength; α = 0 is unsteered."
    return section(
        "rates", "Completions in numbers", lead, _legend(run), f'<div class="grid">{grid}</div>'
    )


def _rate_panel(run: RunTables, metric: str):
    plot = validity_figure(run.summary, [metric], sides=run.sides)
    plot.layout.annotations = ()
    plot.update_layout(showlegend=False, height=236, margin={"l": 48, "r": 10, "b": 48})
    return plot.update_layout(title_text=f"{name_label(metric)} against α")


def _legend(run: RunTables) -> str:
    looks = rate_styles(with_texts(run.summary, run.text_metrics), run.sides)
    items = [
        f'<li><span class="swatch {line["dash"]}" style="border-color:{line["color"]}"></span>'
        f"{esc(_who(direction, run))}</li>"
        for direction, line in ((direction, look["line"]) for direction, look in looks.items())
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _who(direction: str, run: RunTables) -> str:
    side, label = run.sides.get(direction), quoted(run.label_texts.get(direction, ""))
    words = [direction_label(direction), f"({side})" if side else "", label]
    return " ".join(filter(None, words))
