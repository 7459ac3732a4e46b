"""Learning-rate schedules: they write `lr` of an optimiser's groups, each relative to the rate it had at first.

A schedule writes only when its factor changes, so a warm-up that has ended leaves the rate to whoever changes
it next (ReduceOnPlateau, or you).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from ..base.arguments import integer, is_number, number, one_of
from ..errors import ArgumentError, CheckpointError
from .optimizer import Optimizer


class Schedule:
    """Base of the schedules whose factor depends on the count of step() calls alone: lr = first lr * factor(count).

    factor(0) is in force from the start; call step() after each optimiser step (or epoch: whatever it counts).
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = _optimizer(self, optimizer)
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self.count = 0
        self._write(self.factor(0))

    def factor(self, count: int) -> float:
        raise NotImplementedError

    def step(self) -> None:
        """Count one more, and set the learning rates where the factor changed."""
        before, self.count = self.factor(self.count), self.count + 1
        now = self.factor(self.count)
        if now != before:
            self._write(now)

    def _write(self, factor: float) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = base * factor

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs, plain numbers.  The current rates are in the optimiser's own state."""
        return {"count": self.count, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.  The current rates are in the optimiser's state: load that one after making
        this schedule, for a new schedule sets them back to the start.
        """
        _check_keys(self, state)
        self.count, self.base_lrs = int(state["count"]), [float(lr) for lr in state["base_lrs"]]


class StepLR(Schedule):
    """Multiply the rate by gamma after every step_size steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        self.step_size = integer("StepLR", "step_size", step_size, 1)
        self.gamma = number("StepLR", "gamma", gamma, above=0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return self.gamma ** (count // self.step_size)


class MultiStepLR(Schedule):
    """Multiply the rate by gamma at each of the milestones, counts of step() in rising order, [23, 51, 78]."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        self.milestones = [integer("MultiStepLR", "milestones", count, 1) for count in milestones]
        if self.milestones != sorted(set(self.milestones)):
            raise ArgumentError(f"MultiStepLR: milestones must rise, got {list(milestones)}")
        self.gamma = number("MultiStepLR", "gamma", gamma, above=0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return float(self.gamma ** bisect_right(self.milestones, count))


class ExponentialLR(Schedule):
    """Multiply the rate by gamma after every step."""

    def __init__(self, optimizer: Optimizer, gamma: float):
        self.gamma = number("ExponentialLR", "gamma", gamma, above=0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return self.gamma**count


class OneCycleLR(Schedule):
    """Rise from max_lr / div_factor to max_lr, then fall to max_lr / div_factor / final_div_factor: one cycle.

    max_lr: a number, or one for each group of the optimiser, whose own rates do not count.
    total_steps: of the whole cycle, counts of step(); beyond it the rate stays.  pct_start: the share of them that
    rises, 0 to 1.  anneal_strategy: along half a cosine, "cos", or a line, "linear".
    As in PyTorch, where cycle_momentum is False: the momentum stays as it is.

    Source: Smith, Topin 2017 (arXiv 1708.07120).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ):
        groups = len(_optimizer(self, optimizer).param_groups)
        rates: Sequence[Any] = max_lr if isinstance(max_lr, (list, tuple)) else [max_lr] * groups
        maxima = [number("OneCycleLR", "max_lr", rate, above=0) for rate in rates]
        if len(maxima) != groups:
            raise ArgumentError(f"OneCycleLR: max_lr must be one number, or {groups}: one a group; got {len(maxima)}")
        self.total_steps = integer("OneCycleLR", "total_steps", total_steps, 2)
        self.pct_start = number("OneCycleLR", "pct_start", pct_start, minimum=0)
        if self.pct_start >= 1:
            raise ArgumentError(f"OneCycleLR: pct_start must be less than 1, got {pct_start}: something has to fall")
        self.anneal_strategy = one_of("OneCycleLR", "anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.div_factor = number("OneCycleLR", "div_factor", div_factor, above=0)
        self.final_div_factor = number("OneCycleLR", "final_div_factor", final_div_factor, above=0)
        super().__init__(optimizer)
        self.base_lrs = maxima
        self._write(self.factor(0))

    def factor(self, count: int) -> float:
        first, top, last = 1 / self.div_factor, 1.0, 1 / self.div_factor / self.final_div_factor
        summit, end = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if count < summit:
            return self._between(first, top, count / summit)
        return self._between(top, last, min(1.0, (count - summit) / (end - summit)))

    def _between(self, start: float, stop: float, done: float) -> float:
        share = done if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * done)) / 2
        return start + (stop - start) * share


class Warmup(Schedule):
    """Rise linearly to the full rate over `warmup` steps (1/warmup, 2/warmup, ...), then leave it alone."""

    def __init__(self, optimizer: Optimizer, warmup: int):
        self.warmup = integer("Warmup", "warmup", warmup, 0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return min(1.0, (count + 1) / self.warmup) if self.warmup else 1.0


class WarmupCosine(Schedule):
    """Rise linearly over `warmup` steps, then fall along half a cosine to `final` (a fraction) at step `total`.

    total counts the warm-up too.  Beyond it the rate stays.  Source of the cosine: Loshchilov, Hutter 2017
    (arXiv 1608.03983).
    """

    def __init__(self, optimizer: Optimizer, warmup: int, total: int, final: float = 0.0):
        self.warmup = integer("WarmupCosine", "warmup", warmup, 0)
        self.total = integer("WarmupCosine", "total", total, self.warmup + 1)
        if not is_number(final) or not 0 <= final <= 1:
            raise ArgumentError(f"WarmupCosine: final must be a fraction between 0 and 1, got {final!r}")
        self.final = float(final)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        if count < self.warmup:
            return (count + 1) / self.warmup
        done = min(1.0, (count - self.warmup) / (self.total - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


class ReduceOnPlateau:
    """Multiply the rates by `factor` when a measure (validation error) has stopped improving.

    step(measure) once per epoch; smaller is better.  When more than `patience` epochs in a row have not
    brought it below the best seen by more than `threshold`, the rates are reduced and the count starts again.
    min_lr: rates are not reduced below it.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 5: "divide the learning rate by 10 when the validation
    error rate stopped improving with the current learning rate", three times in training.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.1,
        patience: int = 5,
        threshold: float = 0.0,
        min_lr: float = 0.0,
    ):
        self.optimizer = _optimizer(self, optimizer)
        self.factor = number("ReduceOnPlateau", "factor", factor, above=0)
        if self.factor >= 1:
            raise ArgumentError(f"ReduceOnPlateau: factor must be less than 1, got {factor!r}")
        self.patience = integer("ReduceOnPlateau", "patience", patience, 0)
        self.threshold = number("ReduceOnPlateau", "threshold", threshold, minimum=0)
        self.min_lr = number("ReduceOnPlateau", "min_lr", min_lr, minimum=0)
        self.best, self.bad_epochs, self.reductions = math.inf, 0, 0

    def step(self, measure: float) -> bool:
        """Take this epoch's measure, a finite number or what float() makes one of; True if the rates were reduced."""
        try:
            measure = float(None if isinstance(measure, (str, bytes, bool)) else measure)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            raise ArgumentError(f"ReduceOnPlateau: measure must be a number, got {measure!r}") from None
        if not math.isfinite(measure):
            raise ArgumentError(
                f"ReduceOnPlateau: the measure must be a finite number, got {measure}: has training diverged? "
                "Start again with a lower learning rate"
            )
        if measure < self.best - self.threshold:
            self.best, self.bad_epochs = measure, 0
            return False
        self.bad_epochs += 1
        if self.bad_epochs <= self.patience:
            return False
        self.bad_epochs = 0
        self.reductions += 1
        for group in self.optimizer.param_groups:
            group["lr"] = min(group["lr"], max(group["lr"] * self.factor, self.min_lr))
        return True

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs, plain numbers (best is None before the first epoch: JSON has no infinity)."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "bad_epochs": self.bad_epochs, "reductions": self.reductions}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`; load the optimiser's state too, it holds the current rates."""
        _check_keys(self, state)
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.bad_epochs, self.reductions = int(state["bad_epochs"]), int(state["reductions"])


def _check_keys(schedule: Schedule | ReduceOnPlateau, state: Mapping[str, Any]) -> None:
    expected = schedule.state_dict()
    if set(state) != set(expected):
        raise CheckpointError(
            f"{type(schedule).__name__}: the state has {sorted(state)}, expected {sorted(expected)}: load it into a "
            "schedule of the kind that it is from"
        )
    if "base_lrs" in expected and len(state["base_lrs"]) != len(expected["base_lrs"]):
        raise CheckpointError(
            f"{type(schedule).__name__}: the state is of {len(state['base_lrs'])} group(s), "
            f"the optimiser has {len(expected['base_lrs'])}: give it the groups that it had"
        )


def _optimizer(schedule: Schedule | ReduceOnPlateau, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(
            f"{type(schedule).__name__}: optimizer must be an Optimizer such as SGD, got {type(optimizer).__name__}"
        )
    return optimizer
