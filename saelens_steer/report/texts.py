"""Texts side by side: completions of the sweep, and edits compared."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd

from saelens_steer.report.markup import TableCell, details, esc, note, script_json, section, table
from saelens_steer.report.run_folder import RunTables, claims_on
from saelens_steer.report.theme import decimals, direction_label, name_label, number, quoted, short
from saelens_steer.steering import CANDIDATE

FENCE = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)(?:^[ \t]*```[ \t]*(?:\n|\Z)|\Z)", re.M | re.S)
BUDGET = 1_500_000
"""So many characters of completions are put in the page; the rest stay in completions.jsonl."""
BADGES = {"valid": "good", "invalid": "bad", "truncated": "warn", "absent": "quiet"}


def completions_section(run: RunTables) -> str:
    """Pick a prompt, a direction and a strength; unsteered beside steered."""
    if not any(record.get("alpha") for record in run.completions):
        return section(
            "texts", "Completions side by side", "", note("This run wrote no steered completions.")
        )
    data = completions_data(run)
    n_left = len({r["prompt_id"] for r in run.completions}) - len(data["prompts"])
    left = f" {n_left} more prompts are in completions.jsonl." if n_left else ""
    lead = f"What the model writes, without and with steering. {differing(data)}{left}"
    script = script_json("completions-data", data)
    return section("texts", "Completions side by side", lead, _controls(data), _PANES, script)


def completions_data(run: RunTables) -> dict[str, Any]:
    """Prompts, directions, strengths, and texts keyed by their places: `prompt|direction|alpha`."""
    prompts = _prompts_within_budget(run.completions)
    steered = [r for r in run.completions if r.get("alpha") and r["prompt_id"] in prompts]
    directions = _ordered_directions(run, steered)
    alphas = sorted({r["alpha"] for r in steered})
    keys = {p: i for i, p in enumerate(prompts)}, {d: i for i, d in enumerate(directions)}
    texts: dict[str, list[dict[str, Any]]] = {}
    for r in steered:
        key = f"{keys[0][r['prompt_id']]}|{keys[1][r['direction']]}|{alphas.index(r['alpha'])}"
        texts.setdefault(key, []).append(shown(r))
    return {
        "prompts": [_prompt_json(r) for r in prompts.values()],
        "directions": [_direction_option(d, directions[d], run) for d in directions],
        "alphas": [{"value": a, "label": f"α = {short(a)}"} for a in alphas],
        "unsteered": _unsteered(run.completions, keys[0]),
        "texts": texts,
    }


def differing(data: dict[str, Any]) -> str:
    """How many steered texts are not the unsteered one, in a sentence."""
    changed = sum(_differs(data, key) for key in data["texts"])
    return f"{changed} of {len(data['texts'])} steered texts differ from the unsteered one."


def opening(data: dict[str, Any]) -> tuple[int, int, int]:
    """Prompt, direction and strength to begin with: the strongest push that changed a text."""
    alphas = data["alphas"]

    def order(key: str) -> tuple[int, float, int]:
        prompt, direction, alpha = map(int, key.split("|"))
        return direction, -abs(alphas[alpha]["value"]), prompt

    changed = sorted((key for key in data["texts"] if _differs(data, key)), key=order)
    first = changed[0] if changed else f"0|0|{len(alphas) - 1}"
    prompt, direction, alpha = map(int, first.split("|"))
    return prompt, direction, alpha


def _differs(data: dict[str, Any], key: str) -> bool:
    plain = data["unsteered"].get(key.split("|")[0], [])
    return [t["parts"] for t in data["texts"][key]] != [t["parts"] for t in plain]


def _prompts_within_budget(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Prompt id → its first record, for as many prompts as fit in the page."""
    sizes: dict[str, int] = {}
    first: dict[str, dict[str, Any]] = {}
    for record in records:
        prompt = record["prompt_id"]
        first.setdefault(prompt, record)
        sizes[prompt] = sizes.get(prompt, 0) + len(json.dumps(record.get("completion", ""))) + 200
    kept: dict[str, dict[str, Any]] = {}
    for prompt, size in sizes.items():
        if kept and sum(sizes[p] for p in kept) + size > BUDGET:
            break
        kept[prompt] = first[prompt]
    return kept


