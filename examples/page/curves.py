"""The rows of log.csv as curves of at most a thousand points, however long the run is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scoring import interval

MOST = 1000  # points of a curve
ENOUGH = 40  # points from which on a running mean says more than they do


class Curves:
    """What the rows of a log say, taken up one after the other; a row costs the same in a long run as in a short one.

    A point stands for `width` steps, one at first.  Where there would be more than MOST points, every two become one,
    so a curve of N steps has between MOST / 2 and MOST of them, and nothing is left out of them: sums stay sums, and
    the lowest and highest loss of a single batch are kept.
    """

    def __init__(self) -> None:
        self.width, self.steps, self.images = 1, 0, 0
        self.data_s, self.compute_s = 0.0, 0.0
        self.points: list[Point] = []
        self.tests: list[dict[str, Any]] = []

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            if row.get("split") == "train":
                self._step(row)
            elif row.get("split") == "val":
                self._test(row)

    def _step(self, row: Mapping[str, Any]) -> None:
        if not self.points or self.points[-1].steps == self.width:
            if len(self.points) == MOST:
                pairs = zip(self.points[::2], self.points[1::2])
                self.points = [first.joined(second) for first, second in pairs]
                self.width *= 2
            self.points.append(Point())
        self.points[-1].add(row)
        self.steps, self.images = self.steps + 1, self.images + row["images"]
        self.data_s, self.compute_s = self.data_s + row.get("data_s", 0.0), self.compute_s + row.get("compute_s", 0.0)

    def _test(self, row: Mapping[str, Any]) -> None:
        low, high = interval(row["top1"], row["images"])
        test = {"x": self.images, "epoch": row["epoch"], "step": row["step"], "low": low, "high": high}
        self.tests.append({**test, **{name: row[name] for name in ("loss", "top1", "top5", "images") if name in row}})

    def data(self) -> dict[str, Any]:
        """Columns of numbers, one entry per point: x is the training images seen until then.

        loss, top1: means over the point's images; low, high: the losses of its best and worst batch; speed: images/s;
        waiting: the share of the time spent waiting for data; mean_loss, mean_top1: means over the images of the last
        `running` steps, where there are ENOUGH points for that to say something.
        """
        x, seen = [], 0
        for point in self.points:
            seen += point.images
            x.append(seen)
        columns: dict[str, Any] = {
            "x": x, "width": self.width, "running": 0,
            "loss": [p.loss / p.images for p in self.points], "top1": [p.top1 / p.images for p in self.points],
            "low": [p.low for p in self.points], "high": [p.high for p in self.points],
            "lr": [p.lr for p in self.points],
            "speed": [p.images / p.seconds if p.seconds else None for p in self.points],
            "waiting": [p.data_s / p.seconds if p.seconds else None for p in self.points],
        }  # fmt: skip
        if len(self.points) >= ENOUGH:
            last = len(self.points) // 20
            columns["running"] = last * self.width
            columns["mean_loss"] = running_mean([p.loss for p in self.points], [p.images for p in self.points], last)
            columns["mean_top1"] = running_mean([p.top1 for p in self.points], [p.images for p in self.points], last)
        return {name: rounded(value) for name, value in columns.items()}


class Point:
    """Some steps in a row: sums over their images, and what cannot be summed."""

    def __init__(self) -> None:
        self.steps = self.images = 0
        self.loss = self.top1 = self.data_s = self.compute_s = 0.0
        self.low, self.high, self.lr = math.inf, -math.inf, 0.0

    @property
    def seconds(self) -> float:
        return self.data_s + self.compute_s

    def add(self, row: Mapping[str, Any]) -> None:
        images, loss = row["images"], row["loss"]
        self.steps, self.images = self.steps + 1, self.images + images
        self.loss, self.top1 = self.loss + loss * images, self.top1 + row["top1"] * images
        self.data_s, self.compute_s = self.data_s + row.get("data_s", 0.0), self.compute_s + row.get("compute_s", 0.0)
        self.low, self.high, self.lr = min(self.low, loss), max(self.high, loss), row["lr"]

    def joined(self, later: Point) -> Point:
        both = Point()
        for name in ("steps", "images", "loss", "top1", "data_s", "compute_s"):
            setattr(both, name, getattr(self, name) + getattr(later, name))
        both.low, both.high, both.lr = min(self.low, later.low), max(self.high, later.high), later.lr
        return both


def running_mean(sums: list[float], counts: list[int], last: int) -> list[float]:
    """At each place, what the last so many places (or as many as there are) sum up to, per count."""
    means = []
    for i in range(len(sums)):
        begin = max(0, i + 1 - last)
        means.append(sum(sums[begin : i + 1]) / sum(counts[begin : i + 1]))
    return means


def rounded(value: Any) -> Any:
    """Five digits of every float are more than a screen shows; nan and inf, which JSON does not know, become None."""
    if isinstance(value, np.ndarray):
        return rounded(value.tolist())
    if isinstance(value, float):  # NumPy's float64 is one
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [rounded(entry) for entry in value]
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    return value
