"""The nets of the claims: the AlexNet of alexnet.py, narrow, with something changed; and CIFAR-10's of four layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from alexnet import LAYERS, AlexNet, Preset

import minigrad.functional as F
from minigrad import Tensor, init, nn
from minigrad.errors import ArgumentError

from .setups import A_FIFTH, BEFORE_RELU, PLANS, Setup

PIXEL_SCALE = 1 / 58  # about the standard deviation of natural images' pixels
# Fitted first weights give conv1 outputs of spread 1.  Those of the paper are some 32 times larger, in units of grey
# levels: LRN does the same to responses so much smaller with an alpha 32^2 times as large.
FITTED_ALPHA = 1e-4 * 32**2
# The numbers that a unit of each layer reads in the paper's net.  Its weights have the standard deviation 0.01.
PAPER_FAN_IN = dict(zip(LAYERS, (363, 1200, 2304, 1728, 1728, 9216, 4096, 4096)))


def build(setup: Setup, classes: int, devices: Sequence[str]) -> Any:
    """The net of a setup, with first weights; `fit` is still to be called where they are fitted."""
    return (narrow_alexnet if setup.net == "alexnet" else CifarNet)(setup, classes, devices)


def fit(net: Any, setup: Setup, images: Tensor) -> None:
    """Scale the first weights to these training views, where the setup says so."""
    if setup.first == "fitted":
        nn.standardize_outputs(net, images, {net.columns[0].fc8 if setup.net == "alexnet" else net.fc10: 0.1})


# ---------------------------------------------------------------- AlexNet


def narrow_alexnet(setup: Setup, classes: int, devices: Sequence[str]) -> AlexNet:
    columns, widths = PLANS[setup.plan]
    apart = setup.plan == "two columns, apart"
    # Plans with other than two columns that talk are for one device: grouped, the columns give the same numbers.
    devices = devices[:1] if columns == 1 or apart or setup.without else devices
    steps = ("relu", "pool") if setup.norm == "none" else ("relu", "lrn", "pool")
    fitted = setup.first == "fitted"
    alpha = (FITTED_ALPHA if fitted else 1e-4) / (5 if setup.norm == A_FIFTH else 1)
    preset = Preset(
        columns=columns, widths=widths, conv1=(5, 2), pool=setup.pool,
        layer1=("lrn", "pool", "relu") if setup.norm == BEFORE_RELU else steps,
        layer2=("pool",) if setup.without == "conv2" else steps,
        lrn_alpha=alpha, bias=setup.bias,
        dropout="inverted" if fitted else "paper", pixel_scale=PIXEL_SCALE if fitted else 1.0,
    )  # fmt: skip
    net = AlexNet(classes, preset, devices, setup.crop, dropout=setup.dropout)
    if setup.without or apart:
        change(net, setup.without, apart)
    if not fitted:
        spread_as_in_the_paper(net)
    return net


def change(net: AlexNet, without: str, apart: bool) -> None:
    """Leave out a convolution, with its ReLU and normalisation, or let conv3 read its own column alone.

    What comes after it reads what it would have read; the pools stay, so that all maps keep their sizes.
    """
    (column,), (n1, n2, n3, *_) = net.columns, net.preset.widths
    g = column.g
    here = {"device": net.devices[0], "padding": 1}
    if apart:
        column.conv3 = nn.Conv2d(n2 * g, n3 * g, 3, groups=g, **here)
    if without == "conv2":
        column.conv3 = nn.Conv2d(n1 * g, n3 * g, 3, **here)
    if without == "conv3":  # and with it the columns' talk: conv4 reads its own
        column.conv4 = nn.Conv2d(n2 * g, column.conv4.weight.shape[0], 3, groups=g, **here)
    if without == "conv5":
        reads = column.conv4.weight.shape[0] * net.preset.side(net.input_size) ** 2
        column.fc6 = nn.Linear(reads, column.fc6.weight.shape[0], device=net.devices[0])
    if without:
        if without not in ("conv2", "conv3", "conv4", "conv5"):
            raise ArgumentError(f"a net can do without conv2, conv3, conv4 or conv5, got {without!r}")
        setattr(column, without, Through())
    net.initialize()


class Through(nn.Module):
    """Nothing, in the place of a convolution; a ReLU after it does nothing to what is 0 or more already."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def spread_as_in_the_paper(net: AlexNet) -> None:
    """Weights from N(0, s) whose sums over all inputs spread as those of the paper do: s = 0.01 sqrt(its / our inputs).

    With 0.01 itself a net of fewer inputs would pass on less at every layer, and start on a plateau of its own.
    """
    for name, parameter in net.named_parameters():
        layer, kind = name.split(".")[-2:]
        if kind == "weight":
            fan_in = math.prod(parameter.shape[1:])
            init.normal_(parameter, std=0.01 * math.sqrt(PAPER_FAN_IN[layer] / fan_in))


# ---------------------------------------------------------------- CIFAR-10


class CifarNet(nn.Module):
    """Four layers, as configuration 19pct of the original code: images (N, 3, S, S) to logits (N, classes).

        conv1 32 kernels 5x5, max-pool 3/2, activation; normalised where the setup says so
        conv2 32 kernels 5x5, activation, mean-pool 3/2; normalised where the setup says so
        conv3 64 kernels 5x5, activation, mean-pool 3/2
        fc10

    Pools round up: 32, 16, 8, 4 pixels a side.  The normalisation within maps is that of 18pct (3 x 3 pixels, alpha
    5e-5 in its code, divided by 9); across maps, of as many as the paper's, 5.
    """

    def __init__(self, setup: Setup, classes: int, devices: Sequence[str]):
        here: dict[str, Any] = {"device": devices[0]}
        self.norm = setup.norm
        self.activation = F.tanh if setup.activation == "tanh" else F.relu
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2, **here)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2, **here)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2, **here)
        side = setup.crop
        for _ in range(3):
            side = -(-(side - 3) // 2) + 1
        self.fc10 = nn.Linear(64 * side * side, classes, **here)
        if setup.first == "original":
            for layer, std in zip((self.conv1, self.conv2, self.conv3, self.fc10), (0.0001, 0.01, 0.01, 0.01)):
                init.normal_(layer.weight, std=std)
                init.constant_(layer.bias, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.normed(self.activation(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)))
        x = self.normed(F.avg_pool2d(self.activation(self.conv2(x)), 3, 2, ceil_mode=True))
        x = F.avg_pool2d(self.activation(self.conv3(x)), 3, 2, ceil_mode=True)
        return self.fc10(x.flatten(1))

    def normed(self, x: Tensor) -> Tensor:
        larger = (32 * 32) if self.norm != "none" else 1  # as FITTED_ALPHA
        if self.norm == "within":
            return F.lrn_within_map(x, n=3, k=1.0, alpha=larger * 5e-5 / 9, beta=0.75)
        if self.norm == "across":
            return F.lrn(x, n=5, k=1.0, alpha=larger * 5e-5 / 5, beta=0.75)
        return x
