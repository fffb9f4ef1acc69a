"""What the mixed family is about: the same fact as a formula and as a function."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """A fact in words, in LaTeX and in Python; `weight` is its small pull towards LaTeX first."""

    key: str
    """A phrase that is in this topic's prompts and in no other's."""
    weight: float
    words: str
    latex: str
    name: str
    arguments: str
    result: str


def _topic(weight: float, words: str, latex: str, name: str, arguments: str, result: str) -> Topic:
    return Topic(words.split("<")[0].lower(), weight, words, latex, name, arguments, result)


TOPICS = (
    _topic(0.2, "the area of a circle of radius <x>",
           r"A = \pi <x>^{2}", "circle_area", "<x>", "3.14 * <x> ** 2"),
    _topic(0.0, "the area of a square of side <x>", r"A = <x>^{2}", "square_area", "<x>",
           "<x> ** 2"),
    _topic(-0.1, "the area of a box <x> by <y>", r"A = <x> \cdot <y>", "box_area", "<x>, <y>",
           "<x> * <y>"),
    _topic(0.3, "the long side over <x> and <y>", r"c = \sqrt{<x>^{2} + <y>^{2}}",
           "long_side", "<x>, <y>", "(<x> ** 2 + <y> ** 2) ** 0.5"),
    _topic(0.1, "the volume of a cube of side <x>", r"V = <x>^{3}", "cube_volume", "<x>",
           "<x> ** 3"),
    _topic(0.3, "the volume of a ball of radius <x>", r"V = \frac{4}{3} \pi <x>^{3}",
           "ball_volume", "<x>", "4 / 3 * 3.14 * <x> ** 3"),
    _topic(-0.3, "the mean of <x> and <y>", r"\frac{<x> + <y>}{2}", "mean", "<x>, <y>",
           "(<x> + <y>) / 2"),
    _topic(-0.4, "the average of a list <x>", r"\frac{1}{n} \sum_{i=1}^{n} <x>_{i}", "list_mean",
           "<x>", "sum(<x>) / len(<x>)"),
    _topic(-0.3, "the sum of a list <x>", r"\sum_{i=1}^{n} <x>_{i}", "list_sum", "<x>",
           "sum(<x>)"),
    _topic(0.1, "the sum of the first <x> numbers", r"\frac{<x> (<x> + 1)}{2}", "first_sum", "<x>",
           "<x> * (<x> + 1) // 2"),
    _topic(0.0, "the sum of squares up to <x>", r"\sum_{i=1}^{<x>} i^{2}", "square_sum", "<x>",
           "sum(i ** 2 for i in range(<x> + 1))"),
    _topic(0.2, "the sum of powers of 2 up to <x>", r"\sum_{i=0}^{<x>} 2^{i}", "power_sum", "<x>",
           "sum(2 ** i for i in range(<x> + 1))"),
    _topic(0.4, "the slope through <x> and <y>", r"\frac{\Delta <y>}{\Delta <x>}", "slope",
           "<x>, <y>", "(<y>[1] - <y>[0]) / (<x>[1] - <x>[0])"),
    _topic(0.0, "the distance of <x> and <y>", r"\left| <x> - <y> \right|", "distance",
           "<x>, <y>", "abs(<x> - <y>)"),
    _topic(-0.1, "the speed over length <x> and time <y>", r"\frac{<x>}{<y>}", "speed",
           "<x>, <y>", "<x> / <y>"),
    _topic(0.4, "the force on mass <x> with change <y>", r"F = <x> \cdot <y>", "force",
           "<x>, <y>", "<x> * <y>"),
    _topic(0.4, "the energy of mass <x> at speed <y>", r"E = \frac{1}{2} <x> <y>^{2}", "energy",
           "<x>, <y>", "0.5 * <x> * <y> ** 2"),
    _topic(-0.4, "the step from <x> degrees to heat", r"F = \frac{9}{5} <x> + 32", "to_heat",
           "<x>", "9 / 5 * <x> + 32"),
    _topic(-0.3, "the price <x> with rate <y>", r"P = <x> (1 + <y>)", "price", "<x>, <y>",
           "<x> * (1 + <y>)"),
    _topic(-0.1, "the growth of <x> over <y> years", r"<x> (1.05)^{<y>}", "growth", "<x>, <y>",
           "<x> * 1.05 ** <y>"),
    _topic(0.3, "the product of all numbers to <x>", r"<x>! = \prod_{i=1}^{<x>} i", "factorial",
           "<x>", "1 if <x> < 2 else <x> * factorial(<x> - 1)"),
    _topic(-0.2, "the largest of <x> and <y>", r"\max(<x>, <y>)", "largest", "<x>, <y>",
           "max(<x>, <y>)"),
    _topic(-0.2, "the smallest of <x> and <y>", r"\min(<x>, <y>)", "smallest", "<x>, <y>",
           "min(<x>, <y>)"),
    _topic(-0.4, "the rest of <x> divided by <y>", r"<x> \bmod <y>", "rest", "<x>, <y>",
           "<x> % <y>"),
    _topic(0.0, "the power <x> to the <y>", r"<x>^{<y>}", "power", "<x>, <y>", "<x> ** <y>"),
    _topic(0.2, "the square root of <x>", r"\sqrt{<x>}", "root", "<x>", "<x> ** 0.5"),
    _topic(0.1, "the inverse of <x>", r"<x>^{-1} = \frac{1}{<x>}", "inverse", "<x>", "1 / <x>"),
    _topic(0.4, "the sigmoid of <x>", r"\sigma(<x>) = \frac{1}{1 + e^{-<x>}}", "sigmoid", "<x>",
           "1 / (1 + 2.718 ** -<x>)"),
    _topic(-0.2, "the positive part of <x>", r"\max(0, <x>)", "positive", "<x>", "max(0, <x>)"),
    _topic(0.3, "the dot product of <x> and <y>", r"\sum_{i} <x>_{i} <y>_{i}", "dot", "<x>, <y>",
           "sum(a * b for a, b in zip(<x>, <y>))"),
    _topic(0.3, "the norm of a vector <x>", r"\sqrt{\sum_{i} <x>_{i}^{2}}", "norm", "<x>",
           "sum(i ** 2 for i in <x>) ** 0.5"),
    _topic(0.1, "the wave of height <x> at <y>", r"<x> \sin(<y>)", "wave", "<x>, <y>",
           "<x> * sin(<y>)"),
    _topic(0.2, "the line with slope <x> at <y>", r"f(<y>) = <x> <y> + 1", "line", "<x>, <y>",
           "<x> * <y> + 1"),
    _topic(-0.1, "the share of <x> in <y>", r"100 \cdot \frac{<x>}{<y>}", "share", "<x>, <y>",
           "100 * <x> / <y>"),
    _topic(-0.2, "the double of <x>", r"2 <x>", "double", "<x>", "2 * <x>"),
    _topic(0.0, "the difference of squares <x> and <y>", r"<x>^{2} - <y>^{2}", "difference",
           "<x>, <y>", "<x> ** 2 - <y> ** 2"),
)  # fmt: skip
