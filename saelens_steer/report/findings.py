"""The first half of the page: facts, claims and what they are compared with, effects against α."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.evidence import FAILS, PASSES, UNMEASURED, least_controls, matched_by
from saelens_steer.file_names import file_name
from saelens_steer.numbers import count, decimals, number, short
from saelens_steer.report.figures import claims_figure, interference_figure, validity_figure
from saelens_steer.report.lines import rate_styles
from saelens_steer.report.markup import chart, render, small_chart
from saelens_steer.report.run_folder import (
    RunTables,
    candidates,
    claims_on,
    compared,
    control_counts,
    controls,
    with_texts,
)
from saelens_steer.report.theme import name_label

Sorted = tuple[float, str]
"""The number by which a cell sorts, and what it shows."""


def facts(run: RunTables) -> list[tuple[str, Any, Any]]:
    """The key facts: a term, its value, and a smaller line below it."""
    model = run.provenance.get("model") or run.spec.get("model") or {}
    hook = run.provenance.get("hook_name") or run.features.get("hook_name")
    positions = (run.spec.get("sweep") or {}).get("positions")
    counted = "n" in run.summary and len(run.summary)
    n_prompts = short(int(max(run.summary["n"]))) if counted else ""
    return [
        ("Model", model.get("name"), (run.spec.get("model") or {}).get("class")),
        ("Hook", hook, f"positions: {positions}" if positions else ""),
        *([("SAE", *_sae(run))] if run.has_sae else []),
        ("Directions tested", *_directions(run)),
        ("Controls", *_controls(run.summary)),
        ("Prompts", n_prompts, (run.provenance.get("prompts") or {}).get("source")),
        ("Strengths α", *_alphas(run.summary)),
    ]


def _sae(run: RunTables) -> tuple[str, str]:
    train = (run.spec.get("sae") or {}).get("train") or {}
    about = {**(run.provenance.get("sae") or {}), **(run.features.get("sae") or {})}
    size = about.get("d_sae") or train.get("d_sae")
    features = f"{short(size)} features" if size else ""
    if not train:
        return str(about.get("source", "")), features
    how = " with a frozen random decoder" if train.get("frozen_decoder") else ""
    kind = ", ".join(filter(None, [train.get("architecture"), features]))
    return kind, f"trained in this run{how}"


def _directions(run: RunTables) -> tuple[str, str]:
    names = set(candidates(run.summary)["direction"])
    counts = Counter(side for direction, side in run.sides.items() if direction in names)
    return str(len(names)), ", ".join(f"{n} {side}" for side, n in counts.items())


def _controls(summary: pd.DataFrame) -> tuple[str, str]:
    families, sets, kind = control_counts(controls(summary))
    if not families:
        return "none", ""
    below = f"random directions of the same {matched_by(summary)}"
    if sets > 1:
        below += f", a separate set for each of {sets} {kind}"
    return ", ".join(f"{short(n)} {family}" for family, n in families.items()), below


def _alphas(summary: pd.DataFrame) -> tuple[str, str]:
    alphas = [short(a) for a in sorted(set(summary["alpha"]))]
    shown = alphas if len(alphas) <= 9 else [*alphas[:2], "…", *alphas[-2:]]
    units = sorted(set(summary["alpha_unit"].astype(str))) if "alpha_unit" in summary else []
    return ", ".join(shown), f"unit: {', '.join(units)}" if units else ""


def claims_section(run: RunTables) -> str:
    """One table of claims for each metric; the page's script turns them into tabs. Metrics on which
    no direction can be tested share the last one."""
    names = [] if run.claims.empty else list(dict.fromkeys(run.claims["metric"]))
    claims = {name: own for name in names if len(own := claims_on(run.claims, name))}
    untested = [m for m, own in claims.items() if not {*own["verdict"]} & {PASSES, FAILS}]
    together = [[m] for m in claims if m not in untested] + [untested] * bool(untested)
    families = list(run.claims["controls"].dropna()) if "controls" in run.claims else []
    return render(
        "claims.html",
        panels=[_panel(run, {m: claims[m] for m in metrics}) for metrics in together],
        missing=run.claims.empty,
        family=families[0] if families else "",
        matched_by=matched_by(run.summary),
        families=families_table(run),
        sides=run.sides,
        labels=run.label_texts,
        verdicts=(PASSES, FAILS),
    )


def _panel(run: RunTables, claims: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """The claims on one metric, or on several that cannot be tested."""
    first, several = next(iter(claims)), len(claims) > 1
    rows = []
    for own in claims.values():
        places = decimals([*own["effect"], *own["control_quantile"]])
        rows += [row | {"places": places} for row in own.to_dict("records")]
    return {
        "metric": None if several else first,
        "unit": "" if several else run.units.get(first, ""),
        "label": f"Not testable: {len(claims)} metrics" if several else name_label(first),
        "sentences": [_count_sentence(run, own, metric) for metric, own in claims.items()],
        "signs": any(
            "sign_rate" in own and own["sign_rate"].notna().any() for own in claims.values()
        ),
        "rows": rows,
    }


def _count_sentence(run: RunTables, own: pd.DataFrame, metric: str) -> str:
    more, null = (list(own["verdict"]).count(v) for v in (PASSES, FAILS))
    untested, total = len(own) - more - null, len(set(run.claims["direction"]))
    were = "was" if len(own) == 1 else "were"
    who = f"{len(own)} of {total} candidates {were} measured" if len(own) < total else ""
    k, label = short(int(max(own["n_controls"]))), name_label(metric)
    if untested == len(own):
        least = short(least_controls(len(own)))
        return (
            f"{label}: {who and f'{who}; '}not testable with {k} controls, because a claim about "
            f"{count(len(own), 'direction')} needs at least {least}."
        )
    rest = f", and {untested} cannot be tested" if untested else ""
    judged = f"(q < 0.05, {k} controls)"
    things = count(len(own), "direction")
    move = f"{'moves' if more == 1 else 'move'} {label} more than random directions do"
    return f"{who and f'{who}. '}{more} of {things} {move} {judged}{rest}."


def families_table(run: RunTables) -> dict[str, Any]:
    """For each family: the number of controls, their 95th percentile of T on the main metric, and
    how many directions exceed them on each logit metric. Empty for fewer than two families."""
    families = list(dict.fromkeys(run.by_family["controls"])) if len(run.by_family) else []
    if len(families) < 2 or not run.logit_metrics:
        return {}
    measured = run.by_family.loc[run.by_family["verdict"] != UNMEASURED]
    on_main = measured.loc[measured["metric"] == run.logit_metrics[0]]
    places = decimals(on_main["control_quantile"].dropna())
    rows = []
    for family in families:
        main = on_main.loc[on_main["controls"] == family]
        own = measured.loc[measured["controls"] == family]
        verdicts = [list(own.loc[own["metric"] == m, "verdict"]) for m in run.logit_metrics]
        spans = _span(main["n_controls"], 0), _span(main["control_quantile"].dropna(), places)
        rows.append({"family": family, "cells": [*spans, *map(_passing, verdicts)]})
    return {"metrics": run.logit_metrics, "rows": rows}


def _span(values: pd.Series, places: int) -> Sorted:
    """One number, or the smallest and the largest if candidates differ."""
    if values.empty:
        return float("-inf"), "–"
    ends = dict.fromkeys(number(float(end), places) for end in (values.min(), values.max()))
    return float(values.max()), " to ".join(ends)


def _passing(verdicts: list[str]) -> Sorted:
    """How many of the testable directions do more than random."""
    more, tested = verdicts.count(PASSES), sum(verdict in (PASSES, FAILS) for verdict in verdicts)
    return (float(more), f"{more} of {tested}") if tested else (-1.0, "not testable")


def baseline_section(run: RunTables) -> str:
    """The comparison with the baseline, by metric; empty if the run has none."""
    if run.baseline.empty:
        return ""
    rows = []
    for metric in dict.fromkeys(run.baseline["metric"]):
        both: list[Any] = [claims_on(claims, metric) for claims in (run.claims, run.baseline)]
        if both[0].empty:
            continue
        verdicts = [list(own["verdict"]) for own in both]
        counts = [_passing(own if {*own} <= {PASSES, FAILS} else []) for own in verdicts]
        reaches = [float(own["T"].mean()) for own in both]
        rows.append((metric, counts, reaches, decimals(reaches)))
    return render("baseline.html", rows=rows, sentence=_baseline_sentence(*rows[0]) if rows else "")


def _baseline_sentence(metric: str, counts: list[Sorted], reaches: list[float], places: int) -> str:
    """How many features of each SAE do more than random directions, and their mean T."""
    far = "the mean T is {} against {}".format(*(number(reach, places) for reach in reaches))
    if min(counts)[0] < 0:
        return f"There are too few controls to test the features; {far}."
    own, baseline = (text for _, text in counts)
    move = "moves" if own.startswith("1 ") else "move"
    return (
        f"{own} features {move} {metric} more than random directions do, against {baseline} for "
        f"the baseline; {far}."
    )


def dose_section(run: RunTables) -> str:
    """The dose-response and the distribution of T for each logit metric."""
    families, sets, kind = control_counts(compared(run.summary, run.claims))
    return render(
        "dose.html",
        figures=[(metric, *_dose_charts(run, metric)) for metric in run.logit_metrics],
        matched_by=matched_by(run.summary),
        banded=bool(families),
        several=kind if families and sets > 1 else "",
    )


def _dose_charts(run: RunTables, metric: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    dose, reach = dose_figures(run, metric)
    name = file_name(metric)
    return chart(f"dose-{name}", dose), reach and chart(f"reach-{name}", reach)


def dose_figures(run: RunTables, metric: str) -> tuple[go.Figure, go.Figure | None]:
    """Effects against α, and each candidate's T beside the controls' if there are controls."""
    about, unit = {"sides": run.sides, "labels": run.label_texts}, run.units.get(metric, "")
    dose = interference_figure(run.summary, metric, claims=run.claims, **about, unit=unit)
    if claims_on(run.claims, metric).empty or controls(run.summary).empty:
        return dose, None
    return dose, claims_figure(run.claims, run.summary, metric, run.sides, unit)


def rates_section(run: RunTables) -> str:
    """Small panels, one per metric of completions, under one legend."""
    charts = []
    for metric in run.text_metrics:
        plot, label = validity_figure(run.summary, [metric], run.sides), name_label(metric)
        charts.append((label, small_chart(f"rate-{file_name(metric)}", plot, label, "α")))
    shown = with_texts(run.summary, run.text_metrics)
    styles = rate_styles(shown, run.sides).items()
    looks = {look.get("name", d): look["line"] for d, look in styles}
    return render("rates.html", charts=charts, looks=looks, sides=run.sides, labels=run.label_texts)
