"""The first half of the page: key facts, claims, dose-response, metrics of completions."""

from __future__ import annotations

from typing import Any

import pandas as pd

from saelens_steer.evidence import FAILS, PASSES, least_controls, matched_by
from saelens_steer.report.control_claims import families_table
from saelens_steer.report.figures import claims_figure, interference_figure, validity_figure
from saelens_steer.report.lines import rate_styles
from saelens_steer.report.markup import chart, render
from saelens_steer.report.run_folder import (
    RunTables,
    candidates,
    claims_on,
    compared,
    control_counts,
    controls,
    with_texts,
)
from saelens_steer.report.theme import decimals, name_label, short, slug


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
        ("SAE", *_sae(run)),
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


def claims_section(run: RunTables) -> str:
    """One table of claims for each metric; the page's script turns them into tabs."""
    metrics = [] if run.claims.empty else list(dict.fromkeys(run.claims["metric"]))
    claims = {metric: claims_on(run.claims, metric) for metric in metrics}
    families = list(run.claims["controls"].dropna()) if "controls" in run.claims else []
    return render(
        "claims.html",
        panels=[_panel(run, own, metric) for metric, own in claims.items() if len(own)],
        missing=run.claims.empty,
        family=families[0] if families else "",
        matched_by=matched_by(run.summary),
        families=families_table(run),
        sides=run.sides,
        labels=run.label_texts,
        verdicts=(PASSES, FAILS),
    )


def _panel(run: RunTables, own: pd.DataFrame, metric: str) -> dict[str, Any]:
    return {
        "metric": metric,
        "sentence": _count_sentence(run, own, metric),
        "signs": "sign_rate" in own.dropna(axis="columns", how="all"),
        "places": decimals([*own["effect"], *own["control_quantile"]]),
        "rows": own.to_dict("records"),
    }


def _count_sentence(run: RunTables, own: pd.DataFrame, metric: str) -> str:
    more, null = (list(own["verdict"]).count(v) for v in (PASSES, FAILS))
    untested, total = len(own) - more - null, len(set(run.claims["direction"]))
    who = f"{len(own)} of {total} candidates were measured. " if len(own) < total else ""
    k = short(int(max(own["n_controls"])))
    if untested == len(own):
        least = short(least_controls(len(own)))
        return f"{who}Not testable with {k} controls: {len(own)} directions need at least {least}."
    rest = f", and {untested} cannot be tested" if untested else ""
    label, judged = name_label(metric), f"(q < 0.05, {k} controls)"
    return f"{who}{more} of {len(own)} move {label} more than random directions do {judged}{rest}."


def dose_section(run: RunTables) -> str:
    """The dose-response and the distribution of T for each logit metric."""
    families, sets, kind = control_counts(compared(run.summary, run.claims))
    return render(
        "dose.html",
        figures=[(metric, *_dose_figures(run, metric)) for metric in run.logit_metrics],
        matched_by=matched_by(run.summary),
        banded=bool(families),
        several=kind if families and sets > 1 else "",
    )


def _dose_figures(run: RunTables, metric: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Effects against α, and each candidate's T beside the controls' if there are controls."""
    about = {"claims": run.claims, "sides": run.sides, "labels": run.label_texts}
    dose = chart(f"dose-{slug(metric)}", interference_figure(run.summary, metric, **about))
    if not (len(claims_on(run.claims, metric)) and len(controls(run.summary))):
        return dose, None
    plot = claims_figure(run.claims, run.summary, metric, sides=run.sides)
    return dose, chart(f"reach-{slug(metric)}", plot)


def rates_section(run: RunTables) -> str:
    """Small panels, one per metric of completions, under one legend."""
    charts = []
    for metric in run.text_metrics:
        plot = validity_figure(run.summary, [metric], sides=run.sides)
        plot.layout.annotations = ()
        plot.update_layout(showlegend=False, height=236, margin={"l": 48, "r": 10, "b": 48})
        plot.update_layout(title_text=f"{name_label(metric)} against α")
        charts.append((name_label(metric), chart(f"rate-{slug(metric)}", plot)))
    shown = with_texts(run.summary, run.text_metrics)
    looks = {d: look["line"] for d, look in rate_styles(shown, run.sides).items()}
    return render("rates.html", charts=charts, looks=looks, sides=run.sides, labels=run.label_texts)
