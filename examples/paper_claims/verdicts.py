"""From the numbers of several seeds to a verdict, by a rule that is the same for every claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .measures import AtLeast, AtMost

FEWEST = 3  # seeds for a verdict
# Student's t, two-sided 95 %, by degrees of freedom (Student 1908, "The probable error of a mean").
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
T95_OF_MANY = 2.262  # of more: a little too wide, which flatters nothing

BOUNDS = {AtLeast: "at least ", AtMost: "at most "}
REPRODUCED, WEAKER, NOT_SEEN, NONE = "reproduced", "weaker", "not seen at this scale", "no verdict"

RULE = f"""\
The rule is the same for every line. Each seed gives one number, of a pair of runs that differ in one thing. Of at least
{FEWEST} seeds come the mean and its 95 % interval (Student's t: with three seeds, 4.3 standard errors to each side).
**null** is what the number would be if the thing made no difference: 0 for points, 1 for factors.

- **{REPRODUCED}**: the whole interval lies beyond null on the claimed side, and the mean shows at least half of the
  effect that the paper reports, where it gives a number;
- **{WEAKER}**: the whole interval does, but the mean shows less than half of it; or the interval reaches null, but
  every single seed lies on the claimed side (by chance one line in eight would, with three seeds);
- **{NOT_SEEN}**: all else. Where the whole interval lies on the other side, that is said."""


@dataclass(frozen=True)
class Verdict:
    """values: one a seed.  half: of the 95 % interval, mean - half to mean + half; nan with fewer than two seeds."""

    word: str
    values: tuple[float, ...]
    mean: float
    half: float
    opposite: bool = False  # the whole interval lies on the other side

    @property
    def bound(self) -> str:
        """What to say before the mean where some of the values are bounds."""
        kinds = {type(value) for value in self.values} & set(BOUNDS)
        return "" if not kinds else BOUNDS[kinds.pop()] if len(kinds) == 1 else "roughly "


def interval(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half of the 95 % interval of the mean) of numbers; half is nan for fewer than two."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, math.nan
    t = T95[n - 2] if n - 2 < len(T95) else T95_OF_MANY
    return mean, t * float(np.std(values, ddof=1)) / math.sqrt(n)


def judge(values: Sequence[float], null: float = 0.0, paper: float | None = None) -> Verdict:
    """The verdict on numbers that the claim says lie above null.  paper: the number that it reports, above null."""
    if not values:
        return Verdict(NONE, (), math.nan, math.nan)
    mean, half = interval(values)
    opposite = False
    if len(values) < FEWEST:
        word = NONE
    elif mean - half > null:
        word = REPRODUCED if paper is None or mean - null >= (paper - null) / 2 else WEAKER
    elif min(values) > null:
        word = WEAKER
    else:
        word, opposite = NOT_SEEN, mean + half < null
    return Verdict(word, tuple(values), mean, half, opposite)
