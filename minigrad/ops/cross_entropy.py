"""Cross-entropy of the softmax: the loss of a classifier (multinomial logistic regression).

    p = softmax(x) along the classes
    loss_i = -log p[i, t_i] = log(sum_c exp(s[i, c])) - s[i, t_i],   s = x - max(x)
    dx[i, c] = dloss_i * (p[i, c] - [c = t_i])

t holds the true class of each row, and [c = t_i] is 1 for it and 0 for the others.  The derivative of
log(sum_c exp(s_c)) with respect to s_c is exp(s_c) / sum_c exp(s_c) = p_c, that of -s_t is -1 at the true class; the
maximum cancels out of the loss, so that the derivatives with respect to x and s are the same.

With weights w of the classes, label smoothing e, and rows that are left out, the true class becomes a distribution,

    q[i, c] = w_c ((1 - e) [c = t_i] + e / C),   0 in a row that is left out
    loss_i  = -sum_c q[i, c] log p[i, c],        the mean is their sum / (sum of w[t_i] over the rows that count)

which log_softmax, a product and a sum make of it.

Done in one op, the loss is finite for logits of 10,000 (the probability of the true class may underflow to 0, its
logarithm is never taken) and the gradient needs no division.

A gradient below the smallest normal number (1.2e-38 in float32) is set to 0.  There are many of them, since most
probabilities of a trained net are all but 0, and processors calculate with such numbers (denormal ones) many times
slower than with others: here, and in the matrix products of backward that follow.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5 ("maximizes the average across training cases of the
log-probability of the correct label").  Label smoothing: Szegedy et al. 2016 (arXiv 1512.00567), section 7.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import gpu
from ..base.arguments import number
from ..device import Device
from ..engine import Array, Function
from ..errors import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError
from ..gpu import THREADS
from ..gpu.sources import constants
from ..tensor import OPS, Tensor, apply, op
from ._checks import check_floating, check_rank, integer, one_of
from ._reduction import added_up

REDUCTIONS = ("mean", "sum", "none")


@op
def cross_entropy(
    logits: Tensor,
    target: Any,
    reduction: str = "mean",
    weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(logits)[target], averaged over the rows.

    logits: (N, C), float32 or float64, the scores before any softmax.
    target: (N,) integers 0 <= t < C, the true classes: a Tensor on the device of logits, an array, or a list.
    It is copied: changing it after the call does not change the gradient.
    reduction: "mean" (over rows; NaN for an empty batch, as in PyTorch), "sum", or "none", which returns (N,).
    weight: (C,) numbers >= 0, what a row of each class counts, also in the mean; a Tensor, array or list.
    ignore_index: a label whose rows do not count, such as -100, which is PyTorch's default.
    label_smoothing: 0 to 1, the share of the target that is spread over all classes.

    DTypeError for labels that are not integers, ShapeError where shapes do not fit, ArgumentError for a label
    outside 0..C-1 (the first offending label is named) and for settings out of range.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5.
    """
    check_floating("cross_entropy", logits=logits)
    check_rank("cross_entropy", "logits", logits, 2, "(N, C)")
    reduction = one_of("cross_entropy", "reduction", reduction, REDUCTIONS)
    if weight is None and ignore_index is None and type(label_smoothing) is float and label_smoothing == 0:
        return apply(CrossEntropy(_labels(target, logits.device, *logits.shape), reduction), logits)
    q, count = _distribution(logits, target, weight, ignore_index, label_smoothing)
    log_p = OPS["where"](q != 0, OPS["log_softmax"](logits, 1), 0.0)  # where q is 0, log p may be -inf
    losses = -(q * log_p).sum(1)
    if reduction == "mean":
        return losses.sum() / (count or math.nan)  # of no rows it is NaN
    return losses if reduction == "none" else losses.sum()


