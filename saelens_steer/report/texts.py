"""Texts side by side: completions of the sweep, and edits compared."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pandas as pd

from saelens_steer.report.markup import TableCell, details, esc, note, script_json, section, table
from saelens_steer.report.run_folder import RunTables, claims_on, metric_names
from saelens_steer.report.theme import decimals, direction_label, name_label, number, quoted, short
from saelens_steer.steering import CANDIDATE

FENCE = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)(?:^[ \t]*```[ \t]*(?:\n|\Z)|\Z)", re.M | re.S)
BUDGET = 1_500_000
"""Characters of completions that the page holds; the rest stay in completions.jsonl."""
BADGES = {"valid": "good", "invalid": "bad", "truncated": "warn", "absent": "quiet"}
ORIGINAL = "original"
SHOWN, OPEN = 40, 2
"""Prompts of compared edits that the page holds, and how many of them are unfolded."""
PANES = """
<noscript><p class="note">Choosing needs JavaScript; see completions.jsonl.</p></noscript>
<blockquote id="prompt-text" class="needs-script"></blockquote>
<div class="panes needs-script" aria-live="polite">
  <div class="pane"><h3>Unsteered</h3><div id="pane-unsteered"></div></div>
  <div class="pane"><h3 id="steered-title">Steered</h3><div id="pane-steered"></div></div>
</div>
"""


def completions_section(run: RunTables) -> str:
    """Pick a prompt, a direction and a strength; unsteered beside steered."""
    title = "Completions side by side"
    if not any(record.get("alpha") for record in run.completions):
        return section("texts", title, "", note("This run wrote no steered completions."))
    data = completions_data(run)
    n_left = len({r["prompt_id"] for r in run.completions}) - len(data["prompts"])
    left = f" {n_left} more prompts are in completions.jsonl." if n_left else ""
    lead = f"What the model writes, without and with steering. {differing(data)}{left}"
    prompt, direction, alpha = opening(data)
    selects = (
        _select("prompt", "Prompt", data["prompts"], prompt)
        + _select("direction", "Direction", data["directions"], direction)
        + _select("alpha", "Strength", data["alphas"], alpha)
    )
    choosers = f'<div class="choosers needs-script">{selects}</div>'
    return section("texts", title, lead, choosers, PANES, script_json("completions-data", data))


def _select(name: str, label: str, options: list[dict[str, Any]], chosen: int) -> str:
    inner = "".join(
        f'<option value="{i}"{" selected" if i == chosen else ""}>{esc(option["label"])}</option>'
        for i, option in enumerate(options)
    )
    return f'<label class="{name}">{esc(label)}<select id="choose-{name}">{inner}</select></label>'


def completions_data(run: RunTables) -> dict[str, Any]:
    """Prompts, directions, strengths, and the texts at `prompt|direction|alpha`, as indices."""
    prompts = _prompts_within_budget(run.completions)
    records = [r for r in run.completions if r["prompt_id"] in prompts]
    steered = [r for r in records if r.get("alpha")]
    directions = _ordered_directions(run, steered)
    alphas = sorted({r["alpha"] for r in steered})
    prompt_index = {p: i for i, p in enumerate(prompts)}
    direction_index = {d: i for i, d in enumerate(directions)}
    texts: dict[str, list[dict[str, Any]]] = {}
    for r in steered:
        place = direction_index[r["direction"]], alphas.index(r["alpha"])
        key = "|".join(map(str, (prompt_index[r["prompt_id"]], *place)))
        texts.setdefault(key, []).append(_shown(r))
    unsteered: dict[str, dict[Any, dict[str, Any]]] = {}
    for r in records:
        if not r.get("alpha"):
            samples = unsteered.setdefault(str(prompt_index[r["prompt_id"]]), {})
            samples.setdefault(r.get("sample", 0), _shown(r))
    return {
        "prompts": [_prompt_option(r) for r in prompts.values()],
        "directions": [_direction_option(d, family, run) for d, family in directions.items()],
        "alphas": [{"value": a, "label": f"α = {short(a)}"} for a in alphas],
        "unsteered": {prompt: list(samples.values()) for prompt, samples in unsteered.items()},
        "texts": texts,
    }


def differing(data: dict[str, Any]) -> str:
    """How many steered texts are not the unsteered one, in a sentence."""
    changed = sum(_differs(data, key) for key in data["texts"])
    return f"{changed} of {len(data['texts'])} steered texts differ from the unsteered one."


def opening(data: dict[str, Any]) -> tuple[int, int, int]:
    """The prompt, direction and strength shown first: the strongest push that changed a text."""
    alphas = data["alphas"]

    def order(place: tuple[int, ...]) -> tuple[int, float, int]:
        prompt, direction, alpha = place
        return direction, -abs(alphas[alpha]["value"]), prompt

    changed = (tuple(map(int, key.split("|"))) for key in data["texts"] if _differs(data, key))
    prompt, direction, alpha = min(changed, key=order, default=(0, 0, len(alphas) - 1))
    return prompt, direction, alpha


def _differs(data: dict[str, Any], key: str) -> bool:
    plain = data["unsteered"].get(key.split("|")[0], [])
    return [t["parts"] for t in data["texts"][key]] != [t["parts"] for t in plain]


def _prompts_within_budget(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Prompt id → its first record, for the first prompts that fit in the page together."""
    sizes: dict[str, int] = {}
    first: dict[str, dict[str, Any]] = {}
    for record in records:
        prompt = record["prompt_id"]
        first.setdefault(prompt, record)
        sizes[prompt] = sizes.get(prompt, 0) + len(json.dumps(record.get("completion", ""))) + 200
    totals = list(itertools.accumulate(sizes.values()))
    n_fitting = sum(total <= BUDGET for total in totals)
    return dict(itertools.islice(first.items(), max(1, n_fitting)))


