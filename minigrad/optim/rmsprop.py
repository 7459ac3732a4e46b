"""RMSprop: steps scaled by a running mean of the gradient's square.

    u <- alpha u + (1 - alpha) g^2
    w <- w - lr  g / (sqrt(u) + eps)                                without momentum
    v <- mu v + g / (sqrt(u) + eps),    w <- w - lr v               with it

Weight decay is added to the gradient, g + wd w, as in PyTorch.

Source: Hinton, Srivastava, Swersky 2012, lecture 6e of "Neural networks for machine learning".  Momentum: PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.arguments import is_number
from ..device import Device
from ..engine import Array
from ..errors import ArgumentError
from .optimizer import Arrays, Group, Optimizer, Parameters


class RMSprop(Optimizer):
    """RMSprop, as torch.optim.RMSprop (not centred); the formulas are in this module's docstring.

    params: parameters or groups of them (see Optimizer).  lr >= 0, alpha and momentum in [0, 1), eps > 0,
    weight_decay >= 0 (ArgumentError otherwise).  In place, tile by tile, on all threads of each device.
    """

    state_names = ("square_mean", "velocity")

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ):
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        super()._check_settings(settings)
        for name in ("alpha", "momentum"):
            value = settings[name]
            if not is_number(value) or not 0 <= value < 1:
                raise ArgumentError(f"RMSprop: {name} must be at least 0 and less than 1, got {value!r}")
        if settings["eps"] == 0:
            raise ArgumentError("RMSprop: eps must be > 0: where the gradient has always been 0, the step is 0 / eps")

    def kept(self, group: Group) -> dict[str, float]:
        square = {"square_mean": group["alpha"]}
        return {**square, "velocity": group["momentum"]} if group["momentum"] else square

    def rule(self, group: Group, step: int, w: Array, g: Array, t: Array, state: Sequence[Array]) -> None:
        (u, *velocity), alpha = state, float(group["alpha"])
        if group["weight_decay"]:
            g = w * float(group["weight_decay"]) + g
        np.multiply(g, g, out=t)
        t *= 1 - alpha
        u *= alpha
        u += t
        np.sqrt(u, out=t)
        t += float(group["eps"])
        np.divide(g, t, out=t)
        for v in velocity:
            v *= float(group["momentum"])
            v += t
            t[...] = v
        t *= float(group["lr"])
        w -= t

    def rule_gpu(
        self, device: Device, group: Group, step: int, w: Arrays, g: Arrays, state: Sequence[Arrays], tiny: list[float]
    ) -> None:
        alpha, mu = float(group["alpha"]), float(group["momentum"])
        numbers = float(group["lr"]), alpha, 1 - alpha, float(group["eps"]), float(group["weight_decay"])
        kernel, more = ("rmsprop_momentum", (mu,)) if mu else ("rmsprop", ())
        device.update_weights("rmsprop", kernel, [w, *state], g, *numbers, *more, *tiny)
