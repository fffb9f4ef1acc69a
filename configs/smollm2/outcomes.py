"""The outcome of the study on texts, named in code_vs_math.yaml."""

from saelens_steer.metrics import latex_validity


def finished_latex(text: str, truncated: bool) -> bool | None:
    """Whether an answer contains LaTeX; None if the token limit cut it, whatever it contains."""
    return None if truncated else latex_validity(text) != "absent"
