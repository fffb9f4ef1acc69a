"""Texts side by side: completions of the sweep and of compared edits."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

from saelens_steer.metrics.code import fences
from saelens_steer.numbers import count, decimals, short
from saelens_steer.report.markup import render
from saelens_steer.report.run_folder import RunTables, claims_on, metric_names
from saelens_steer.report.theme import name_label, quoted
from saelens_steer.steering import CANDIDATE, direction_label

BUDGET = 1_500_000
"""Maximum characters of completions in the page; the rest stay in completions.jsonl."""
BADGES = {"valid": "good", "invalid": "bad", "truncated": "warn", "absent": "quiet"}
ORIGINAL = "original"
EXCERPT, BEFORE_DIFFERENCE = 260, 80
"""Characters of the example at the top of the page, and how many come before the difference."""
SHOWN, OPEN = 40, 2
"""Maximum prompts of compared edits in the page, and how many of them start unfolded."""


def completions_section(run: RunTables) -> str:
    """Unsteered and steered completions of a chosen prompt, direction and strength."""
    if not any(record.get("alpha") for record in run.completions):
        return render("completions.html", data=None)
    data = completions_data(run)
    prompt, direction, alpha = opening(data)
    return render(
        "completions.html",
        data=data,
        changed=changed_texts(run),
        n_left=len({r["prompt_id"] for r in run.completions}) - len(data["prompts"]),
        selects=[
            ("prompt", "Prompt", data["prompts"], prompt),
            ("direction", "Direction", data["directions"], direction),
            ("alpha", "Strength", data["alphas"], alpha),
        ],
    )


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
        prompt, direction = prompt_index[r["prompt_id"]], direction_index[r["direction"]]
        key = f"{prompt}|{direction}|{alphas.index(r['alpha'])}"
        texts.setdefault(key, []).append(_shown(r))
    samples: dict[tuple[int, int], dict[str, Any]] = {}
    for r in records:
        if not r.get("alpha"):
            samples.setdefault((prompt_index[r["prompt_id"]], r.get("sample", 0)), _shown(r))
    unsteered: dict[str, list[dict[str, Any]]] = {}
    for (prompt, _), shown in samples.items():
        unsteered.setdefault(str(prompt), []).append(shown)
    full_texts = [str(r.get("prompt", r["prompt_id"])) for r in prompts.values()]
    return {
        "prompts": [{"label": _brief(text, 80), "text": text} for text in full_texts],
        "directions": [_direction_option(d, family, run) for d, family in directions.items()],
        "alphas": [{"value": a, "label": f"α = {short(a)}"} for a in alphas],
        "unsteered": unsteered,
        "texts": texts,
    }


def changed_texts(run: RunTables) -> dict[str, Any] | None:
    """How many steered texts differ from the unsteered one, and an example; None without any.

    The example is of the direction with the largest claim that changed a text, if possible with the
    sign of its largest effect, at the smallest such |α|.
    """
    plain = {_place(r): r["completion"] for r in run.completions if not r.get("alpha")}
    steered = [r for r in run.completions if r.get("alpha") and _place(r) in plain]
    tested = [r for r in steered if r.get("family", CANDIDATE) == CANDIDATE]
    if not tested:
        return None
    order = list(_ordered_directions(run, tested))
    differ = [r for r in tested if r["completion"] != plain[_place(r)]]
    changed = _share(len(differ), len(tested), " steered texts")
    sentence = f"{changed} {'differs' if len(differ) == 1 else 'differ'} from the unsteered text"
    if random := [r for r in steered if r.get("family", CANDIDATE) != CANDIDATE]:
        n_random = sum(r["completion"] != plain[_place(r)] for r in random)
        do = "does" if n_random == 1 else "do"
        sentence += f"; with random directions, {_share(n_random, len(random))} {do}"
    if not differ:
        return {"sentence": f"{sentence}.", "example": None}
    main = metric_names(run.summary)[0]
    strongest = {} if run.claims.empty else claims_on(run.claims, main).set_index("direction").alpha

    def rank(record: dict[str, Any]) -> tuple[int, bool, float]:
        name, alpha = str(record["direction"]), record["alpha"]
        return order.index(name), bool(strongest.get(name, alpha) * alpha < 0), abs(alpha)

    first = min(differ, key=rank)
    before, after = _from_difference(plain[_place(first)], first["completion"])
    push = f"{direction_label(str(first['direction']))}, α = {short(first['alpha'])}"
    prompt = _brief(str(first.get("prompt", first["prompt_id"])), 160)
    example = {"prompt": prompt, "answers": [("Unsteered", before), (push, after)]}
    return {"sentence": f"{sentence}.", "example": example}


def _place(record: dict[str, Any]) -> tuple[Any, Any]:
    return record["prompt_id"], record.get("sample", 0)


def _share(n: int, of: int, what: str = "") -> str:
    return f"{n:,} of {of:,}{what} ({100 * n / of:.0f} %)"


def _from_difference(before: str, after: str) -> list[str]:
    """Both texts, cut to a few lines around the first character that differs."""
    pairs = enumerate(zip(before, after, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(before), len(after)))
    start = max(0, same - BEFORE_DIFFERENCE)
    return [
        ("…" if start else "") + text[start : start + EXCERPT] + "…" * (len(text) > start + EXCERPT)
        for text in (before, after)
    ]


def opening(data: dict[str, Any]) -> tuple[int, int, int]:
    """The prompt, direction and strength shown first: the strongest push that changed a text."""
    sizes = [abs(alpha["value"]) for alpha in data["alphas"]]

    def order(place: tuple[int, ...]) -> tuple[int, float, int]:
        prompt, direction, alpha = place
        return direction, -sizes[alpha], prompt

    changed = (tuple(map(int, key.split("|"))) for key in data["texts"] if _differs(data, key))
    prompt, direction, alpha = min(changed, key=order, default=(0, 0, len(sizes) - 1))
    return prompt, direction, alpha


def _differs(data: dict[str, Any], key: str) -> bool:
    plain = data["unsteered"].get(key.split("|")[0], [])
    return [t["parts"] for t in data["texts"][key]] != [t["parts"] for t in plain]


def _prompts_within_budget(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Prompt id → its first record, for the first prompts that fit in the page together."""
    sizes: Counter[str] = Counter()
    first: dict[str, dict[str, Any]] = {}
    for record in records:
        first.setdefault(record["prompt_id"], record)
        sizes[record["prompt_id"]] += len(json.dumps(record.get("completion", ""))) + 200
    n_fitting = sum(total <= BUDGET for total in itertools.accumulate(sizes.values()))
    return dict(itertools.islice(first.items(), max(1, n_fitting)))


