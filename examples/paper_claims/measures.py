"""One number of one seed, from the results of its runs: differences of errors in points, and factors.

Each takes what the two runs of a pair have left, first that of the one as the paper has it.  A claim holds where the
number is above its null: 0 for differences, 1 for factors.  None: these runs cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Result = dict[str, Any]
Measure = Callable[[Result, Result], "float | None"]
EARLY = 20  # steps whose mean loss is looked at
LEFT = 0.95  # of the loss of guessing: below, the loss has left it
SPLITS = 2000  # random halves of the kernels


class AtLeast(float):
    """A number known from below alone: the other run had ended before what it was to show."""


class AtMost(float):
    """A number known from above alone: the run as the paper has it had ended before."""


# ---------------------------------------------------------------- differences in points


def more_error(kind: str) -> Measure:
    """How many points more of this error the other one has at the end; kind: "val_error", "seen_error", ..."""

    def measure(as_paper: Result, other: Result) -> float:
        return 100 * (last(other)[kind] - last(as_paper)[kind])

    return measure


def more_overfitting(as_paper: Result, other: Result) -> float:
    """How many points more its error on what is held out lies above that on training pictures."""
    return 100 * (gap(other) - gap(as_paper))


def gap(result: Result) -> float:
    return last(result)["val_error"] - last(result)["seen_error"]


def last(result: Result) -> dict[str, Any]:
    """The last point of the curve that has a test."""
    return [point for point in result["curve"] if "val_error" in point][-1]


def more_error_at_equal_loss(as_paper: Result, other: Result) -> float | None:
    """The same of the error on what is held out, where both have the same loss on training pictures: the lowest that
    both reach."""
    level = max(lowest(as_paper), lowest(other))
    here, there = (reached(result, "seen_loss", level, "val_error") for result in (as_paper, other))
    return None if here is None or there is None else 100 * (there - here)


def longer_to_equal_loss(as_paper: Result, other: Result) -> float | None:
    """How many times as many epochs the one as the paper has it needs until that loss."""
    level = max(lowest(as_paper), lowest(other))
    here, there = (reached(result, "seen_loss", level, "epoch") for result in (as_paper, other))
    return None if here is None or there is None else here / there


def lowest(result: Result) -> float:
    return min(point["seen_loss"] for point in result["curve"] if "seen_loss" in point)


def reached(result: Result, falling: str, level: float, wanted: str) -> float | None:
    """What `wanted` was when `falling` first came down to `level`: linear between two points of the curve."""
    points = [point for point in result["curve"] if falling in point]
    for before, point in zip([None, *points], points):
        if point[falling] <= level:
            if before is None:
                return float(point[wanted])
            part = (before[falling] - level) / (before[falling] - point[falling])
            return float(before[wanted] + part * (point[wanted] - before[wanted]))
    return None


def fewer_with_ten_views(result: Result, _: Result) -> float | None:
    views = result["measured"].get("ten views")
    return views and 100 * (views["one"][0] - views["ten"][0])


def nearer_in_fc7(result: Result, _: Result) -> float | None:
    """How many points more of the six nearest are of the right class by fc7 than by pixels."""
    near = result["measured"].get("neighbours")
    return near and 100 * (near["fc7"] - near["pixels"])


# ---------------------------------------------------------------- factors


def times_as_long(what: str, error: float = 0.25) -> Measure:
    """How many times as long the other takes to come to this training error; what: "epochs" or "seconds"."""

    def measure(*pair: Result) -> float | None:
        ends = [{"epochs": run["curve"][-1]["epoch"], "seconds": run["curve"][-1]["seconds"]} for run in pair]
        return factor(*(until(run, error, what) for run in pair), *(end[what] for end in ends))

    return measure


def until(result: Result, error: float, what: str) -> float | None:
    """Epochs, or seconds of training, until the training error is this.

    The error of an epoch is the mean over its batches, so it belongs to the epoch's middle.
    """
    points, start = [], 0.0
    for point in result["curve"]:
        middle = (start + point["seconds"]) / 2
        points.append({"epochs": point["epoch"] - 0.5, "seconds": middle, "train_error": point["train_error"]})
        start = point["seconds"]
    return reached({"curve": points}, "train_error", error, what)


def times_as_many_steps(as_paper: Result, other: Result) -> float | None:
    """How many times as many steps the other takes until its loss leaves that of guessing."""
    pair = as_paper, other
    return factor(*map(steps_until_it_leaves, pair), *(len(run["measured"]["first losses"]) for run in pair))


def factor(here: float | None, there: float | None, end_here: float, end_there: float) -> float | None:
    """there / here; where one is not known, it is more than where its run has ended; None where neither is."""
    if here is None:
        return None if there is None else AtMost(there / end_here)
    return AtLeast(end_there / here) if there is None else there / here


def steps_until_it_leaves(result: Result) -> int | None:
    """After how many steps the mean loss of the last EARLY ones is LEFT of that of guessing, or less."""
    losses, guessing = result["measured"]["first losses"], math.log(result["data"]["classes"])
    for step in range(EARLY, len(losses) + 1):
        if np.mean(losses[step - EARLY : step]) <= LEFT * guessing:
            return step
    return None


# ---------------------------------------------------------------- colour


def apart(shares: Sequence[float]) -> float:
    """How far the mean of the first half of the kernels lies from that of the second, in points."""
    first, second = np.split(np.asarray(shares, float), 2)
    return 100 * abs(float(first.mean() - second.mean()))


def further_apart(two: Result, one: Result) -> float | None:
    """How many points further the two columns' colour lies apart than that of two halves of one column's kernels."""
    here, there = two["measured"].get("colour"), one["measured"].get("colour")
    return here and there and apart(here["added"]) - apart(there["added"])


def apart_against_chance(two: Result, _: Result) -> float | None:
    """How many times as far the columns lie apart as random halves of the same kernels do on average."""
    if "colour" not in two["measured"]:
        return None
    shares = np.asarray(two["measured"]["colour"]["added"], float)
    random = np.random.default_rng(0)
    return apart(shares) / float(np.mean([apart(random.permutation(shares)) for _ in range(SPLITS)]))
