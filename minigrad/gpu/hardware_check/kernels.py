"""How fast the kernels that a step of AlexNet spends its time in are, against what this card does at most.

Convolutions layer by layer against its arithmetic, ops that only move numbers against its memory, and those on small
arrays beside a launch that does nothing.  All is measured in the same run, by the card's clock (see roofline.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ... import functional as F
from ... import gpu
from ...device import Device
from ...optim import SGD
from ...tensor import Tensor
from .compare import TF32, usable, using
from .report import COLUMNS, EMULATED, Part, table, verdict
from .roofline import CARD, EMULATOR, Effort, Peaks, measured, peaks

Shape = tuple[int, ...]
Op = Callable[..., Tensor]
Job = Callable[[], Iterator[tuple[str, ...]]]

# AlexNet's convolutions: x, w, settings; the first number of x stands for the images of a batch.
LAYERS: dict[str, tuple[Shape, Shape, dict[str, Any]]] = {
    "conv1": ((1, 3, 224, 224), (96, 3, 11, 11), {"stride": 4, "padding": ((0, 3), (0, 3))}),
    "conv2": ((1, 96, 27, 27), (256, 48, 5, 5), {"padding": 2, "groups": 2}),
    "conv3": ((1, 256, 13, 13), (384, 256, 3, 3), {"padding": 1}),
    "conv4": ((1, 384, 13, 13), (384, 192, 3, 3), {"padding": 1, "groups": 2}),
    "conv5": ((1, 384, 13, 13), (256, 192, 3, 3), {"padding": 1, "groups": 2}),
}
FIRST_LAYERS = ("conv2", "conv1", "conv3")  # of a quick check

# Ops that wait for memory: the arrays that they read and write, forward and backward ("": not timed).
MOVERS: dict[str, tuple[Op, str, str]] = {
    "lrn": (lambda x: F.lrn(x, 5, 2.0, 1e-4, 0.75, groups=2), "x y", "dy x dx"),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2), "x y", "dy dx"),
    "relu": (F.relu, "x y", "dy y dx"),
    "dropout": (lambda x: F.dropout(x, 0.5), "x y", "dy dx"),
    "bias": (lambda x, b: x + b, "x b y", "dy db"),
    "concat": (lambda x: F.concat([x, x], 1), "x x y", ""),
    "copy": (lambda x: F.transpose(x, *range(x.ndim - 2), x.ndim - 1, x.ndim - 2).flatten(1), "x y", ""),
    "softmax": (F.softmax, "x y", "dy y dx"),
}
# Of each: the large input (150 MB for 128 images), and the small one (of one image, or of the fully connected layers).
LARGE: Mapping[str, Shape] = {name: (128, 96, 55, 55) for name in MOVERS if name != "softmax"}
SMALL: Mapping[str, Shape] = {
    "lrn": (1, 96, 55, 55),
    "max_pool2d": (1, 256, 13, 13),
    "relu": (128, 4096),
    "dropout": (128, 4096),
    "bias": (128, 4096),
    "concat": (1, 128, 13, 13),
    "copy": (128, 4096),
    "softmax": (128, 1000),
}
LARGE_PARAMETER, SMALL_PARAMETER = (4096, 9216), (4096,)  # the weights of fc6, and its bias


def kernels(part: Part, device: Device, batch: int, quick: bool) -> None:
    """A row for each op and direction, with its target."""
    on_card = device.kind == "cuda"
    effort = CARD if on_card else EMULATOR
    most = peaks(device, effort)
    empty = measured(device, _empty(device), effort.seconds)
    part.head(
        *([] if on_card else [EMULATED]),
        f"{device}: {most.bandwidth / 1e9:.3g} GB/s (a copy, read and written), {most.flops / 1e12:.3g} TFLOP/s in "
        f"float32 (multiply-adds in registers), {empty * 1e6:.3g} us for a launch that does next to nothing.  Batch "
        f"{batch}, float32.  Bytes and operations are those of the formula.",
        "",
        *table(COLUMNS),
    )
    scale = partial(_scaled, on_card, batch)
    convolution = partial(_convolution, device, batch, on_card, effort, most)
    mover, update = partial(_mover, device, effort, most), partial(_update, device, effort, most)
    jobs = [(name, partial(convolution, name, "")) for name in (FIRST_LAYERS if quick else LAYERS)]
    jobs += [(f"{name}, {scale(of)}", partial(mover, name, scale(of), None)) for name, of in LARGE.items()]
    jobs.append((f"SGD, {scale(LARGE_PARAMETER)}", partial(update, scale(LARGE_PARAMETER), None)))
    jobs += [(f"{name}, {scale(of)}", partial(mover, name, scale(of), empty)) for name, of in SMALL.items()]
    jobs.append((f"SGD, {scale(SMALL_PARAMETER)}", partial(update, scale(SMALL_PARAMETER), empty)))
    jobs += [(f"{name}{TF32}", partial(convolution, name, TF32)) for name in (() if quick else LAYERS)]
    part.work(jobs, partial(usable, device))


def _scaled(on_card: bool, batch: int, shape: Shape) -> Shape:
    """The shape for this batch; on the emulator, little of it."""
    if on_card:
        return (batch, *shape[1:]) if shape[0] == 128 else shape
    return tuple(min(n, 6) for n in shape)


def _empty(device: Device) -> Callable[[], Any]:
    x = device.upload(np.ones(4, np.float32))
    y = device.empty_like(x)
    return lambda: device.launch("peaks", "copy_packs", 1, gpu.THREADS, y, x, 1, REAL=x.dtype)


# ---------------------------------------------------------------- convolutions


def _convolution(
    device: Device, batch: int, on_card: bool, effort: Effort, most: Peaks, name: str, way: str
) -> Iterator[tuple[str, ...]]:
    """Forward, dx, dw; conv1's images need no gradient.  With TF32 there is no target: the peak is that of float32."""
    x, w, settings = LAYERS[name]
    x = (batch, *x[1:])
    if not on_card:
        x, w = (batch, 2 * settings.get("groups", 1), *(min(n, 14) for n in x[2:])), (4, 2, *w[2:])
    op = partial(F.conv2d, **settings)
    with using(way):
        for wanted in ("forward", *(["dx"] if name != "conv1" else []), "dw"):
            inputs = _tensors(device, {"x": x, "w": w}, wanted.removeprefix("d"))
            y = op(*inputs)
            work = partial(op, *inputs) if wanted == "forward" else _backward(device, y)
            rate = 2 * y.size * math.prod(w[1:]) / measured(device, work, effort.seconds)
            cells = f"{wanted}: {rate / 1e12:.3g} TFLOP/s", f"{most.flops / 1e12:.3g}, float32's peak"
            share = rate / most.flops
            yield *cells, *((f"{share:.2f}", "", "") if way else verdict(share, 0.6, at_least=True))


