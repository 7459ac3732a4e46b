"""Gradients that are too long, shortened.

    norm = sqrt(sum over all gradients' elements of g^2),      g <- g * min(1, max_norm / norm)

All gradients are one vector here: it keeps its direction.  Source: Pascanu, Mikolov, Bengio 2013 (arXiv 1211.5063),
algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..base.arguments import number
from ..base.interrupts import hold
from ..engine import Array
from ..errors import ArgumentError, NotFiniteError
from ..processor.parallel import split
from ..tensor import Tensor
from .optimizer import SPLIT, TILE, aligned


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale the gradients of all parameters, in place, so that together they are no longer than max_norm.

    Call it between backward and the optimiser's step.  Parameters without a gradient are passed over.  Returns the norm
    before, as torch.nn.utils.clip_grad_norm_ does; on a card it waits for it.  Summed in float64, in an order that does
    not depend on the number of threads.

    ArgumentError for a max_norm that is not above 0.  NotFiniteError, which names the parameter, where a gradient holds
    nan or inf: scaling would hide it; the gradients are as they were then.
    """
    if isinstance(parameters, Tensor):
        raise ArgumentError("clip_grad_norm_: parameters must be a list of tensors, got one tensor: put it in a list")
    max_norm = number("clip_grad_norm_", "max_norm", max_norm, above=0)
    gradients = [(i, p.grad) for i, p in enumerate(parameters) if p.grad is not None]
    squares = []
    for i, g in gradients:
        squares.append(_sum_of_squares(g))
        if not math.isfinite(squares[-1]):
            raise NotFiniteError(
                f"clip_grad_norm_: the gradient of parameter {i} {g.shape} holds nan or inf (or numbers whose squares "
                "float64 cannot hold): find where they come from with minigrad.debug(check_finite=True)"
            )
    norm = math.sqrt(math.fsum(squares))
    if norm > max_norm:
        with hold(finish=True):  # all of them, or none
            for _, g in gradients:
                g.device.update("multiply", g.data, max_norm / norm)
                g.mark_modified()
    return norm


def _sum_of_squares(g: Tensor) -> float:
    if not g.device.on_host:
        wide = g.astype("float64")
        return float((wide * wide).sum().item())
    (flat,) = aligned([g.data])
    flat = flat.reshape(-1)
    sums = np.zeros(-(-len(flat) // TILE))

    def work(start: int, stop: int) -> None:
        for tile in range(start, stop):
            wide: Array = flat[tile * TILE : (tile + 1) * TILE].astype(np.float64)
            sums[tile] = (wide * wide).sum()

    split(g.device, len(sums), work, at_least=max(1, SPLIT // TILE))
    return float(sums.sum())
