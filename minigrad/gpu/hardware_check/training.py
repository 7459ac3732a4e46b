"""The AlexNet train step on one card and on two, against PyTorch on the same card where it is installed."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ... import functional as F
from ...device import Device
from ...errors import MinigradError
from ...optim import SGD
from ...tensor import Tensor
from .compare import usable
from .machine import checkout
from .report import EMULATED, Part, table

STEPS = 10  # that are timed, after three that are not
NARROW = (2, 2, 2, 2, 2, 8, 8)  # widths on the emulator
RULE: dict[str, Any] = {"lr": 0.001, "momentum": 0.9, "weight_decay": 5e-4}


def train(part: Part, devices: Sequence[Device], batch: int) -> None:
    """Seconds of a step: forward, loss, backward, SGD."""
    root = checkout()
    if root is None:
        part.line("Not run: minigrad was installed without its examples.  Clone the repository and run this there.")
        return
    sys.path[:0] = [str(root / "examples"), str(root / "benchmarks")]
    on_card = devices[0].kind == "cuda"
    with_torch = on_card and _torch_with_cuda()
    if on_card:
        part.head(f"Batch {batch}, the paper's widths, float32, TF32 only where said; the median of {STEPS} steps.")
    else:
        part.head(EMULATED, f"Batch {batch}, widths {NARROW}; one step.")
    if on_card and not with_torch:
        part.head("", "PyTorch with CUDA is not installed here: there is nothing to compare with.")
    part.head("", *table(("", "ms a step", "images/s")))
    contestants: dict[str, Callable[[], Callable[[], None]]] = {}
    for number in range(1, len(devices) + 1):
        names = [device.name for device in devices[:number]]
        contestants[f"minigrad, {' + '.join(names)}"] = partial(_minigrad, names, batch, on_card)
    for tf32 in (False, True) if with_torch else ():
        label = f"PyTorch eager, {devices[0]}{', TF32' if tf32 else ''}"
        contestants[label] = partial(_torch, devices[0], batch, tf32)

    def timed(make: Callable[[], Callable[[], None]]) -> Iterator[tuple[str, str]]:
        seconds = _median(make(), STEPS if on_card else 1, 3 if on_card else 0)
        yield f"{seconds * 1e3:.4g}", f"{batch / seconds:.4g}"

    part.work([(name, partial(timed, make)) for name, make in contestants.items()], lambda: all(map(usable, devices)))


def _median(step: Callable[[], Any], steps: int, warmup: int) -> float:
    """The median of a step's seconds; `step` must wait for its devices itself."""
    seconds = []
    for i in range(warmup + steps):
        begin = time.perf_counter()
        step()
        if i >= warmup:
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _minigrad(devices: Sequence[str], batch: int, full: bool) -> Callable[[], None]:
    from alexnet import WIDTHS, AlexNet

    net = AlexNet(preset="trainable", devices=devices, widths=WIDTHS if full else NARROW)
    rng = np.random.default_rng(0)
    images = Tensor(rng.standard_normal((batch, 3, 224, 224), dtype="f"), device=devices[0])
    labels = rng.integers(0, 1000, batch)
    optimizer = SGD(net.parameters(), **RULE)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        if not np.isfinite(loss.item()):
            raise MinigradError(f"the loss of the step is {loss.item()}")
        for parameter in net.parameters():
            parameter.device.runtime.synchronize()

    return step


def _torch_with_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def _torch(device: Device, batch: int, tf32: bool) -> Callable[[], None]:
    """The contestant of benchmarks/nets.py, on a card."""
    import torch
    from nets import torch_alexnet

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    train_step = torch_alexnet(batch, False, device=device.name)["step"]

    def step() -> None:
        train_step()
        torch.cuda.synchronize()

    return step
