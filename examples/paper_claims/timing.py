"""Section 3.2: "The two-GPU net takes slightly less time to train than the one-GPU net".

Measured as training steps of the full net: its columns on two devices, and side by side (grouped) on one of them, in
turns.  The paper's net on one GPU is not quite that: it has half the kernels in every layer but conv5 and later ones,
which is what fitted into one GPU's memory, so the two are not the same amount of work there.  Here they are.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from alexnet import AlexNet
from run_folder import write_whole

import minigrad
import minigrad.functional as F
from minigrad import optim
from minigrad.errors import ArgumentError

from .runs import FORMAT, as_lines, machine, rounded

BATCH, CLASSES, WARM, ROUNDS = 32, 100, 1, 7
QUICK_WIDTHS = (4, 8, 8, 8, 8, 32, 32)


def measure(options: argparse.Namespace, results: Path) -> dict[str, Any]:
    """Seconds of a training step, each way, round by round; written as devices.json."""
    if len(options.devices) != 2:
        raise ArgumentError(f"devices: give two of them, --devices A,B, got {','.join(options.devices)}")
    minigrad.manual_seed(0)
    widths, rounds = (QUICK_WIDTHS, 2) if options.quick else (None, ROUNDS)
    ways = {"two": options.devices, "one": options.devices[:1]}
    steps = {name: _step(AlexNet(CLASSES, "trainable", devices, widths=widths)) for name, devices in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM + rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if number >= WARM:
                seconds[name].append(time.perf_counter() - begin)
        if number >= WARM:
            print(f"round {number}: " + ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items()))
    found = {
        "format": FORMAT, "arm": "devices", "setup": {"batch_size": BATCH, "classes": CLASSES, "widths": widths},
        "quick": bool(options.quick), "seconds_of_a_step": rounded(seconds), "devices": list(options.devices),
        "machine": machine(), "versions": {"minigrad": minigrad.__version__, "numpy": np.__version__},
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    results.mkdir(parents=True, exist_ok=True)
    write_whole(results / "devices.json", as_lines(found))
    return found


def _step(net: AlexNet) -> Any:
    images = minigrad.Tensor(np.random.default_rng(0).standard_normal((BATCH, 3, 224, 224), dtype="f"), net.devices[0])
    labels = np.arange(BATCH) % CLASSES
    optimizer = optim.SGD(net.parameters(), 0.001, 0.9, 0.0005, update_rule="alexnet")

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
        for device in net.devices:
            minigrad.device(device).synchronize()

    return step


def factors(found: dict[str, Any]) -> list[float]:
    """One device's time / two devices', of each round."""
    times = found["seconds_of_a_step"]
    return [one / two for one, two in zip(times["one"], times["two"])]


def median(found: dict[str, Any], way: str) -> float:
    return statistics.median(found["seconds_of_a_step"][way])