def _ordered_directions(run: RunTables, records: list[dict[str, Any]]) -> dict[str, str]:
    """Direction → family: the one that moves the first metric most comes first, controls last."""
    families = {str(r["direction"]): str(r.get("family", CANDIDATE)) for r in records}
    main = metric_names(run.summary)[0]
    ranked = list(claims_on(run.claims, main)["direction"]) if len(run.claims) else []
    order = [d for d in dict.fromkeys([*ranked, *families]) if d in families]
    return {d: families[d] for d in sorted(order, key=lambda d: families[d] != CANDIDATE)}


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """One completion as the page's script draws it."""
    judged = {k: v for k, v in record.items() if k not in ("completion", "prompt")}
    return {
        "parts": segments(str(record.get("completion", ""))),
        "badges": [
            [name_label(k), v, BADGES[v]]
            for k, v in judged.items()
            if isinstance(v, str) and v in BADGES
        ],
        "length": _length(record) if record.get("n_tokens") is not None else "",
    }


def segments(text: str) -> list[list[str]]:
    """Text cut at the fences that `code_validity` finds: pairs of kind (text, code) and content."""
    lines, parts, at = text.split("\n"), list[list[str]](), 0
    for fence in fences(text):
        parts += [["text", "\n".join(lines[at : fence.first])], ["code", "\n".join(fence.lines)]]
        at = fence.last + 1
    parts.append(["text", "\n".join(lines[at:])])
    stripped = ([kind, part.strip("\n")] for kind, part in parts)
    return [part for part in stripped if part[1].strip()]


def _length(record: dict[str, Any]) -> str:
    cut = ", cut at the token limit" if record.get("truncated") else ""
    return f"{count(record['n_tokens'], 'token')}{cut}"


def _brief(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _direction_option(direction: str, family: str, run: RunTables) -> dict[str, str]:
    role = run.sides.get(direction, "candidate") if family == CANDIDATE else "control"
    said = quoted(run.label_texts.get(direction, ""))
    return {"label": f"{direction_label(direction)} ({role}) {said}".rstrip()}


def edits_section(run: RunTables) -> str:
    """Texts and metrics of each variant of the model; empty if no edits were compared."""
    if run.compared_edits.empty:
        return ""
    edits: Any = run.compared_edits.assign(completion=run.compared_edits["completion"].fillna(""))
    groups = [own.to_dict("records") for _, own in edits.groupby("prompt_id", sort=False)]
    after_texts = list(edits.columns)[list(edits.columns).index("n_tokens") + 1 :]
    metrics = [c for c in after_texts if not c.startswith("receipt_") and edits[c].notna().any()]
    variants = [(str(name), rows) for name, rows in edits.groupby("variant", sort=False)]
    rows = [_variant(name, own, variants[0][1], metrics) for name, own in variants]
    return render(
        "edits.html",
        variants=rows,
        places={m: decimals(row["means"][m][0] for row in rows) for m in metrics},
        prompts=[_prompt(answers) for answers in groups[:SHOWN]],
        n_opened=OPEN,
        n_left=max(0, len(groups) - SHOWN),
    )


def _variant(name: str, own: Any, original: Any, metrics: list[str]) -> dict[str, Any]:
    """Changes made by a variant: texts, residuals, feature activations, means of metrics."""
    means, before = ({m: float(rows[m].mean()) for m in metrics} for rows in (own, original))
    return {
        "name": name,
        "edits": "" if name == ORIGINAL else str(own["edits"].iloc[0]),
        "changed": int((own["completion"].to_numpy() != original["completion"].to_numpy()).sum()),
        "n": len(own),
        "norm": float(own["receipt_rel_norm"].mean()),
        "before": float(own["receipt_act_before"].mean()),
        "after": float(own["receipt_act"].mean()),
        "means": {
            m: (means[m], None if own is original else means[m] - before[m]) for m in metrics
        },
    }


def _prompt(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A prompt and each variant's completion."""
    first, text = rows[0]["completion"], str(rows[0]["prompt"])
    answers = [
        {
            "variant": row["variant"],
            "parts": segments(str(row["completion"])),
            "length": _length(row),
            "same": row["variant"] != ORIGINAL and row["completion"] == first,
        }
        for row in rows
    ]
    return {"title": _brief(text, 100), "text": text, "answers": answers}
