"""Cross-entropy of the softmax: the loss of a classifier (multinomial logistic regression).

    p = softmax(x) along the classes
    loss_i = -log p[i, t_i] = log(sum_c exp(s[i, c])) - s[i, t_i],   s = x - max(x)
    dx[i, c] = dloss_i * (p[i, c] - [c = t_i])

t holds the true class of each row.  Done in one op, the loss is finite for logits of 10,000 (the probability
of the true class may underflow to 0, its logarithm is never taken) and the gradient needs no division.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5 ("maximizes the average across training cases of the
log-probability of the correct label").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..errors import ArgumentError, DeviceError, DTypeError, ShapeError
from ..gpu import THREADS
from ..kernel import constants
from ..memory import empty_like
from ..tensor import Tensor, apply, op
from ._checks import check_floating, check_rank, one_of
from ._reduction import added_up

REDUCTIONS = ("mean", "sum", "none")


class CrossEntropy(Function, name="cross_entropy"):
    def __init__(self, t: Array, reduction: str):
        self.t, self.reduction = t, reduction

    def forward_cpu(self, x: Array) -> Array:
        self.rows = np.arange(len(x))
        # NaN without a warning: a row with +inf, or of nothing but -inf; the mean over no rows, which is 0/0.
        with np.errstate(invalid="ignore"):
            s = np.subtract(x, x.max(axis=1, keepdims=True, initial=-np.inf), out=empty_like(x))
            true = s[self.rows, self.t]
            self.p = np.exp(s, out=s)
            total = added_up(self.p, (1,))
            self.p /= total[:, None]
            loss = np.log(total) - true
            if self.reduction == "none":
                return loss
            return loss.sum() / x.dtype.type(len(x) if self.reduction == "mean" else 1)

    def backward_cpu(self, dy: Array) -> Array:
        dx = empty_like(self.p)
        np.copyto(dx, self.p)
        dloss = dy[:, None] if self.reduction == "none" else dy
        if self.reduction == "mean":
            dloss = dloss / dx.dtype.type(max(1, len(dx)))
        dx[self.rows, self.t] -= 1
        dx *= dloss
        # Probabilities that are all but 0 become gradients so small that processors handle them slowly
        # (denormal numbers), and the matrix products that follow with them.
        dx[np.abs(dx) < np.finfo(dx.dtype).tiny] = 0
        return dx

    def forward_gpu(self, x: Array) -> Array:
        x, rows = gpu.contiguous(self.device, x), len(x)
        self.t = t = gpu.upload(self.device, self.t, np.int64)
        self.p = p = gpu.empty_like(self.device, x)
        loss = gpu.empty(self.device, (rows,), x.dtype)
        self.launch("cross_entropy_forward", x, t, p, loss, *x.shape)
        if self.reduction == "none":
            return loss
        y = gpu.empty(self.device, (), x.dtype)
        divisor = rows if self.reduction == "mean" else 1
        gpu.launch(
            self.device, "cross_entropy", "cross_entropy_total", 1, THREADS, loss, y, rows, divisor, REAL=x.dtype
        )
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy, p, t = gpu.contiguous(self.device, dy), self.p, self.t
        dx = gpu.empty_like(self.device, p)
        dy_step = int(self.reduction == "none")
        divisor = len(p) if self.reduction == "mean" else 1
        tiny = np.finfo(dx.dtype).tiny
        self.launch("cross_entropy_backward", dy, p, t, dx, *p.shape, dy_step, divisor, tiny)
        return dx

    def launch(self, kernel: str, *args: Any) -> None:
        """A kernel that gives each row a block, no larger than the row."""
        rows, classes = self.p.shape
        (warp,) = constants("cross_entropy", "WARP")
        grid, block = min(rows, gpu.MOST_BLOCKS), min(THREADS, warp * gpu.blocks(max(1, classes), warp))
        gpu.launch(self.device, "cross_entropy", kernel, grid, block, *args, REAL=self.p.dtype)


@op
def cross_entropy(logits: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """-log softmax(logits)[target], averaged over the rows.

    logits: (N, C), float32 or float64, the scores before any softmax.
    target: (N,) integers 0 <= t < C, the true classes: a Tensor on the device of logits, an array, or a list.
    It is copied: changing it after the call does not change the gradient.
    reduction: "mean" (over rows; NaN for an empty batch, as in PyTorch), "sum", or "none", which returns (N,).

    DTypeError for labels that are not integers, ShapeError where shapes do not fit, ArgumentError for a label
    outside 0..C-1; the first offending label is named.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5.
    """
    check_floating("cross_entropy", logits=logits)
    check_rank("cross_entropy", "logits", logits, 2, "(N, C)")
    reduction = one_of("cross_entropy", "reduction", reduction, REDUCTIONS)
    return apply(CrossEntropy(_checked_labels(target, logits), reduction), logits)


def _checked_labels(target: Any, logits: Tensor) -> Array:
    """The labels as a NumPy array of indices, a copy; raises as cross_entropy says."""
    n, classes = logits.shape
    where = logits.device
    if isinstance(target, Tensor) and target.device is not where:
        raise DeviceError(
            f"cross_entropy: logits on {where}, target on {target.device}: bring them together with .to()"
        )
    try:
        labels = target.numpy() if isinstance(target, Tensor) else np.asarray(target)
    except ValueError:
        raise ShapeError("cross_entropy: target is a ragged list; it must be a flat list of N labels") from None
    if labels.shape != (n,):
        raise ShapeError(
            f"cross_entropy: target must have shape ({n},) for logits {logits.shape}, it has {labels.shape}: "
            "one class number per row, not one-hot rows"
        )
    if n and labels.dtype.kind not in "iu":  # an empty list arrives as floats
        i = int(np.argmax(labels % 1 != 0)) if labels.dtype.kind == "f" else 0
        raise DTypeError(
            f"cross_entropy: target must be integers, is {labels.dtype}: target[{i}] = {labels.tolist()[i]}"
        )
    indices = labels.astype(np.intp)
    if (indices.view(np.uintp) >= classes).any():  # negative ones come last there
        wrong = (labels < 0) | (labels >= classes)
        i = int(wrong.argmax())
        raise ArgumentError(
            f"cross_entropy: target[{i}] = {labels[i].item()}, but logits {logits.shape} have the classes "
            f"0..{classes - 1} ({int(wrong.sum())} label(s) out of range)"
        )
    return indices