def _ordered_directions(run: RunTables, records: list[dict[str, Any]]) -> dict[str, str]:
    """Direction → family: the one that moves the first metric most comes first, controls last."""
    families = {str(r["direction"]): str(r.get("family", CANDIDATE)) for r in records}
    rank = list(claims_on(run.claims, run.metrics[0])["direction"]) if len(run.claims) else []
    place = {d: i for i, d in reversed(list(enumerate(rank)))}
    order = sorted(families, key=lambda d: (families[d] != CANDIDATE, place.get(d, len(rank))))
    return {d: families[d] for d in order}


def _unsteered(
    records: list[dict[str, Any]], place: dict[str, int]
) -> dict[str, list[dict[str, Any]]]:
    """The completions at α = 0, once for each prompt and sample."""
    found: dict[str, dict[Any, dict[str, Any]]] = {}
    for r in records:
        if not r.get("alpha") and r["prompt_id"] in place:
            found.setdefault(str(place[r["prompt_id"]]), {}).setdefault(
                r.get("sample", 0), shown(r)
            )
    return {prompt: list(samples.values()) for prompt, samples in found.items()}


def shown(record: dict[str, Any]) -> dict[str, Any]:
    """One completion as the page's script draws it."""
    marks = [
        [name_label(k), v, BADGES[v]]
        for k, v in record.items()
        if isinstance(v, str) and v in BADGES and k not in ("completion", "prompt")
    ]
    tokens = record.get("n_tokens")
    cut = ", cut at the token limit" if record.get("truncated") else ""
    return {
        "parts": segments(str(record.get("completion", ""))),
        "badges": marks,
        "length": f"{short(tokens)} tokens{cut}" if tokens is not None else "",
    }


def segments(text: str) -> list[list[str]]:
    """Text cut at its code fences: pairs of kind (text or code) and content."""
    parts, end = [], 0
    for match in FENCE.finditer(text):
        parts += [["text", text[end : match.start()].strip("\n")], ["code", match[2].rstrip("\n")]]
        end = match.end()
    parts.append(["text", text[end:].strip("\n")])
    return [part for part in parts if part[1].strip()]


def _prompt_json(record: dict[str, Any]) -> dict[str, str]:
    text = str(record.get("prompt", record["prompt_id"]))
    line = " ".join(text.split())
    brief = line if len(line) <= 80 else line[:79] + "…"
    return {"label": brief, "text": text, "domain": str(record.get("domain", ""))}


def _direction_option(direction: str, family: str, run: RunTables) -> dict[str, str]:
    role = run.sides.get(direction, "candidate") if family == CANDIDATE else "control"
    said = quoted(run.label_texts.get(direction, ""))
    return {"label": f"{direction_label(direction)} ({role}) {said}".rstrip()}


def _controls(data: dict[str, Any]) -> str:
    prompt, direction, alpha = opening(data)
    return (
        '<div class="choosers needs-script">'
        + _select("prompt", "Prompt", data["prompts"], prompt)
        + _select("direction", "Direction", data["directions"], direction)
        + _select("alpha", "Strength", data["alphas"], alpha)
        + "</div>"
    )


def _select(name: str, label: str, options: list[dict[str, Any]], chosen: int) -> str:
    inner = "".join(
        f'<option value="{i}"{" selected" if i == chosen else ""}>{esc(option["label"])}</option>'
        for i, option in enumerate(options)
    )
    return f'<label class="{name}">{esc(label)}<select id="choose-{name}">{inner}</select></label>'


_PANES = """
<noscript><p class="note">Choosing needs JavaScript; see completions.jsonl.</p></noscript>
<blockquote id="prompt-text" class="needs-script"></blockquote>
<div class="panes needs-script" aria-live="polite">
  <div class="pane"><h3>Unsteered</h3><div id="pane-unsteered"></div></div>
  <div class="pane"><h3 id="steered-title">Steered</h3><div id="pane-steered"></div></div>
</div>
"""


ORIGINAL = "original"
SHOWN, OPEN = 40, 2
"""So many prompts are put in the page, and so many of them unfolded."""