def _tensors(device: Device, shapes: Mapping[str, Shape], wanted: str) -> list[Tensor]:
    """Random ones; the gradient of `wanted` alone is asked for."""
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return [Tensor(array, name == wanted, device) for name, array in arrays.items()]


def _backward(device: Device, y: Tensor) -> Callable[[], Any]:
    node = y.node
    assert node is not None
    dy = device.upload(np.random.default_rng(1).standard_normal(y.shape, np.float32))
    return lambda: device.backward(node, dy)


# ---------------------------------------------------------------- what waits for memory


def _mover(
    device: Device, effort: Effort, most: Peaks, name: str, shape: Shape, empty: float | None
) -> Iterator[tuple[str, ...]]:
    op, *moves = MOVERS[name]
    shapes = {"x": shape, **({"b": (shape[1], *(1 for _ in shape[2:]))} if name == "bias" else {})}
    for direction, moved in zip(("forward", "backward"), moves):
        if moved:
            inputs = _tensors(device, shapes, moved[-1] if direction == "backward" else "")
            y = op(*inputs)
            work = partial(op, *inputs) if direction == "forward" else _backward(device, y)
            sizes = {**{key: math.prod(of) for key, of in shapes.items()}, "y": y.size}
            nbytes = 4 * sum(sizes[key.removeprefix("d")] for key in moved.split())
            yield _moved(direction, nbytes, measured(device, work, effort.seconds), most, empty)


def _update(
    device: Device, effort: Effort, most: Peaks, shape: Shape, empty: float | None
) -> Iterator[tuple[str, ...]]:
    w, g = _tensors(device, {"w": shape, "g": shape}, "w")
    w.grad = g
    optimizer = SGD([w], lr=1e-4, momentum=0.9, weight_decay=5e-4)
    seconds = measured(device, optimizer.step, effort.seconds)  # which has made the velocity before it counts
    yield _moved("step", 4 * 5 * w.size, seconds, most, empty)


def _moved(what: str, nbytes: int, seconds: float, most: Peaks, empty: float | None) -> tuple[str, ...]:
    """The cells of a row: bytes a second against the card's, or, beside an empty launch, microseconds."""
    if empty is not None:
        cells = f"{what}: {seconds * 1e6:.3g} us", f"{empty * 1e6:.3g} us, an empty launch"
        return *cells, f"{seconds / empty:.1f}", "", ""
    rate = nbytes / seconds
    cells = f"{what}: {rate / 1e9:.3g} GB/s", f"{most.bandwidth / 1e9:.3g}, a copy"
    return *cells, *verdict(rate / most.bandwidth, 0.7, at_least=True)
