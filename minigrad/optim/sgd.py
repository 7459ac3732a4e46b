"""Stochastic gradient descent with momentum, in the two forms that are both called by that name.

g is the gradient, mu the momentum, wd the weight decay, v the velocity (0 at first):

    update_rule="pytorch"                    update_rule="alexnet"
    v <- mu v + g + wd w                     v <- mu v - lr g - lr wd w
    w <- w - lr v                            w <- w + v

While lr is constant the two are the same (v differs by the factor -lr).  They part when it changes: on the
right the velocity holds steps already scaled by the old learning rate, which go on after lr was divided by 10
and fade out over 1 / (1 - mu) steps; on the left the whole velocity, the past included, is scaled by the new
one at once.

Nesterov's momentum goes on from where the velocity leads, w <- w - lr (g + wd w + mu v) with the new v, in PyTorch's
form of it.

Source of the last: Sutskever, Martens, Dahl, Hinton 2013, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.arguments import flag, is_number, one_of
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
    nesterov: w <- w - lr (g + wd w + mu v) in place of the second line; with momentum and "pytorch" only.

    params: parameters or groups of them (see Optimizer).  lr >= 0, 0 <= momentum < 1, weight_decay >= 0
    (ArgumentError otherwise).  In place, tile by tile, on all threads of each device.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 5: momentum 0.9, weight decay 0.0005, lr 0.01.
    """

    state_names = ("velocity",)
    later_settings = {"nesterov": False}

    def __init__(
        self,
        params: Parameters,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        update_rule: str = "pytorch",
        nesterov: bool = False,
    ):
        settings = {"momentum": momentum, "weight_decay": weight_decay, "update_rule": update_rule}
        super().__init__(params, lr=lr, **settings, nesterov=nesterov)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        super()._check_settings(settings)
        momentum, update_rule = settings["momentum"], settings["update_rule"]
        if not is_number(momentum) or not 0 <= momentum < 1:
            raise ArgumentError(f"SGD: momentum must be at least 0 and less than 1, got {momentum!r}")
        one_of("SGD", "update_rule", update_rule, UPDATE_RULES)
        if flag("SGD", "nesterov", settings["nesterov"]) and (not momentum or update_rule != "pytorch"):
            raise ArgumentError(
                f"SGD: nesterov is for momentum above 0 and update_rule='pytorch', got {momentum!r} and {update_rule!r}"
            )

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
        elif group["nesterov"]:
            if wd:
                np.multiply(w, wd, out=t)
                t += g
                g = t
            v += g
            np.multiply(g, lr, out=t)
            w -= t
            np.multiply(v, lr * mu, out=t)
            w -= t
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
            kernel = "sgd_nesterov" if group["nesterov"] else "sgd_pytorch"
            device.update_weights("sgd", kernel, [w, *state], g, lr, mu, wd, *tiny)
