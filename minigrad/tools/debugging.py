"""`with minigrad.debug():`: every op remembers the line of the program that made it, and errors name that line.

    with minigrad.debug(check_finite=True):
        loss = F.cross_entropy(model(images), labels)
        loss.backward()

    NotFiniteError: log at train.py:12 (y = F.log(x)): 2 of 6 elements of the result (2, 3) are nan or inf, first
    [0, 1], though its inputs are finite

It listens where the profiler does (tracing.py).  So the engine knows nothing of it, and outside of such a block it
costs nothing.  With the profiler at work too, its tables have a row for each line.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arguments import flag
from ..errors import NotFiniteError, printable
from . import tracing

_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
_LONGEST = 60  # characters of a line of source that a message shows


@contextmanager
def debug(check_finite: bool = False) -> Iterator[None]:
    """Inside, the errors of an op and of its backward name the line of your program that called the op.

    Forward and backward must both run inside.  All threads take part.
    check_finite: look through every result and every gradient, and raise NotFiniteError where nan or inf comes up in
    one whose inputs were finite.  This reads all arrays once more, and waits for a card at every op.
    """
    check_finite = flag("debug", "check_finite", check_finite)
    before = tracing.recorder
    tracing.recorder = _Debugger(before, check_finite)
    try:
        yield
    finally:
        tracing.recorder = before


class _Debugger(tracing.PassingOn):
    def __init__(self, inner: tracing.Recorder | tracing.PassingOn | None, check_finite: bool):
        super().__init__(inner)
        self.check_finite = check_finite

    def forward(self, function: Any, *arrays: Any) -> Any:
        if not isinstance(self.inner, _Debugger):  # which says it
            function.name = f"{function.name} at {_line_of_the_program()}"  # what its errors call it from now on
        y = super().forward(function, *arrays)
        if self.check_finite:
            self._check(function, "the result", y, "its inputs", [x for x in arrays if _same_device(function, x)])
        return y

    def backward(self, node: Any, dy: Any) -> Any:
        grads = super().backward(node, dy)
        if self.check_finite:
            for position, (target, grad) in enumerate(zip(node.inputs, grads)):
                if target is not None and grad is not None and target.device is node.device:
                    self._check(node, f"the gradient of input {position}", grad, "the gradient of its output", [dy])
        return grads

    def _check(self, function: Any, what: str, y: Any, whats: str, inputs: list[Any]) -> None:
        device = function.device
        values = np.asarray(y) if isinstance(y, np.generic) else device.to_host(y)
        wrong = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros((), bool)
        if not wrong.any() or not all(np.isfinite(device.to_host(x)).all() for x in inputs if x.dtype.kind == "f"):
            return
        first = [int(i) for i in np.argwhere(wrong)[0]]
        raise NotFiniteError(
            f"{function.name}: {int(wrong.sum())} of {wrong.size} elements of {what} {values.shape} are nan or inf, "
            f"first {first}, though {whats} {'is' if 'gradient' in whats else 'are'} finite"
        )


def _same_device(function: Any, x: Any) -> bool:
    return isinstance(x, function.device.array_type)


def _line_of_the_program() -> str:
    """The innermost line being run that is not minigrad's: "train.py:12 (y = F.log(x))"."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (frame.f_code.co_filename.startswith((_PACKAGE, "<frozen "))):
        frame = frame.f_back
    file, number = frame.f_code.co_filename, frame.f_lineno
    source = printable(linecache.getline(file, number).strip())
    if len(source) > _LONGEST:
        source = source[: _LONGEST - 1] + "…"
    return f"{printable(Path(file).name)}:{number}" + (f" ({source})" if source else "")
