"""The player of lrn's page: eight channels of one pixel under many settings, computed by the textbook's face."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ..pictures import rows_of, shown
from ..players import player

CHOICES = {"n": [1, 3, 5, 7], "k": [1, 2], "alpha": [0.0001, 0.01, 0.1, 1], "beta": [0.5, 0.75, 1]}
X = [1.0, 3.0, 0.0, 2.0, -2.0, 1.0, 4.0, 1.0]


def results() -> dict[str, dict[str, Any]]:
    """y, and slopes[j] = the derivatives of y_j by every x, for every choice, under "n,k,alpha,beta"."""
    import minigrad
    import minigrad.functional as F  # noqa: N812

    found = {}
    images = np.tile(np.array(X).reshape(1, -1, 1, 1), (len(X), 1, 1, 1))  # one for each y_j
    for n, k, alpha, beta in itertools.product(*CHOICES.values()):
        x = minigrad.Tensor(images, dtype="float64", requires_grad=True, device="textbook:0")
        y = F.lrn(x, n, k, alpha, beta)
        y.backward(minigrad.Tensor(np.eye(len(X)).reshape(x.shape), device="textbook:0"))
        assert x.grad is not None
        values = y.numpy()[0, :, 0, 0], x.grad.numpy()[:, :, 0, 0]
        found[f"{n},{k},{alpha:g},{beta:g}"] = {
            name: [float(f"{v:.4g}") for v in array.ravel()] for name, array in zip(("y", "slopes"), values)
        }
    return found


def parts() -> tuple[str, str]:
    """(HTML, script)."""
    found = results()
    rows = [
        [f"n {n}, alpha {alpha:g}", *map(shown, found[f"{n},2,{alpha:g},0.75"]["y"])]
        for n, alpha in itertools.product((3, 5), CHOICES["alpha"])
    ]
    head = ["k 2, beta 0.75", *(f"x\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{shown(v)}" for v in X)]
    return player(
        "lrn", {"x": X, "choices": CHOICES, "results": found}, Path(__file__).with_suffix(".js"),
        "Choose a channel of x or y: its window, and how much y changes there with each x.",
        rows_of(rows, head, caption="y of the eight channels"),
    )  # fmt: skip
