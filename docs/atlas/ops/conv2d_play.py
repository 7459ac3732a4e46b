"""The player of conv2d's page: 6 x 6 pixels under every small window, computed by the textbook's face."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ..pictures import rows_of
from ..players import player

CHOICES = {"kernel": [1, 2, 3, 4], "stride": [1, 2, 3], "padding": [0, 1, 2], "dilation": [1, 2]}
X = [
    [1, 2, 0, 3, 1, 0],
    [0, 1, 4, 1, 2, 1],
    [2, 0, 1, 0, 3, 2],
    [1, 3, 2, 1, 0, 1],
    [0, 1, 0, 2, 1, 4],
    [3, 0, 1, 1, 2, 0],
]
W = [[1, 2, -1, 1], [0, 3, 1, -2], [-1, 1, 2, 0], [2, -1, 0, 1]]
CSS = ""


def results() -> dict[str, dict[str, Any]]:
    """y, and dx where every dy is 1, for every choice whose window fits, under "kernel,stride,padding,dilation"."""
    import minigrad
    import minigrad.functional as F  # noqa: N812

    found = {}
    for kernel, stride, padding, dilation in itertools.product(*CHOICES.values()):
        x = minigrad.Tensor([[X]], dtype="float64", requires_grad=True, device="textbook:0")
        w = minigrad.Tensor([[[row[:kernel] for row in W[:kernel]]]], dtype="float64", device="textbook:0")
        try:
            y = F.conv2d(x, w, None, stride, padding, dilation)
        except minigrad.ShapeError:
            continue
        y.sum().backward()
        assert x.grad is not None
        values = {"y": y.numpy()[0, 0].astype(int).tolist(), "dx": x.grad.numpy()[0, 0].astype(int).tolist()}
        found[f"{kernel},{stride},{padding},{dilation}"] = values
    return found


def parts() -> tuple[str, str]:
    """(HTML, script)."""
    found = results()
    rows = [
        [f"{kernel}", *(str(len(found[key]["y"])) if (key := f"{kernel},{stride},{padding},1") in found else "none"
                        for padding in (0, 1, 2) for stride in (1, 2, 3))]
        for kernel in CHOICES["kernel"]
    ]  # fmt: skip
    head = [
        "kernel",
        *(
            f"p\N{NO-BREAK SPACE}{padding}, s\N{NO-BREAK SPACE}{stride}"
            for padding in (0, 1, 2)
            for stride in (1, 2, 3)
        ),
    ]
    return player(
        "conv", {"x": X, "w": W, "choices": CHOICES, "results": found}, Path(__file__).with_suffix(".js"),
        "Choose an output and see what it sees; choose a pixel of x or dx and see which outputs see it.",
        rows_of(rows, head, caption="Rows of y for 6 rows of x, dilation 1"),
    )  # fmt: skip