class CrossEntropy(Function, name="cross_entropy"):
    def __init__(self, t: Array, reduction: str):
        self.t, self.reduction = t, reduction
        self.divisor = len(t) if reduction == "mean" else 1

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        # NaN without a warning: a row with +inf, or of nothing but -inf; the mean over no rows, which is 0/0.
        with np.errstate(invalid="ignore"):
            s = x - x.max(axis=1, keepdims=True, initial=-np.inf)
            powers = np.exp(s)
            total = added_up(powers, (1,))
            self.p = powers / total[:, None]
            loss = np.log(total) - s[np.arange(len(x)), self.t]
            return loss if self.reduction == "none" else loss.sum() / self.divisor

    def backward(self, dy: Array) -> Array:
        dloss = dy[:, None] if self.reduction == "none" else dy / max(1, self.divisor)
        dx = self.p.copy()
        dx[np.arange(len(dx)), self.t] -= 1  # [c = t_i]
        dx *= dloss
        dx[np.abs(dx) < np.finfo(dx.dtype).tiny] = 0
        return dx

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        x, rows = self.device.contiguous(x), len(x)
        self.t = t = self.device.upload(self.t, np.int64)
        self.p = p = self.device.empty_like(x)
        loss = self.device.empty((rows,), x.dtype)
        self.launch("cross_entropy_forward", x, t, p, loss, *x.shape)
        if self.reduction == "none":
            return loss
        y = self.device.empty((), x.dtype)
        self.device.launch(
            "cross_entropy", "cross_entropy_total", 1, THREADS, loss, y, rows, self.divisor, REAL=x.dtype
        )
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy, p, t = self.device.contiguous(dy), self.p, self.t
        dx = self.device.empty_like(p)
        dy_step = int(self.reduction == "none")
        tiny = np.finfo(dx.dtype).tiny
        self.launch("cross_entropy_backward", dy, p, t, dx, *p.shape, dy_step, self.divisor, tiny)
        return dx

    def launch(self, kernel: str, *args: Any) -> None:
        """A kernel that gives each row a block, no larger than the row."""
        rows, classes = self.p.shape
        (warp,) = constants("cross_entropy", "WARP")
        grid, block = min(rows, gpu.MOST_BLOCKS), min(THREADS, warp * gpu.blocks(max(1, classes), warp))
        self.device.launch("cross_entropy", kernel, grid, block, *args, REAL=self.p.dtype)


def _distribution(
    logits: Tensor, target: Any, weight: Any, ignore_index: Any, label_smoothing: Any
) -> tuple[Tensor, float]:
    """q of the formula, and by what the mean divides."""
    name, (n, classes) = "cross_entropy", logits.shape
    smoothing = number(name, "label_smoothing", label_smoothing, minimum=0)
    if smoothing > 1:
        raise ArgumentError(f"{name}: label_smoothing must be at most 1, got {smoothing}: it is a share of the target")
    w = np.ones(classes) if weight is None else np.asarray(weight.numpy() if isinstance(weight, Tensor) else weight)
    if w.shape != (classes,):
        raise ShapeError(f"{name}: weight must have shape ({classes},), a number per class, it has {w.shape}")
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise GraphError(f"{name}: weight is a constant, but requires a gradient: .detach() it")
    if w.dtype.kind not in "fiu" or not (np.isfinite(w) & (w >= 0)).all():
        raise ArgumentError(f"{name}: weight must be finite numbers >= 0, got {w.tolist()}")
    counts = np.ones(n, bool)
    if ignore_index is not None:
        ignored = integer(name, "ignore_index", ignore_index)
        if isinstance(target, Tensor) and target.device is logits.device:
            target = target.numpy()
        given = np.asarray(target) if isinstance(target, (np.ndarray, list, tuple)) else target
        if isinstance(given, np.ndarray) and given.shape == (n,) and given.dtype.kind in "iu":
            counts = given != ignored
            target = np.where(counts, given, given.dtype.type(0)) if classes else given
    t = _labels(target, logits.device, n, classes)
    q = np.full((n, classes), smoothing / max(1, classes))
    q[np.arange(n), t] += 1 - smoothing
    q *= w * counts[:, None]
    return Tensor(q, device=logits.device, dtype=logits.dtype), float((w[t] * counts).sum())


def _labels(target: Any, where: Device, n: int, classes: int) -> Array:
    """The labels as a NumPy array of indices, a copy; raises as cross_entropy says."""
    if isinstance(target, Tensor) and target.device is not where:
        raise DeviceError(
            f"cross_entropy: logits on {where}, target on {target.device}: bring them together with .to()"
        )
    try:
        t = target.numpy() if isinstance(target, Tensor) else np.asarray(target)
    except ValueError:
        raise ShapeError("cross_entropy: target is a ragged list; it must be a flat list of N labels") from None
    # An empty list arrives as one of floats.
    if t.shape == (n,) and (n == 0 or t.dtype.kind in "iu" and ((t >= 0) & (t < classes)).all()):
        return t.astype(np.intp)
    raise _wrong_labels(t, n, classes)


def _wrong_labels(t: Array, n: int, classes: int) -> Exception:
    """What to raise for labels that are not n integers 0 <= t < classes; it names the first that is not."""
    if t.shape != (n,):
        return ShapeError(
            f"cross_entropy: target must have shape ({n},) for logits {(n, classes)}, it has {t.shape}: "
            "one class number per row, not one-hot rows"
        )
    if t.dtype.kind not in "iu":
        i = int(np.argmax(t % 1 != 0)) if t.dtype.kind == "f" else 0
        return DTypeError(
            f"cross_entropy: target must be integers, is {t.dtype}: target[{i}] = {t.tolist()[i]}: use .astype(int)"
        )
    wrong = (t < 0) | (t >= classes)
    i = int(wrong.argmax())
    return ArgumentError(
        f"cross_entropy: target[{i}] = {t[i].item()}, but logits {(n, classes)} have the classes "
        f"0..{classes - 1} ({int(wrong.sum())} label(s) out of range): count classes from 0"
    )