def _ordered_directions(run: RunTables, records: list[dict[str, Any]]) -> dict[str, str]:
    """Direction → family: the one that moves the first metric most comes first, controls last."""
    families = {str(r["direction"]): str(r.get("family", CANDIDATE)) for r in records}
    main = metric_names(run.summary)[0]
    rank = list(claims_on(run.claims, main)["direction"]) if len(run.claims) else []
    place = {d: i for i, d in reversed(list(enumerate(rank)))}
    order = sorted(families, key=lambda d: (families[d] != CANDIDATE, place.get(d, len(rank))))
    return {d: families[d] for d in order}


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """One completion as the page's script draws it."""
    marks = [
        [name_label(k), v, BADGES[v]]
        for k, v in record.items()
        if isinstance(v, str) and v in BADGES and k not in ("completion", "prompt")
    ]
    return {
        "parts": segments(str(record.get("completion", ""))),
        "badges": marks,
        "length": _length(record) if record.get("n_tokens") is not None else "",
    }


def segments(text: str) -> list[list[str]]:
    """Text cut at its code fences: pairs of kind (text or code) and content."""
    parts, end = [], 0
    for match in FENCE.finditer(text):
        parts += [["text", text[end : match.start()].strip("\n")], ["code", match[2].rstrip("\n")]]
        end = match.end()
    parts.append(["text", text[end:].strip("\n")])
    return [part for part in parts if part[1].strip()]


def _length(record: dict[str, Any]) -> str:
    cut = ", cut at the token limit" if record.get("truncated") else ""
    return f"{short(record['n_tokens'])} tokens{cut}"


def _prompt_option(record: dict[str, Any]) -> dict[str, str]:
    text = str(record.get("prompt", record["prompt_id"]))
    return {"label": _brief(text, 80), "text": text, "domain": str(record.get("domain", ""))}


