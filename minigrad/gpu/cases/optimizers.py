"""The cases of the optimisers: a weight, or three of a net at once, and the gradients of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...optim import SGD, Adam, AdamW, RMSprop
from ...tensor import Tensor
from .case import Case

WEIGHTS = {"w": (4096, 9216), "g": (4096, 9216)}  # of fc6, and their gradient


def _optimizer(name: str, file: str, rule: Callable[[Tensor], Any], moved: str) -> Case:
    """Two steps with the same gradient g: the second one meets a velocity.  It alone is timed, and moves `moved`."""

    def function(w: Tensor, g: Tensor) -> Tensor:
        w = Tensor(w, True)
        step = prepare(w, g)
        step()
        step()
        return w.detach()

    def prepare(w: Tensor, g: Tensor) -> Callable[[], Any]:
        w.requires_grad, w.grad = True, g.detach()
        return rule(w).step

    return Case(name, (file,), function, {"w": (37, 29), "g": (37, 29)}, WEIGHTS, moved, "", prepare=prepare)


def _of_a_net(name: str, file: str, rule: Callable[[list[Tensor]], Any]) -> Case:
    """Three weights in one launch, of several blocks and of less than one; the largest comes last.

    The second does not begin at a multiple of 16 bytes.
    """

    def function(w: Tensor, g: Tensor) -> Tensor:
        weights, gradients = (np.split(x.numpy(), [x.size // 500, x.size // 3]) for x in (w, g))
        net = [Tensor(weight, True, w.device) for weight in weights]
        net[1].data = Tensor(np.append(0, weights[1]).astype(w.dtype), device=w.device).data[1:]
        for p, gradient in zip(net, gradients):
            p.grad = Tensor(gradient, device=w.device)
        optimizer = rule(net)
        optimizer.step()
        optimizer.step()
        return Tensor(np.concatenate([p.numpy() for p in net]), device=w.device)

    return Case(name, (file,), function, {"w": (3301,), "g": (3301,)}, {"w": (40961,), "g": (40961,)}, "w", "")


def _at_step_64(name: str, file: str, rule: Callable[[Tensor], Any], roots: float = 1.0) -> Case:
    """The signs of the state after an update that sets tiny numbers to 0, for gradients near that limit.

    Half of them are near the root of it, times `roots`: their squares are near it.
    """

    def function(w: Tensor, g: Tensor) -> Tensor:
        tiny = np.finfo(w.dtype).tiny
        scale = np.where(np.arange(w.size) % 2, 1e3 * tiny, roots * np.sqrt(tiny)).reshape(w.shape).astype(w.dtype)
        w = Tensor(w, True)
        w.grad = Tensor(g.numpy() * scale, device=w.device)
        optimizer = rule(w)
        state = optimizer.state_dict()
        optimizer.load_state_dict({**state, "settings": {**state["settings"], "steps": [63]}})
        optimizer.step()
        signs = [np.sign(array) for array in optimizer.state_dict()["arrays"].values()]
        return Tensor(np.concatenate(signs), device=w.device)

    return Case(name, (file,), function, {"w": (37, 29), "g": (37, 29)}, {"w": (4096,), "g": (4096,)}, "w", "")


def _from_zero(w: Tensor, g: Tensor) -> Tensor:
    """Adam's first step from w = 0 where gradients are as small as its eps."""
    w, small = Tensor(w.numpy() * 0, True, w.device), Tensor(g.numpy() * w.dtype.type(1e-8), device=w.device)
    w.grad = small
    Adam([w], lr=1.0).step()
    return w.detach()


CASES = [
    _optimizer("SGD", "sgd", lambda w: SGD([w], lr=0.01, weight_decay=5e-4), "w g w"),
    _optimizer(
        "SGD, alexnet rule",
        "sgd",
        lambda w: SGD([w], lr=0.01, momentum=0.9, weight_decay=5e-4, update_rule="alexnet"),
        "w w g w w",
    ),
    _optimizer(
        "SGD, pytorch rule",
        "sgd",
        lambda w: SGD([w], lr=0.01, momentum=0.9, weight_decay=5e-4),
        "w w g w w",
    ),
    _optimizer(
        "SGD, nesterov",
        "sgd",
        lambda w: SGD([w], lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True),
        "w w g w w",
    ),
    _optimizer("RMSprop", "rmsprop", lambda w: RMSprop([w], lr=0.01, weight_decay=0.1), "w w g w w"),
    _optimizer("RMSprop, momentum", "rmsprop", lambda w: RMSprop([w], lr=0.01, momentum=0.9), "w w w g w w w"),
    _optimizer("Adam", "adam", lambda w: Adam([w], lr=0.01), "w w w g w w w"),
    _at_step_64("SGD, alexnet rule, step 64", "sgd", lambda w: SGD([w], lr=1.0, momentum=0.9, update_rule="alexnet")),
    _at_step_64("SGD, pytorch rule, step 64", "sgd", lambda w: SGD([w], lr=1.0, momentum=0.9)),
    _at_step_64("SGD, nesterov, step 64", "sgd", lambda w: SGD([w], lr=1.0, momentum=0.9, nesterov=True)),
    _at_step_64("RMSprop, step 64", "rmsprop", lambda w: RMSprop([w], lr=1.0, eps=1.0, momentum=0.9), 20),
    _optimizer("AdamW", "adam", lambda w: AdamW([w], lr=0.01, weight_decay=0.3), "w w w g w w w"),
    _at_step_64("Adam, step 64", "adam", lambda w: Adam([w], lr=1.0)),
    _of_a_net("SGD of a net", "sgd", lambda net: SGD(net, lr=0.01, weight_decay=5e-4)),
    _of_a_net("SGD of a net, velocity", "sgd", lambda net: SGD(net, lr=0.01, momentum=0.9)),
    _of_a_net("RMSprop of a net", "rmsprop", lambda net: RMSprop(net, lr=0.01)),
    _of_a_net("Adam of a net", "adam", lambda net: Adam(net, lr=0.01)),
    Case("Adam, eps", ("adam",), _from_zero, {"w": (37, 29), "g": (37, 29)}, WEIGHTS, "w g w w w", ""),
]
