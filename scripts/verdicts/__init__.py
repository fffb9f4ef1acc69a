"""The set of real completions on which the verdicts on code and LaTeX are tested.

    python -m scripts.verdicts.generate MODEL OUT           # completions, with and without steering
    python -m scripts.verdicts.reference OUT PANDOC KATEX   # what other parsers make of each
    python -m scripts.verdicts.draw OUT                     # the strata, and what is to be read
    python -m scripts.verdicts.draw OUT FILE                # adds them, with what was decided
    python -m scripts.verdicts.figures                      # the table of the documentation

MODEL is tiny-qwen3 or a folder with SmolLM2-135M-Instruct, PANDOC is the program, KATEX the folder
of node's package.
"""
