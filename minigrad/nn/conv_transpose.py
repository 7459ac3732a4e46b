"""The transposed convolution as a layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional as F
from ..base.arguments import flag, integer, padding_of, pair
from ..device import DeviceLike
from ..errors import ArgumentError
from ..tensor import Tensor
from . import init
from .layers import Size, no_bias, unusual
from .module import Module
from .parameter import Parameter


class ConvTranspose2d(Module):
    """Transposed convolution, `weight` (in_channels, out_channels / groups, kh, kw): see functional.conv_transpose2d.

    Settings as Conv2d's, and output_padding, less than stride or dilation.  First weights: he_normal_, where an output
    sums over in_channels / groups * kh * kw / (stride_h * stride_w) inputs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Any = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        device: DeviceLike | None = None,
        dtype: Any = None,
    ):
        in_channels = integer("ConvTranspose2d", "in_channels", in_channels, 1)
        out_channels = integer("ConvTranspose2d", "out_channels", out_channels, 1)
        groups = integer("ConvTranspose2d", "groups", groups, 1)
        kh, kw = pair("ConvTranspose2d", "kernel_size", kernel_size, 1)
        sh, sw = pair("ConvTranspose2d", "stride", stride, 1)
        gaps, more = (
            pair("ConvTranspose2d", "dilation", dilation, 1),
            pair("ConvTranspose2d", "output_padding", output_padding, 0),
        )
        padding_of("ConvTranspose2d", padding)
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(
                f"ConvTranspose2d: groups={groups} must divide in_channels={in_channels}, out_channels={out_channels}: "
                "take multiples of it"
            )
        if more[0] >= max(sh, gaps[0]) or more[1] >= max(sw, gaps[1]):
            raise ArgumentError(f"ConvTranspose2d: output_padding must be less than stride or dilation, got {more}")
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.groups, self.dilation = groups, dilation
        shape = in_channels, out_channels // groups, kh, kw
        self.weight = Parameter(np.zeros(shape, np.float32), device=device, dtype=dtype)
        self.bias = None
        if flag("ConvTranspose2d", "bias", bias):
            self.bias = Parameter(np.zeros(out_channels, np.float32), device=device, dtype=dtype)
        init.normal_(self.weight, std=math.sqrt(2 * groups * sh * sw / (in_channels * kh * kw)))

    def forward(self, x: Tensor) -> Tensor:
        settings = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return F.conv_transpose2d(x, self.weight, self.bias, *settings)

    def settings(self) -> str:
        in_channels, out_channels, kh, kw = self.weight.shape
        return (
            f"{in_channels}, {out_channels * self.groups}, kernel_size={(kh, kw)}"
            + unusual(self, stride=1, padding=0, output_padding=0, groups=1, dilation=1)
            + no_bias(self)
        )
