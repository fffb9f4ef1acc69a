"""measure_comparison.py and tabulate_comparison.py: each number against a plain computation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_studies import HOOK, study_of

from saelens_steer.config import CompareDirectionsSpec, TemplateSpec
from saelens_steer.data import Prompt, PromptReader, load_prompts
from saelens_steer.directions import ComparisonInputs, comparison_rows
from saelens_steer.errors import InputError
from saelens_steer.evidence import comparison_table
from saelens_steer.metrics import kl
from saelens_steer.model import last_token_logits
from saelens_steer.steering import add, steered

SPEC = CompareDirectionsSpec(
    methods=("mean_difference@answer", "direct_logit", "linear_probe"),
    k=2,
    norm=0.25,
    kl=0.05,
    ask={"math": "Give the formula first."},
)


@pytest.fixture(scope="module")
def job(tiny_model, find):
    prompts = load_prompts("tiny-code-math-mixed", 5)
    signs = {"code": find.scoring.outcome_sign, "math": -find.scoring.outcome_sign}
    return ComparisonInputs(study_of(tiny_model, prompts), SPEC, find.scale, signs)


@pytest.fixture(scope="module")
def found_directions(find):
    return [found for method in SPEC.methods for found in find.directions_by(method, SPEC.k)]


@pytest.fixture(scope="module")
def rows(job, found_directions):
    return comparison_rows(job, found_directions)


def margins(job, prompts, vector=None):
    measurement = replace(job.measurement, prompts=tuple(prompts))
    tokens, mask = measurement.unsteered_pass.padded
    if vector is None:
        return last_token_logits(measurement.model, tokens, mask)
    with steered(measurement.model, add(vector), HOOK, mask):
        return last_token_logits(measurement.model, tokens, mask)


@pytest.mark.parametrize("template", [TemplateSpec(), TemplateSpec(chat=True)])
def test_words_that_ask_are_the_users_or_are_refused(job, template):
    (prompt, *_) = job.measurement.prompts
    asking = lambda *prompts: replace(  # noqa: E731
        job.measurement, prompts=prompts, template=template
    ).asking("Be brief.")
    written = PromptReader(job.measurement.model.tokenizer, TemplateSpec()).text(prompt)
    head = "".join(job.measurement.model.tokenizer.decode(asking(prompt).ids[0]))
    assert head == written.replace(prompt.text, f"{prompt.text} Be brief.")
    assert asking(Prompt("1", "Add two.")).prompts[0].text == "Add two. Be brief."
    with pytest.raises(InputError, match=r"'1' already contains the chat template.*messages"):
        asking(prompt, Prompt("1", written))


def test_an_effect_is_the_shift_of_the_outcome_towards_the_side(job, found_directions, rows):
    found = next(r for r in found_directions if r.method == "direct_logit" and r.side == "code")
    before = margins(job, job.measurement.prompts)
    after = margins(
        job, job.measurement.prompts, SPEC.norm * job.scale.resid_norm * found.vectors[0]
    )
    want = job.signs["code"] * (
        job.measurement.outcome.of(after, baseline=after)
        - job.measurement.outcome.of(before, baseline=before)
    )
    own = rows.query(
        "method == 'direct_logit' and side == 'code' and equal == 'norm' and rank == 1"
    )
    torch.testing.assert_close(
        torch.tensor(own["effect"].to_numpy()), want.double(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        torch.tensor(own["kl"].to_numpy()),
        kl(after, baseline=before).double(),
        atol=1e-5,
        rtol=1e-3,
    )


def test_at_equal_kl_every_direction_disturbs_alike(rows):
    means = rows[rows["equal"] == "kl"].groupby(["side", "direction"])["kl"].mean()
    assert np.allclose(means, SPEC.kl, rtol=0.021)


def test_asking_is_the_prompt_with_the_words_behind_it(job, rows):
    words = SPEC.ask["math"]
    asked = [
        replace(p, text="", messages=[{"role": "user", "content": f"{p.text} {words}"}])
        for p in job.measurement.prompts
    ]
    before, after = margins(job, job.measurement.prompts), margins(job, asked)
    want = job.signs["math"] * (
        job.measurement.outcome.of(after, baseline=after)
        - job.measurement.outcome.of(before, baseline=before)
    )
    own = rows[rows["method"] == "asking"]
    torch.testing.assert_close(
        torch.tensor(own["effect"].to_numpy()), want.double(), atol=1e-4, rtol=0
    )


def test_a_reference_pushes_towards_each_side_in_opposite_directions(found_directions):
    code, math = (r.vectors[0] for r in found_directions if r.method == "linear_probe")
    assert torch.allclose(code, -math, atol=1e-4)


def test_the_table_holds_means_and_both_sides_weigh_the_same(rows):
    table = comparison_table(rows, SPEC.baseline).set_index(["method", "side", "equal"])
    own = rows.query("method == 'direct_logit' and equal == 'norm'")
    by_side = own.groupby("side")["effect"].mean()
    assert table.loc[("direct_logit", "code", "norm"), "effect"] == pytest.approx(by_side["code"])
    assert table.loc[("direct_logit", "both", "norm"), "effect"] == pytest.approx(by_side.mean())


def test_the_baseline_is_once_itself_and_differs_from_itself_by_nothing(rows):
    table = comparison_table(rows, SPEC.baseline)
    own = table[table["method"] == SPEC.baseline]
    assert np.allclose(own["difference"], 0)
    assert np.allclose(own["ratio"].dropna(), 1)


def test_a_ratio_to_nothing_is_missing_and_the_difference_is_not(rows):
    rows = rows.assign(effect=rows["effect"].where(rows["method"] != SPEC.baseline, -0.1))
    table = comparison_table(rows, SPEC.baseline)
    own = table[(table["method"] == "direct_logit") & (table["equal"] == "norm")]
    assert own["ratio"].isna().all()
    assert (own["difference_ci_low"] <= own["difference"]).all()
    assert np.allclose(own["difference"], own["effect"] + 0.1)


def test_attribution_is_a_ceiling_and_no_evidence(rows):
    rows = rows.assign(method=rows["method"].replace("direct_logit", "attribution"))
    kinds = comparison_table(rows, SPEC.baseline).set_index("method")["evidence"]
    assert set(kinds["attribution"]) == {"ceiling"}
    assert set(kinds["linear_probe"]) == {"without SAE"}
