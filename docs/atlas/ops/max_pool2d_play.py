"""The player of max_pool2d's page: 6 x 6 pixels under every small window, computed by the textbook's face."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ..pictures import rows_of
from ..players import player

CHOICES = {"kernel": [2, 3, 4], "stride": [1, 2, 3], "padding": [0, 1], "ceil": [0, 1]}
X = [
    [1, 2, 0, 3, 1, 0],
    [0, 1, 4, 1, 2, 1],
    [2, 0, 1, 0, 3, 2],
    [1, 3, 2, 1, 0, 1],
    [0, 1, 0, 2, 1, 4],
    [3, 0, 1, 1, 2, 0],
]


def results() -> dict[str, dict[str, Any]]:
    """y, and dx where every dy is 1, for every choice, under "kernel,stride,padding,ceil"."""
    import minigrad
    import minigrad.functional as F  # noqa: N812

    found = {}
    for kernel, stride, padding, ceil in itertools.product(*CHOICES.values()):
        x = minigrad.Tensor([[X]], dtype="float64", requires_grad=True, device="textbook:0")
        y = F.max_pool2d(x, kernel, stride, padding, ceil_mode=bool(ceil))
        y.sum().backward()
        assert x.grad is not None
        found[f"{kernel},{stride},{padding},{ceil}"] = {
            "y": y.numpy()[0, 0].astype(int).tolist(), "dx": x.grad.numpy()[0, 0].astype(int).tolist(),
        }  # fmt: skip
    return found


def parts() -> tuple[str, str]:
    """(HTML, script)."""
    found = results()
    rows = [
        [f"{kernel}", *(str(len(found[f"{kernel},{stride},{padding},{ceil}"]["y"]))
                        for padding, ceil, stride in itertools.product((0, 1), (0, 1), (1, 2, 3)))]
        for kernel in CHOICES["kernel"]
    ]  # fmt: skip
    head = [
        "kernel",
        *(f"p\N{NO-BREAK SPACE}{padding}, s\N{NO-BREAK SPACE}{stride}{', ceil' if ceil else ''}"
          for padding, ceil, stride in itertools.product((0, 1), (0, 1), (1, 2, 3))),
    ]  # fmt: skip
    return player(
        "pool", {"x": X, "choices": CHOICES, "results": found}, Path(__file__).with_suffix(".js"),
        "Choose an output and see its window and the winner; choose a pixel and see which windows hold it, and which "
        "it has won.",
        rows_of(rows, head, caption="Rows of y for 6 rows of x"),
    )  # fmt: skip