def edits_section(run: RunTables) -> str:
    """What each variant of the model writes and by how much its logits moved; empty without any."""
    if run.compared_edits.empty:
        return ""
    lead = (
        "The same prompts through the model as it is and through each variant of it. These texts "
        "are examples; whether an effect is more than random is what the claims say."
    )
    prompts = list(dict.fromkeys(run.compared_edits["prompt_id"]))
    shown = [_prompt_block(run.compared_edits, p, i < OPEN) for i, p in enumerate(prompts[:SHOWN])]
    more = len(prompts) - len(shown)
    rest = f'<p class="note">{more} more prompts are in compare_edits.csv.</p>' if more else ""
    return section("patches", "Patched outputs", lead, _summary(run), *shown, rest)


def _summary(run: RunTables) -> str:
    patches: Any = run.compared_edits
    metrics = [m for m in run.patch_metrics if patches[m].notna().any()]
    places = {m: decimals([*patches.groupby("variant")[m].mean()]) for m in metrics}
    headers = ["Variant", "Texts changed", "‖Δx‖/‖x‖", "Feature activation"]
    groups = [(name, rows) for name, rows in patches.groupby("variant", sort=False)]
    original = groups[0][1]
    rows = [
        [*_about(str(name), own, original), *(_mean(own, m, original, places[m]) for m in metrics)]
        for name, own in groups
    ]
    return table("Variants", [*headers, *map(name_label, metrics)], rows, sort=False)


def _about(name: str, own: Any, original: Any) -> list[TableCell]:
    texts = own["completion"].fillna("").to_numpy() != original["completion"].fillna("").to_numpy()
    changed = int(texts.sum())
    before, after = own["receipt_act_before"].mean(), own["receipt_act"].mean()
    acts = "–" if pd.isna(before) else f"{number(before, 2)} → {number(after, 2)}"
    norm = float(own["receipt_rel_norm"].mean())
    edits = "" if name == ORIGINAL else str(own["edits"].iloc[0])
    return [
        TableCell(
            f"<b>{esc(name)}</b>" + (f"<small><code>{esc(edits)}</code></small>" if edits else "")
        ),
        TableCell(f"{changed} of {len(own)}" if edits else "–", float(changed)),
        TableCell(number(norm, 3), norm),
        TableCell(acts, float(after)),
    ]


def _mean(own: Any, metric: str, original: Any, places: int) -> TableCell:
    value = float(own[metric].mean())
    if own is original:
        return TableCell(number(value, places), value)
    delta = value - float(original[metric].mean())
    return TableCell(
        f"{number(value, places)} <small>({number(delta, places, signed=True)})</small>", value
    )


def _prompt_block(patches: Any, prompt_id: str, opened: bool) -> str:
    own = patches[patches["prompt_id"] == prompt_id].to_dict("records")
    text = str(own[0]["prompt"])
    line = " ".join(text.split())
    brief = line if len(line) <= 100 else line[:99] + "…"
    panes = "".join(_pane(row, _said(own[0])) for row in own)
    asked = f"<blockquote>{esc(text)}</blockquote>"
    return details(brief, f'{asked}<div class="panes many">{panes}</div>', opened)


def _said(row: dict[str, Any]) -> str:
    """The completion; an empty one is missing in a CSV."""
    return "" if pd.isna(row["completion"]) else str(row["completion"])


def _pane(row: dict[str, Any], original: str) -> str:
    text = _said(row)
    same = row["variant"] != ORIGINAL and text == original
    cut = ", cut at the token limit" if row["truncated"] else ""
    under = f"{short(int(row['n_tokens']))} tokens{cut}{'; as the original' if same else ''}"
    return (
        f'<div class="pane"><h3>{esc(row["variant"])}</h3>{_body(text)}'
        f'<p class="note">{esc(under)}</p></div>'
    )


def _body(text: str) -> str:
    """Text with its code blocks set apart."""
    kinds = {"code": "<pre><code>{}</code></pre>", "text": '<p class="said">{}</p>'}
    return (
        "".join(kinds[kind].format(esc(part)) for kind, part in segments(text)) or "<p>(empty)</p>"
    )