def _brief(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _direction_option(direction: str, family: str, run: RunTables) -> dict[str, str]:
    role = run.sides.get(direction, "candidate") if family == CANDIDATE else "control"
    said = quoted(run.label_texts.get(direction, ""))
    return {"label": f"{direction_label(direction)} ({role}) {said}".rstrip()}


def edits_section(run: RunTables) -> str:
    """What each variant of the model writes and by how much its logits moved; empty without any."""
    if run.compared_edits.empty:
        return ""
    lead = (
        "The same prompts through the model as it is and through each variant of it. These texts "
        "are examples; whether an effect is more than random is what the claims say."
    )
    edits = run.compared_edits.assign(completion=run.compared_edits["completion"].fillna(""))
    groups = [own.to_dict("records") for _, own in edits.groupby("prompt_id", sort=False)]
    shown = [_prompt_block(rows, i < OPEN) for i, rows in enumerate(groups[:SHOWN])]
    more = len(groups) - len(shown)
    rest = note(f"{more} more prompts are in compare_edits.csv.") if more else ""
    return section("patches", "Patched outputs", lead, _variants_table(edits), *shown, rest)


def _variants_table(edits: Any) -> str:
    after_texts = list(edits.columns)[list(edits.columns).index("n_tokens") + 1 :]
    metrics = [c for c in after_texts if not c.startswith("receipt_") and edits[c].notna().any()]
    places = {m: decimals([*edits.groupby("variant")[m].mean()]) for m in metrics}
    groups = [(str(name), rows) for name, rows in edits.groupby("variant", sort=False)]
    original = groups[0][1]
    rows = []
    for name, own in groups:
        cells = _variant_cells(name, own, original)
        for metric in metrics:
            value, before = float(own[metric].mean()), float(original[metric].mean())
            text = number(value, places[metric])
            if own is not original:
                text += f" <small>({number(value - before, places[metric], signed=True)})</small>"
            cells.append(TableCell(text, value))
        rows.append(cells)
    headers = ["Variant", "Texts changed", "‖Δx‖/‖x‖", "Feature activation"]
    return table("Variants", [*headers, *map(name_label, metrics)], rows, sort=False)


def _variant_cells(name: str, own: Any, original: Any) -> list[TableCell]:
    changed = int((own["completion"].to_numpy() != original["completion"].to_numpy()).sum())
    before, after = own["receipt_act_before"].mean(), own["receipt_act"].mean()
    acts = "–" if pd.isna(before) else f"{number(before, 2)} → {number(after, 2)}"
    norm = float(own["receipt_rel_norm"].mean())
    edits = "" if name == ORIGINAL else str(own["edits"].iloc[0])
    below = f"<small><code>{esc(edits)}</code></small>" if edits else ""
    return [
        TableCell(f"<b>{esc(name)}</b>{below}"),
        TableCell(f"{changed} of {len(own)}" if edits else "–", float(changed)),
        TableCell(number(norm, 3), norm),
        TableCell(acts, float(after)),
    ]


def _prompt_block(rows: list[dict[str, Any]], opened: bool) -> str:
    text, panes = str(rows[0]["prompt"]), ""
    for row in rows:
        same = row["variant"] != ORIGINAL and row["completion"] == rows[0]["completion"]
        under = note(f"{_length(row)}{'; as the original' if same else ''}")
        title = f"<h3>{esc(row['variant'])}</h3>"
        panes += f'<div class="pane">{title}{_said(str(row["completion"]))}{under}</div>'
    asked = f"<blockquote>{esc(text)}</blockquote>"
    return details(_brief(text, 100), f'{asked}<div class="panes many">{panes}</div>', opened)


def _said(text: str) -> str:
    """Text with its code blocks set apart."""
    kinds = {"code": "<pre><code>{}</code></pre>", "text": '<p class="said">{}</p>'}
    parts = "".join(kinds[kind].format(esc(part)) for kind, part in segments(text))
    return parts or "<p>(empty)</p>"
