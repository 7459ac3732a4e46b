"""How long whole nets take, beside PyTorch on the same card: train steps, inference, and the host's share of a step."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ... import functional as F
from ...base.grad_mode import no_grad
from ...device import Device
from ...device import device as device_named
from ...errors import MinigradError
from ...optim import SGD
from ...tensor import Tensor
from ..cuda import Cuda
from .compare import TF32, usable, using
from .machine import checkout
from .report import COLUMNS, EMULATED, Part, table, verdict

NARROW = (2, 2, 2, 2, 2, 8, 8)  # widths on the emulator
RULE: dict[str, Any] = {"lr": 0.001, "momentum": 0.9, "weight_decay": 5e-4}
NO_CLONE = "Not run: minigrad was installed without its examples.  Clone the repository and run this there."

Work = Callable[[], Any]  # one step, handed to the device; whoever measures waits for the device


def steps(part: Part, device: Device, batch: int, quick: bool) -> None:
    """Rows with a target each; quick: the train steps alone, and fewer of them."""
    if not programs():
        part.line(NO_CLONE)
        return
    on_card = device.kind == "cuda"
    rounds = (4 if quick else 10) if on_card else 1
    part.head(
        *([] if on_card else [EMULATED, ""]),
        f"{'The paper' if on_card else 'Narrow nets; PyTorch'}'s widths; one of ours, then one of PyTorch's (eager, "
        f"cudnn.benchmark on), {rounds} times; medians, of ratios too.  A step is forward, loss, backward, SGD.",
        "",
        *table(COLUMNS),
    )
    beside = partial(_beside, device, rounds)
    step = f"AlexNet, train step of {batch}"
    jobs = [
        (f"{step}, TF32 off", partial(beside, "", 1.2, "launch", "alexnet", batch)),
        (f"{step}, TF32 on", partial(beside, TF32, 1.5, "launch", "alexnet", batch)),
        (f"{step}, TF32 off, host's time of it", partial(_host_share, device, rounds, batch)),
    ]
    if not quick:
        jobs += [
            (f"AlexNet, inference of {n}", partial(beside, "", 1.2, f"forward {n}", "alexnet", batch))
            for n in (1, batch)
        ]
        jobs.append(("LeNet, train step of 64", partial(beside, "", 1.0, "launch", "lenet", 64)))
    part.work(jobs, partial(usable, device))


def programs() -> Path | None:
    """The checkout, whose examples/ and benchmarks/ can be imported after this; None: there is none."""
    root = checkout()
    if root is not None:
        sys.path[:0] = [str(root / "examples"), str(root / "benchmarks")]
    return root


# ---------------------------------------------------------------- measuring


def _beside(
    device: Device, rounds: int, way: str, target: float, what: str, net: str, batch: int
) -> Iterator[tuple[str, ...]]:
    with using(way):
        ours, theirs = _ours(net, device.name, batch)[what], _theirs(net, device, batch, bool(way))
        if isinstance(theirs, str):
            yield (_ms(statistics.median(_seconds(ours, rounds, device))), theirs, "", "", "")
            return
        a, b = _in_turn(rounds, partial(_once, ours, device), partial(_once, theirs[what], None))
    ratio = statistics.median(x / y for x, y in zip(a, b))
    yield (_ms(statistics.median(a)), f"{_ms(statistics.median(b))}, PyTorch", *verdict(ratio, target))


def _host_share(device: Device, rounds: int, batch: int) -> Iterator[tuple[str, ...]]:
    """How long Python and launches take of a step, which the card works on meanwhile."""
    work, host, whole = _ours("alexnet", device.name, batch)["launch"], [], []
    _seconds(work, 1, device)
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        host.append(time.perf_counter() - begin)
        device.synchronize()
        whole.append(time.perf_counter() - begin)
    share = statistics.median(a / b for a, b in zip(host, whole))
    yield (_ms(statistics.median(host)), f"{_ms(statistics.median(whole))}, the step", *verdict(share, 0.15))


def _in_turn(rounds: int, *contestants: Callable[[], float]) -> list[list[float]]:
    """The seconds of each, one after the other, after two rounds (one alone where one is all) that do not count."""
    times: list[list[float]] = [[] for _ in contestants]
    for i in range(rounds + min(2, rounds)):
        for seconds, contestant in zip(times, contestants):
            took = contestant()
            if i >= min(2, rounds):
                seconds.append(took)
    return times


def _seconds(work: Work, rounds: int, device: Device) -> list[float]:
    return _in_turn(rounds, partial(_once, work, device))[0]


def _once(work: Work, *devices: Device | None) -> float:
    """Seconds until the devices have done it; None: PyTorch's."""
    _wait(devices)
    begin = time.perf_counter()
    work()
    _wait(devices)
    return time.perf_counter() - begin


