"""The set of real completions on which the verdicts of code and LaTeX are tested.

    python -m scripts.verdicts.generate MODEL_FOLDER OUT   # completions, with and without steering
    python -m scripts.verdicts.reference OUT               # what other parsers make of each
    python -m scripts.verdicts.draw OUT                    # the strata, and what is to be read

MODEL_FOLDER holds SmolLM2-135M-Instruct; the reference needs node and its package katex.
"""
