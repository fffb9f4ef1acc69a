"""Prompts that ask for code, for mathematics in LaTeX, for both, and for prose."""

from __future__ import annotations

CODE = [
    "Write a Python function that counts the vowels in a word. Put it in a ```python block.",
    "Show me a Python class for a stack with push and pop.",
    "Write Python code that reads a file line by line, in a fenced code block.",
    "How do I sort a list of dictionaries by a key in Python? Give an example.",
    "Write a short Python script that prints the first ten square numbers.",
    "List three steps to set up a Flask app, each step with its own Python code block.",
    "Write a recursive Python function for the factorial and show how to call it.",
    "Give two Python snippets: one with a for loop, one with a while loop.",
    "Show a Python interpreter session that adds two numbers.",
    "Write a Python function to reverse a string, with a docstring.",
    "Write a JavaScript function that doubles a number, then the same in Python.",
    "Write a bash script that renames all text files in a folder.",
    "How do I set an environment variable in bash and read it from Python?",
    "Write a Python decorator that measures time.",
    "Complete this: ```python\ndef is_prime(n):",
    "Explain list comprehensions in Python with a numbered list of examples in code blocks.",
    "Write a Python function that merges two sorted lists.",
    "Write a PHP script that greets a user by name.",
    "Write a Python dictionary of five capitals and print it.",
    "Write a unit test in Python for a function add(a, b).",
    "Write a Python generator of Fibonacci numbers in a code block.",
    "Write one line of Python that sums a list, in a ```py block.",
]
MATH = [
    "State the quadratic formula in LaTeX.",
    "Write the Pythagorean theorem in LaTeX between dollar signs.",
    "Give the derivative of x^3 + 2x, with LaTeX formulas between $ signs.",
    "Write the definition of the derivative as a LaTeX display with $$.",
    "Write a 2 by 2 matrix in LaTeX with pmatrix.",
    r"Solve 2x + 3 = 7 step by step. Use \( and \) for mathematics.",
    r"Write the sum of a geometric series in LaTeX with \[ and \].",
    r"Write two aligned equations in LaTeX with \begin{align}.",
    "Write Bayes' theorem in LaTeX with \\frac.",
    "Integrate x e^x by parts, formulas in LaTeX.",
    r"Write Euler's identity in LaTeX, then explain each symbol with $ signs.",
    "Prove that the sum of two even numbers is even. Use LaTeX for variables.",
    "State the binomial theorem in LaTeX.",
    "Write the Gaussian density in LaTeX with $$ before and after.",
    "Write the limit of sin(x)/x as x goes to 0 in LaTeX.",
    "Write the law of cosines in LaTeX: $$",
    "List three trigonometric identities in LaTeX, each between $ signs.",
    "What is the area of a circle with radius $r$? Answer with one LaTeX formula.",
    r"Write the absolute value of x with \left| and \right| in LaTeX.",
    r"Define a function by cases in LaTeX with \begin{cases}.",
    "Write the Taylor series of $e^x$ in LaTeX.",
    "Write the Cauchy-Schwarz inequality in LaTeX.",
]
BOTH = [
    "Give the formula for compound interest in LaTeX and a Python function for it.",
    "Write the mean of a list as a LaTeX formula with $ signs, then in Python.",
    "Show the quadratic formula in LaTeX and Python code that solves the equation.",
    "Write the Euclidean distance in LaTeX between $$, then a ```python block.",
    "Explain gradient descent: the update rule in LaTeX and a short Python loop.",
    "Write a Python function for the variance and the formula in LaTeX.",
    "Write Newton's method as a formula in LaTeX and as a Python function.",
    r"Write the factorial with \prod in LaTeX and as Python code.",
    "State the sum formula of the first n integers in LaTeX and check it in Python.",
    "Write the logistic function in LaTeX and implement it in Python.",
    "Write the dot product in LaTeX and in Python.",
    "Write a LaTeX document with one equation, in a code block.",
]
PROSE = [
    "How much do apples and bread cost at the market? Use prices in dollars.",
    "Compare two phones, one for $299 and one for $450.",
    "A shirt costs $20 and a hat costs $15. How much do both cost?",
    "Plan a weekly budget of $100 for food.",
    "Explain the variables $HOME and $PATH in a shell.",
    "What does $1 mean in a shell script?",
    "What is the difference between $x and $$x in PHP?",
    "Describe a rainy day in a small town.",
    "Tell a story about a dog that finds a coin.",
    "What is jQuery's $ function?",
    "Who was Ada Lovelace?",
    "Explain in one sentence why the sky is blue.",
    "I paid $5.50 for coffee and $3 for a cookie every day. What is that in a week?",
    "Write an invoice for garden work, with prices.",
]
EXAMPLES = {
    "code": (
        "Add one in Python.",
        "```python\ndef add_one(n):\n    return n + 1\n```",
    ),
    "math": ("State that a square is positive.", "$$x^2 \\ge 0$$ for every real $x$."),
    "both": ("The cube, in LaTeX and Python.", "$$y = x^3$$\n\n```python\ny = x ** 3\n```"),
}
"""One earlier turn by domain, which makes a small model answer in the same form."""
ASKED = {"code": CODE, "math": MATH, "both": BOTH, "prose": PROSE}


Message = dict[str, str]


def conversations(with_example: bool) -> dict[str, list[Message]]:
    """Conversations by name; those with an example begin with a turn that shows the form."""
    found = {}
    for domain, texts in ASKED.items():
        if with_example and domain not in EXAMPLES:
            continue
        for i, text in enumerate(texts):
            turns = [*EXAMPLES[domain], text] if with_example else [text]
            roles = ("user", "assistant", "user")
            name = f"{domain}-{i:02}" + "-example" * with_example
            found[name] = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=False)]
    return found
