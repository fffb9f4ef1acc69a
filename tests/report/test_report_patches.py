"""The section of edited outputs: numbers of each variant, and foreign texts as texts."""

from __future__ import annotations

import html

import pandas as pd
import pytest

from saelens_steer.pipeline.outputs import write_compared_edits
from saelens_steer.report import build_report
from saelens_steer.report.page import page
from saelens_steer.report.run_folder import read_run
from saelens_steer.report.texts import SHOWN, edits_section

HOSTILE = "<script>alert(1)</script>"
CODE = "```python\nprint('<b>')\n```\nDone & done."


def patches(texts: dict[str, list[str]], **columns: list[float]) -> pd.DataFrame:
    """Variant → a completion for each prompt."""
    rows = []
    for number in range(len(texts["original"])):
        for name, said in texts.items():
            steered = name != "original"
            rows.append(
                {
                    "prompt_id": f"{number}",
                    "domain": "d",
                    "prompt": f"Prompt {number} {HOSTILE}",
                    "variant": name,
                    "edits": f"ablate[3]:keep {HOSTILE}" if steered else "",
                    "hook_name": "blocks.2.hook_resid_pre" if steered else "",
                    "completion": said[number],
                    "truncated": number == 0,
                    "n_tokens": 3,
                    "kl": 0.25 if steered else 0.0,
                    "math_margin": -1.0 + 2.0 * steered,
                    "receipt_changed": 4 if steered else 0,
                    "receipt_rel_norm": 0.125 if steered else 0.0,
                    "receipt_act_before": 2.0 if steered else float("nan"),
                    "receipt_act": 0.5 if steered else float("nan"),
                }
            )
    return pd.DataFrame(rows).assign(**columns)


def section_of(folder, table: pd.DataFrame) -> str:
    """The section that a run folder with this table gets."""
    write_compared_edits(folder, table)
    return edits_section(read_run(folder))


def test_a_run_without_patches_has_no_such_section(fresh_run):
    assert "Edited outputs" not in page(read_run(fresh_run), "x")


def test_the_section_is_in_the_page_and_its_contents(fresh_run):
    write_compared_edits(fresh_run, patches({"original": ["a"], "v": ["b"]}))
    text = build_report(fresh_run, "x").read_text(encoding="utf-8")
    assert "<h2>Edited outputs</h2>" in text
    assert '<a href="#patches">Edited outputs</a>' in text


def test_foreign_texts_are_shown_as_texts(fresh_run):
    table = patches({"original": [HOSTILE, CODE], f"bad {HOSTILE}": [HOSTILE, HOSTILE]})
    shown = section_of(fresh_run, table)
    assert "<script" not in shown and "<b>'" not in shown
    assert shown.count(html.escape(HOSTILE)) >= 3 + 1 + 2 + 4
    assert "<pre><code>print(&#39;&lt;b&gt;&#39;)</code></pre>" in shown
    assert "Done &amp; done." in shown


def test_each_variant_has_its_numbers_beside_the_originals(fresh_run):
    table = patches({"original": ["a", "b"], "v": ["a", "c"]})
    shown = section_of(fresh_run, table)
    rows = shown.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    assert len(rows) == 2
    assert "<b>original</b>" in rows[0] and "ablate" not in rows[0]
    assert "<b>v</b>" in rows[1] and "ablate[3]:keep" in rows[1]
    for part in ("1 of 2", "0.125", "2.00 → 0.50", "0.250", "1.00 <small>(+2.00)</small>"):
        assert part in rows[1], part
    assert shown.count("as the original") == 1
    assert shown.count("cut at the token limit") == 2


def test_empty_texts_and_texts_that_look_like_nothing_stay_what_they_are(fresh_run):
    table = patches({"original": ["", "None", "007"], "null": ["", "nan", "7"]})
    shown = section_of(fresh_run, table)
    assert shown.count("<p>(empty)</p>") == 2
    assert shown.count("as the original") == 1
    assert "<b>null</b>" in shown and "2 of 3" in shown
    for said in ("None", "nan", "007", "7"):
        assert f'<p class="said">{said}</p>' in shown


def test_a_metric_that_a_variant_lacks_is_a_dash(fresh_run):
    table = patches({"original": ["a"], "v": ["b"]})
    table.loc[table["variant"] == "v", "kl"] = float("nan")
    assert "–" in section_of(fresh_run, table).split("<tbody>")[1].split("</tbody>")[0]
    assert "Kl" not in section_of(fresh_run, table.assign(kl=float("nan")))


@pytest.mark.parametrize("n", (SHOWN, SHOWN + 3))
def test_only_so_many_prompts_are_put_in_the_page(fresh_run, n):
    texts = {"original": [f"a{i}" for i in range(n)], "v": [f"b{i}" for i in range(n)]}
    shown = section_of(fresh_run, patches(texts))
    assert shown.count("<details") == SHOWN
    assert ("3 more prompts are in compare_edits.csv." in shown) == (n > SHOWN)
