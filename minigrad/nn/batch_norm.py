"""Batch normalisation as layers: parameters, and the running statistics as buffers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..base.arguments import flag, integer, number
from ..base.grad_mode import no_grad
from ..device import DeviceLike
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from .layers import unusual
from .module import Module
from .parameter import Buffer, Parameter


class _BatchNorm(Module):
    axes: dict[int, str]  # how many x may have, and which they are

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: DeviceLike | None = None,
        dtype: Any = None,
    ):
        layer = type(self).__name__
        channels = integer(layer, "num_features", num_features, 1)
        self.eps = number(layer, "eps", eps, minimum=0)
        self.momentum = None if momentum is None else number(layer, "momentum", momentum, minimum=0)
        if self.momentum is not None and self.momentum > 1:
            raise ArgumentError(f"{layer}: momentum must be at most 1, or None, got {momentum}: it is a batch's share")
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        self.running_mean: Buffer | None = None
        self.running_var: Buffer | None = None
        self.num_batches_tracked: Buffer | None = None
        if flag(layer, "affine", affine):
            self.weight = Parameter(np.ones(channels, np.float32), device=device, dtype=dtype)
            self.bias = Parameter(np.zeros(channels, np.float32), device=device, dtype=dtype)
        if flag(layer, "track_running_stats", track_running_stats):
            self.running_mean = Buffer(np.zeros(channels, np.float32), device, dtype)
            self.running_var = Buffer(np.ones(channels, np.float32), device, dtype)
            self.num_batches_tracked = Buffer(np.array(0, np.int64), device)
        self.num_features, self.affine, self.track_running_stats = channels, affine, track_running_stats

    def forward(self, x: Tensor) -> Tensor:
        layer, training = type(self).__name__, self.training or self.running_mean is None
        if isinstance(x, Tensor) and (x.ndim not in self.axes or x.shape[1] != self.num_features):
            raise ShapeError(
                f"{layer}: x must be {' or '.join(self.axes.values())} with C = {self.num_features} channels, "
                f"it is {x.shape}: reshape it, or make the layer for its channels"
            )
        momentum = 0.1 if self.momentum is None else self.momentum
        if self.momentum is None and self.num_batches_tracked is not None:
            momentum = 1 / (int(self.num_batches_tracked) + 1)
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training, momentum, self.eps)
        if training and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked += 1
        return y

    def settings(self) -> str:
        return f"{self.num_features}" + unusual(self, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W), C = num_features: see functional.batch_norm.

    Parameters weight (1 at first) and bias (0), unless affine is False.  Buffers running_mean, running_var and
    num_batches_tracked, which while `training` follow the batches' and after `.eval()` take their place; with
    track_running_stats=False there are none, and every batch is normalised by itself, always.
    momentum: how far they go towards each batch's; None: they are the mean over all batches.
    """

    axes = {4: "(N, C, H, W)"}


class BatchNorm1d(_BatchNorm):
    """The same for rows (N, C) and sequences (N, C, L)."""

    axes = {2: "(N, C)", 3: "(N, C, L)"}
