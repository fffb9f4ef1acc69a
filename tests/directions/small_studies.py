"""Few prompts of the shipped model, and a study of them."""

HOOK = "blocks.4.hook_resid_pre"


def selecting(n):
    """The first n selection prompts of each domain."""
    from saelens_steer.data import load_prompts

    by_domain = {}
    for prompt in load_prompts("tiny-domains"):
        by_domain.setdefault(prompt.domain, []).append(prompt)
    return [prompt for own in by_domain.values() for prompt in own[:n]]


def study_of(model, prompts, sae=None, **sweep):
    """A study with the default metrics and the validity of code, without controls."""
    from saelens_steer.config import PromptSpec, RunSpec, SweepSpec
    from saelens_steer.sweeps import Measurement

    spec = SweepSpec(**{"n_controls": 0, **sweep})
    metrics = (*RunSpec().metrics, "code_validity")
    return Measurement(model, sae, HOOK, tuple(prompts), spec, metrics, PromptSpec())
