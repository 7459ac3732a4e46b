"""LeNet-5, the network of 1998 that AlexNet grew from, and the same net with today's parts.

Source: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", section II.B
and figure 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minigrad
import minigrad.functional as F
from minigrad import Tensor, init, nn
from minigrad.errors import ArgumentError

VARIANTS = ("1998", "relu")

# Table I: the maps of S2 that each of the 16 maps of C3 reads.
TABLE_I = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


def squash(a: Tensor) -> Tensor:
    """1.7159 tanh(2/3 a): near 1 where a is 1, so that signals of size 1 stay of size 1 (appendix A)."""
    return F.tanh(a * (2 / 3)) * 1.7159


class TableConv2d(nn.Conv2d):
    """A convolution whose map o reads only the input maps table[o]; the other weights are and stay 0."""

    def __init__(self, in_channels: int, table: tuple[tuple[int, ...], ...], kernel_size: int, **here: Any):
        super().__init__(in_channels, len(table), kernel_size, **here)
        mask = np.zeros((len(table), in_channels, 1, 1))
        for o, maps in enumerate(table):
            mask[o, list(maps)] = 1
        self.mask = Tensor(mask, device=self.weight.device, dtype=self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        # The product also masks the gradient: a weight that starts at 0 stays 0.
        return F.conv2d(x, self.weight * self.mask, self.bias)

    def num_parameters(self) -> int:
        """How many numbers there are to train: the weights left out are none."""
        kh, kw = self.weight.shape[2:]
        return super().num_parameters() - int((self.mask.numpy() == 0).sum()) * kh * kw


class Subsample(nn.Module):
    """squash(c * (sum of each 2x2 window) + b), a trainable coefficient c and bias b per map."""

    def __init__(self, maps: int, device: str | None = None, dtype: Any = np.float32):
        self.coefficient = nn.Parameter(np.full((maps, 1, 1), 1 / 4), device=device, dtype=dtype)  # the mean
        self.bias = nn.Parameter(np.zeros((maps, 1, 1)), device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return squash(F.avg_pool2d(x, 2) * (self.coefficient * 4) + self.bias)


class LeNet5(nn.Module):
    """Images (N, 1, 32, 32) to logits (N, num_classes), in two variants.

        layer    "1998"                                    "relu"                       output
        C1       6 maps, 5x5, squashed                     ReLU                         6 x 28 x 28
        S2       sum of 2x2, coefficient, bias, squashed   max of 2x2                   6 x 14 x 14
        C3       16 maps, 5x5, connected by Table I        all to all, ReLU             16 x 10 x 10
        S4       as S2                                     as S2                        16 x 5 x 5
        C5       120 units, squashed                       ReLU                         120
        F6       84 units, squashed                        ReLU                         84
        output   num_classes logits                        the same                     num_classes

    "1998" has the paper's 60,000 parameters up to F6, layer by layer, and its squashing function everywhere.
    What differs from the paper, and why:
    - Output: a linear layer and softmax cross-entropy.  The paper measured distances of F6 to drawn pictures of
      the characters (Gaussian radial basis functions), which tell an O from a 0 but mean nothing for shoes.
    - C5 is a Linear layer.  The paper calls it a convolution because on larger inputs it would give a map, but
      on 32x32 its 5x5 windows see all of S4, which is full connection.
    - First weights: normal with standard deviation 1 / sqrt(fan-in) (LeCun, Bottou, Orr, Müller 1998,
      "Efficient BackProp", section 4.6), coefficients 1/4, biases 0.  The paper: evenly from +-2.4 / fan-in.
    - Training: Adam on batches.  The paper took one image at a time, with a step size for each weight from
      second derivatives.
    "relu": He's first weights.
    """

    def __init__(self, num_classes: int = 10, variant: str = "1998", device: str | None = None, dtype: Any = "float32"):
        if variant not in VARIANTS:
            raise ArgumentError(f"LeNet5: variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        here: dict[str, Any] = {"device": device, "dtype": dtype}
        relu = variant == "relu"
        self.activation = F.relu if relu else squash
        self.c1 = nn.Conv2d(1, 6, 5, **here)
        self.s2: nn.Module = nn.MaxPool2d(2) if relu else Subsample(6, **here)
        self.c3 = nn.Conv2d(6, 16, 5, **here) if relu else TableConv2d(6, TABLE_I, 5, **here)
        self.s4: nn.Module = nn.MaxPool2d(2) if relu else Subsample(16, **here)
        self.c5 = nn.Linear(16 * 5 * 5, 120, **here)
        self.f6 = nn.Linear(120, 84, **here)
        self.output = nn.Linear(84, num_classes, **here)
        if not relu:  # the layers' own first weights are He's
            self.initialize()

    def initialize(self) -> None:
        for layer in (self.c1, self.c3, self.c5, self.f6, self.output):
            init.normal_(layer.weight, std=1 / math.sqrt(math.prod(layer.weight.shape[1:])))
        with minigrad.no_grad():
            mask = self.c3.mask
            self.c3.weight *= mask * (6 / mask.sum(axis=1, keepdims=True)) ** 0.5  # fan-in: 3, 4 or 6 maps

    def forward(self, images: Tensor) -> Tensor:
        x = self.s2(self.activation(self.c1(images)))
        x = self.s4(self.activation(self.c3(x)))
        x = self.activation(self.c5(x.flatten(1)))
        x = self.activation(self.f6(x))
        return self.output(x)

    def num_parameters(self) -> int:
        """How many numbers there are to train, layer by layer: C3 does not count the weights it leaves out."""
        return sum(layer.num_parameters() for layer in self.children())
