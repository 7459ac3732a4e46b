"""Stochastic gradient descent with momentum, in the two forms that are both called by that name.

g is the gradient, mu the momentum, wd the weight decay, v the velocity (0 at first):

    update_rule="pytorch"                    update_rule="alexnet"
    v <- mu v + g + wd w                     v <- mu v - lr g - lr wd w
    w <- w - lr v                            w <- w + v

While lr is constant the two are the same (v differs by the factor -lr).  They part when it changes: on the
right the velocity holds steps already scaled by the old learning rate, which go on after lr was divided by 10
and fade out over 1 / (1 - mu) steps; on the left the whole velocity, the past included, is scaled by the new
one at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.arguments import is_number, one_of
from ..device import Device
from ..engine import Array
from ..errors import ArgumentError
from .optimizer import Arrays, Group, Optimizer, Parameters

UPDATE_RULES = ("pytorch", "alexnet")


class SGD(Optimizer):
    """Stochastic gradient descent.

        update_rule="pytorch"                    update_rule="alexnet"
        v <- mu v + g + wd w                     v <- mu v - lr g - lr wd w
        w <- w - lr v                            w <- w + v

    They differ once lr changes: see this module's docstring.  Without momentum both are w <- w - lr (g + wd w).

    params: parameters or groups of them (see Optimizer).  lr >= 0, 0 <= momentum < 1, weight_decay >= 0
    (ArgumentError otherwise).  In place, tile by tile, on all threads of each device.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 5: momentum 0.9, weight decay 0.0005, lr 0.01.
    """

    state_names = ("velocity",)

    def __init__(
        self,
        params: Parameters,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        update_rule: str = "pytorch",
    ):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, update_rule=update_rule)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        super()._check_settings(settings)
        momentum, update_rule = settings["momentum"], settings["update_rule"]
        if not is_number(momentum) or not 0 <= momentum < 1:
            raise ArgumentError(f"SGD: momentum must be at least 0 and less than 1, got {momentum!r}")
        one_of("SGD", "update_rule", update_rule, UPDATE_RULES)

    def kept(self, group: Group) -> dict[str, float]:
        return {"velocity": group["momentum"]} if group["momentum"] else {}

    def rule(self, group: Group, step: int, w: Array, g: Array, t: Array, state: Sequence[Array]) -> None:
        lr, mu, wd = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
        if not state:
            if wd:
                np.multiply(w, wd, out=t)
                t += g
                g = t
            np.multiply(g, lr, out=t)
            w -= t
            return
        (v,) = state
        v *= mu
        if group["update_rule"] == "alexnet":
            np.multiply(g, lr, out=t)
            v -= t
            if wd:
                np.multiply(w, lr * wd, out=t)
                v -= t
            w += v
        else:
            v += g
            if wd:
                np.multiply(w, wd, out=t)
                v += t
            np.multiply(v, lr, out=t)
            w -= t

    def rule_gpu(
        self, device: Device, group: Group, step: int, w: Arrays, g: Arrays, state: Sequence[Arrays], tiny: list[float]
    ) -> None:
        lr, mu, wd = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
        if not state:
            device.update_weights("sgd", "sgd", [w], g, lr, wd)
        elif group["update_rule"] == "alexnet":
            device.update_weights("sgd", "sgd_alexnet", [w, *state], g, lr, mu, lr * wd, *tiny)
        else:
            device.update_weights("sgd", "sgd_pytorch", [w, *state], g, lr, mu, wd, *tiny)
