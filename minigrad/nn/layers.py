"""The layers: a function of minigrad.functional each, with its parameters and settings.

Weights start from He's normal distribution (init.he_normal_) and biases from 0, drawn from the generator of
the layer's device; `minigrad.init` has others.  `device` and `dtype` are those of the parameters: the first
of default_devices() and float32 when left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import functional as F
from ..base.arguments import flag, integer, number, padding_of, pair
from ..device import DeviceLike, default_device
from ..device import device as device_named
from ..errors import ArgumentError
from ..tensor import Tensor
from . import init
from .module import Module
from .parameter import Parameter

Size = int | tuple[int, int]


def _parameter(shape: tuple[int, ...], device: DeviceLike | None, dtype: Any) -> Parameter:
    return Parameter(np.zeros(shape, np.float32), device=device, dtype=dtype)


class Conv2d(Module):
    """Convolution of (N, in_channels, H, W) with `weight` (out_channels, in_channels / groups, kh, kw) and `bias`.

    kernel_size, stride and dilation: an int or (vertical, horizontal); padding also ((top, bottom), (left, right)).
    ArgumentError for settings out of range, PyTorch's padding="same" too; see functional.conv2d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Any = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        device: DeviceLike | None = None,
        dtype: Any = None,
    ):
        in_channels = integer("Conv2d", "in_channels", in_channels, 1)
        out_channels = integer("Conv2d", "out_channels", out_channels, 1)
        groups = integer("Conv2d", "groups", groups, 1)
        kh, kw = pair("Conv2d", "kernel_size", kernel_size, 1)
        pair("Conv2d", "stride", stride, 1)
        pair("Conv2d", "dilation", dilation, 1)
        padding_of("Conv2d", padding)
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(
                f"Conv2d: groups={groups} must divide in_channels={in_channels}, out_channels={out_channels}: take "
                "multiples of it"
            )
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        where = default_device() if device is None else device_named(device)
        memory = np.zeros((out_channels, in_channels // groups, kh, kw), np.float32)
        if where.on_host:  # a kernel is stored like an image there, channels last: a matrix for conv2d, without a copy
            memory = np.zeros((out_channels, kh, kw, in_channels // groups), np.float32).transpose(0, 3, 1, 2)
        self.weight = Parameter(memory, device=where, dtype=dtype)
        self.bias = _parameter((out_channels,), device, dtype) if flag("Conv2d", "bias", bias) else None
        init.he_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def settings(self) -> str:
        out_channels, in_channels, kh, kw = self.weight.shape
        return (
            f"{in_channels * self.groups}, {out_channels}, kernel_size={(kh, kw)}"
            + unusual(self, stride=1, padding=0, dilation=1, groups=1)
            + no_bias(self)
        )


class Linear(Module):
    """x weight^T + bias: (..., in_features) to (..., out_features), weight (out_features, in_features)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: DeviceLike | None = None,
        dtype: Any = None,
    ):
        in_features = integer("Linear", "in_features", in_features, 1)
        out_features = integer("Linear", "out_features", out_features, 1)
        self.weight = _parameter((out_features, in_features), device, dtype)
        self.bias = _parameter((out_features,), device, dtype) if flag("Linear", "bias", bias) else None
        init.he_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def settings(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}" + no_bias(self)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope * x."""

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = number("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.negative_slope)

    def settings(self) -> str:
        return f"negative_slope={self.negative_slope}"


class Softplus(Module):
    """log(1 + exp(beta x)) / beta."""

    def __init__(self, beta: float = 1.0):
        self.beta = number("Softplus", "beta", beta, above=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x, self.beta)

    def settings(self) -> str:
        return f"beta={self.beta}"


class Tanh(Module):
    """tanh(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class _Pool2d(Module):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Any = 0, ceil_mode: bool = False):
        layer = type(self).__name__
        self.kernel_size, self.padding, self.ceil_mode = kernel_size, padding, flag(layer, "ceil_mode", ceil_mode)
        self.stride = kernel_size if stride is None else stride
        pair(layer, "kernel_size", kernel_size, 1)
        pair(layer, "stride", self.stride, 1)
        padding_of(layer, padding)

    def settings(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}" + unusual(self, padding=0, ceil_mode=False)


class MaxPool2d(_Pool2d):
    """The maximum of each window; stride None: the window's size.  See functional.max_pool2d."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode)


class AvgPool2d(_Pool2d):
    """The mean of each window; the stride is the window's size when left out.  See functional.avg_pool2d.

    count_include_pad: whether the zeros of the padding count as pixels.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = flag("AvgPool2d", "count_include_pad", count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def settings(self) -> str:
        return super().settings() + unusual(self, count_include_pad=True)


class AdaptiveAvgPool2d(Module):
    """The means of OH x OW windows that cover the image; output_size 1 is global average pooling.

    See functional.adaptive_avg_pool2d.
    """

    def __init__(self, output_size: Size):
        pair("AdaptiveAvgPool2d", "output_size", output_size, 1)
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def settings(self) -> str:
        return f"output_size={self.output_size}"


class LRN(Module):
    """Local response normalisation across n neighbouring channels of each group, x / (k + alpha * sum x^2)^beta.

    The defaults are the paper's.  Other programs divide alpha by n: see functional.lrn.
    """

    def __init__(self, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, groups: int = 1):
        F.lrn(_no_image(), n, k, alpha, beta, groups)  # wrong settings are refused here already
        self.n, self.k, self.alpha, self.beta, self.groups = n, k, alpha, beta, groups

    def forward(self, x: Tensor) -> Tensor:
        return F.lrn(x, self.n, self.k, self.alpha, self.beta, self.groups)

    def settings(self) -> str:
        return f"n={self.n}, k={self.k}, alpha={self.alpha}, beta={self.beta}" + unusual(self, groups=1)


class LRNWithinMap(Module):
    """Response normalisation within each channel, over n x n pixels: see functional.lrn_within_map."""

    def __init__(self, n: int = 5, k: float = 1.0, alpha: float = 4e-5, beta: float = 0.75):
        F.lrn_within_map(_no_image(), n, k, alpha, beta)  # wrong settings are refused here already
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        return F.lrn_within_map(x, self.n, self.k, self.alpha, self.beta)

    def settings(self) -> str:
        return f"n={self.n}, k={self.k}, alpha={self.alpha}, beta={self.beta}"


class Dropout(Module):
    """Each element times 0 with probability p while `training`; form: see functional.dropout."""

    def __init__(self, p: float = 0.5, form: str = "inverted"):
        F.dropout(_no_image(), p, False, form)  # wrong settings are refused here already
        self.p, self.form = p, form

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training, self.form)

    def settings(self) -> str:
        return f"p={self.p}, form={self.form!r}"


class Flatten(Module):
    """Axes from `start_dim` on become one: images (N, C, H, W) become rows (N, C * H * W), channels first."""

    def __init__(self, start_dim: int = 1):
        self.start_dim = integer("Flatten", "start_dim", start_dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, self.start_dim)


class Sequential(Module):
    """Modules applied one after the other, named "0", "1", ... or as given.

        Sequential(Linear(4, 8), ReLU())
        Sequential(fc=Linear(4, 8), relu=ReLU())
        Sequential({"fc": Linear(4, 8), "relu": ReLU()})

    Iterates over its modules; `net[0]`, `net[-1]` and `net["fc"]` are modules, `net[:2]` is a Sequential of
    the same modules under the same names.
    """

    def __init__(self, *modules: Module | Mapping[str, Module], **named: Module):
        entries: list[tuple[str, Any]] = []
        for i, module in enumerate(modules):
            entries += module.items() if isinstance(module, Mapping) else [(str(i), module)]
        for name, module in [*entries, *named.items()]:
            if not isinstance(module, Module):
                raise ArgumentError(
                    f"Sequential: {name} must be a Module, got {type(module).__name__}: {module!r}: give layers that "
                    "are made, ReLU() and not ReLU, and put a function into a Module's forward"
                )
            if not isinstance(name, str) or not name or "." in name or hasattr(self, name):
                raise ArgumentError(
                    f"Sequential: a module cannot be named {name!r}: empty, dotted, taken, or a method's name; "
                    "choose another"
                )
            setattr(self, name, module)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, which: int | str | slice) -> Any:
        entries = dict(self.named_children())
        if isinstance(which, slice):
            return Sequential(dict(list(entries.items())[which]))
        if isinstance(which, str):
            return entries[which]
        return list(entries.values())[which]


class CrossEntropyLoss(Module):
    """functional.cross_entropy(logits, target) with these settings; weight: (C,) numbers, an array or a list."""

    def __init__(
        self,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
    ):
        self.weight, classes = None, 1
        if weight is not None:
            self.weight = np.array(weight.numpy() if isinstance(weight, Tensor) else weight)
            classes = self.weight.size
        self.reduction, self.ignore_index, self.label_smoothing = reduction, ignore_index, label_smoothing
        self.forward(Tensor(np.zeros((0, classes), np.float32), device="cpu:0"), [])  # refuses wrong settings already

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        more = self.weight, self.ignore_index, self.label_smoothing
        return F.cross_entropy(logits, target, self.reduction, *more)

    def settings(self) -> str:
        weight = "" if self.weight is None else f", weight={self.weight.tolist()}"
        return f"reduction={self.reduction!r}{weight}" + unusual(self, ignore_index=None, label_smoothing=0.0)


def _no_image() -> Tensor:
    """What a function is called with for its checks of settings alone: (0, 0, 1, 1), so every number of groups fits."""
    return Tensor(np.zeros((0, 0, 1, 1), np.float32), device="cpu:0")


def no_bias(layer: Any) -> str:
    return ", bias=False" if layer.bias is None else ""


def unusual(layer: Module, **usual: Any) -> str:
    """', name=value' for each setting that is not the usual one."""
    return "".join(f", {name}={getattr(layer, name)}" for name, value in usual.items() if getattr(layer, name) != value)