def _wait(devices: Sequence[Device | None]) -> None:
    for device in devices:
        if device is not None:
            device.runtime.synchronize()
        elif (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
            torch.cuda.synchronize()


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


# ---------------------------------------------------------------- the contestants, each made once


@lru_cache
def _ours(net: str, device: str, batch: int) -> dict[str, Work]:
    """launch: a train step; forward N: inference of so many images."""
    if net == "lenet":
        from nets import minigrad_lenet

        return minigrad_lenet(batch, False, device)
    model = alexnet((device,))
    images, labels = pictures(batch, device)
    step = train_step(model, images, labels)

    def forward(n: int) -> Tensor:
        model.eval()
        with no_grad():
            y = model(images[:n])
        model.train()
        return y

    step()
    if not np.isfinite(forward(1).numpy()).all():
        raise MinigradError("AlexNet's answers are not finite after one step")
    return {"launch": step, **{f"forward {n}": partial(forward, n) for n in (1, batch)}}


@lru_cache
def alexnet(devices: tuple[str, ...]) -> Any:
    """In the paper's widths on cards, else narrow."""
    from alexnet import WIDTHS, AlexNet

    on_cards = device_named(devices[0]).kind == "cuda"
    return AlexNet(preset="trainable", devices=devices, widths=WIDTHS if on_cards else NARROW)


def pictures(batch: int, device: str) -> tuple[Tensor, np.ndarray]:
    """Random images on the device, and their labels."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, 224, 224), dtype="f")
    return Tensor(images, device=device), rng.integers(0, 1000, batch)


def train_step(model: Any, images: Tensor, labels: np.ndarray) -> Work:
    optimizer = SGD(model.parameters(), **RULE)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def _theirs(net: str, device: Device, batch: int, tf32: bool) -> dict[str, Work] | str:
    """PyTorch's, or why there is none; on the emulator, its own on the processor."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed here"
    if device.kind == "cuda" and not torch.cuda.is_available():
        return "PyTorch has no CUDA here"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    return _torch(net, where_torch_is(device), batch)


def where_torch_is(device: Device) -> str:
    """On the same card; beside the emulator, on the processor."""
    return f"cuda:{device.card}" if isinstance(device, Cuda) else "cpu"


@lru_cache
def _torch(net: str, device: str, batch: int) -> dict[str, Work]:
    from nets import torch_alexnet, torch_lenet

    if net == "lenet":
        return torch_lenet(batch, device)
    functions = torch_alexnet(batch, False, device=device)
    forward = {f"forward {n}": partial(functions["forward"], n) for n in (1, batch)}
    return {"launch": functions["launch"], **forward}


# ---------------------------------------------------------------- two devices


def two_columns(part: Part, device: Device, batch: int) -> None:
    """The train step in two columns, beside that on one device; on a card MINIGRAD_CUDA has made two of it."""
    if not programs():
        part.line(NO_CLONE)
        return
    names = tuple(f"{device.kind}:{i}" for i in (0, 1))
    on_card = device.kind == "cuda"
    part.head(*([] if on_card else [EMULATED, ""]), *table(COLUMNS))
    jobs = [
        ("AlexNet in two columns: loss and gradients", partial(_same_numbers, part, names, batch)),
        (f"AlexNet in two columns, train step of {batch}", partial(_two, names, batch, 5 if on_card else 1)),
    ]
    part.work(jobs, lambda: all(usable(device_named(name)) for name in names))


def _same_numbers(part: Part, names: tuple[str, ...], batch: int) -> Iterator[tuple[str, ...]]:
    """Without dropout, whose masks differ."""
    from alexnet import merged

    state, found = None, []
    for devices in (names[:1], names):
        model = alexnet(devices).eval()
        state = state or model.state_dict()
        model.load_state_dict(state)
        model.zero_grad()
        images, labels = pictures(batch, devices[0])
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        columns = [{name: p.grad.numpy() for name, p in column.named_parameters()} for column in model.columns]
        found.append((loss.item(), merged(columns)))
        model.train()
    (loss, ours), (expected, theirs) = found[::-1]
    far = {name: float(np.linalg.norm(ours[name] - g) / max(np.linalg.norm(g), 1e-30)) for name, g in theirs.items()}
    worst = max(far, key=lambda name: far[name])
    right = abs(loss - expected) <= 1e-4 * abs(expected) and far[worst] <= 1e-2  # near-ties in a pooling window
    if not right:
        part.fail(f"two columns: loss {loss} for {expected}, the gradient of {worst} is {far[worst]:.2g} away")
    verdict_ = "met" if right else "**missed**"
    yield f"loss {loss:.6g}", f"{expected:.6g}, one device", f"gradients: {far[worst]:.1e}", "<= 1e-2", verdict_


def _two(names: tuple[str, ...], batch: int, rounds: int) -> Iterator[tuple[str, ...]]:
    once = []
    for devices in (names[:1], names):
        step = train_step(alexnet(devices), *pictures(batch, devices[0]))
        once.append(partial(_once, step, *map(device_named, devices)))
    one, two = _in_turn(rounds, *once)
    ratio = statistics.median(b / a for a, b in zip(one, two))
    medians = _ms(statistics.median(two)), f"{_ms(statistics.median(one))}, one device"
    yield (*medians, *verdict(ratio, 1.1))
