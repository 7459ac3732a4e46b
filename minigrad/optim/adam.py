"""Adam: steps scaled by running means of the gradient and of its square.

    mean_k   = b1 mean + (1 - b1) g
    square_k = b2 square + (1 - b2) g^2
    w <- w - lr  mean_k / (1 - b1^k)  /  (sqrt(square_k / (1 - b2^k)) + eps)      k: steps from 1

Kept here are the sums m = mean / (1 - b1) and u = square / (1 - b2), which saves two passes over the arrays.

    m <- b1 m + g,   u <- b2 u + g^2,   w <- w - a m / (sqrt(u) + e)
    c = sqrt((1 - b2^k) / (1 - b2)),   e = eps c,   a = lr c (1 - b1) / (1 - b1^k)

AdamW lets the weights decay by themselves, w <- (1 - lr weight_decay) w before each step.  Adam adds weight_decay w to
the gradient, so that the root of u divides the decay, too: weights with large gradients decay less.

Sources: Kingma, Ba 2015 (arXiv 1412.6980), algorithm 1; Loshchilov, Hutter 2019 (arXiv 1711.05101), algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.arguments import is_number
from ..device import Device
from ..engine import Array
from ..errors import ArgumentError
from .optimizer import Arrays, Group, Optimizer, Parameters


class Adam(Optimizer):
    """Adam (Kingma, Ba 2015); the formulas are in this module's docstring.

    params: parameters or groups of them (see Optimizer).  lr >= 0, betas in [0, 1), eps > 0 (ArgumentError
    otherwise).  weight_decay adds weight_decay * w to the gradient, as torch.optim.Adam does.
    In place, tile by tile, on all threads of each device.
    """

    state_names = ("gradient_sum", "square_sum")
    decoupled = False  # whether the weights decay by themselves

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        super()._check_settings(settings)
        betas = settings["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2 or not all(map(is_number, betas)):
            raise ArgumentError(f"{self._name}: betas must be two numbers, got {betas!r}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ArgumentError(f"{self._name}: betas must be at least 0 and less than 1, got {betas!r}")
        if settings["eps"] == 0:
            raise ArgumentError(
                f"{self._name}: eps must be > 0: where the gradient has always been 0, the step is 0 / eps"
            )

    def kept(self, group: Group) -> dict[str, float]:
        return dict(zip(self.state_names, group["betas"]))

    def rule(self, group: Group, step: int, w: Array, g: Array, t: Array, state: Sequence[Array]) -> None:
        (m, u), (b1, b2) = state, group["betas"]
        a, e = _scales(group, step)
        if group["weight_decay"] and self.decoupled:
            w *= _keep(group)
        elif group["weight_decay"]:
            np.multiply(w, float(group["weight_decay"]), out=t)
            t += g
            g = t
        m *= float(b1)
        m += g
        np.multiply(g, g, out=t)
        u *= float(b2)
        u += t
        np.sqrt(u, out=t)
        t += e
        np.divide(m, t, out=t)
        t *= a
        w -= t

    def rule_gpu(
        self, device: Device, group: Group, step: int, w: Arrays, g: Arrays, state: Sequence[Arrays], tiny: list[float]
    ) -> None:
        decay, keep = (0.0, _keep(group)) if self.decoupled else (group["weight_decay"], 1.0)
        numbers = *group["betas"], *_scales(group, step), decay, keep, *tiny
        device.update_weights("adam", "adam", [w, *state], g, *numbers)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019), as torch.optim.AdamW; see this module's docstring.

    params, lr, betas, eps: as Adam's.  weight_decay: each step takes lr * weight_decay of a weight away.
    """

    decoupled = True

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)


def _keep(group: Group) -> float:
    """What an update of AdamW leaves of a weight."""
    return 1.0 - float(group["lr"]) * float(group["weight_decay"])


def _scales(group: Group, step: int) -> tuple[float, float]:
    """a and e of the formula for step k."""
    b1, b2 = group["betas"]
    c = math.sqrt((1 - b2**step) / (1 - b2))
    return float(group["lr"] * c * (1 - b1) / (1 - b1**step)), float(group["eps"] * c)
