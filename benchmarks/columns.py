"""The two columns of AlexNet at the same time and one after the other: what two CPU devices gain.

    python benchmarks/columns.py [--batch 32] [--runs 5] [--save]

Three ways to run the same train step (forward, loss, backward), interleaved in one process: the columns on cpu:0 and
cpu:1 at the same time, one thread each; the same columns one after the other, one thread each; and the grouped net on
one device with all cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "examples")]

from alexnet import AlexNet  # noqa: E402
from peers import environment, ratio  # noqa: E402

import minigrad  # noqa: E402
import minigrad.functional as F  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/columns.md")
    options = parser.parse_args()

    minigrad.keep_freed_memory()
    two, one = AlexNet(devices=("cpu:0", "cpu:1")), AlexNet(devices=("cpu:0",))
    rng = np.random.default_rng(0)
    memory = rng.standard_normal((options.batch, 224, 224, 3), dtype="f")
    images, target = minigrad.Tensor(memory.transpose(0, 3, 1, 2)), rng.integers(0, 1000, options.batch)

    def step(net: AlexNet) -> None:
        net.zero_grad()
        F.cross_entropy(net(images), target).backward()

    def at_once() -> None:
        step(two)

    def one_after_the_other() -> None:
        minigrad.set_num_threads(1, "cpu:0")
        minigrad.set_num_threads(1, "cpu:1")
        with minigrad.in_turn(), minigrad.parallel.one_blas_thread():
            step(two)
        minigrad.set_num_threads(None, "cpu:0")
        minigrad.set_num_threads(None, "cpu:1")

    def one_device() -> None:
        step(one)

    ways = {"two devices at once": at_once, "one after the other": one_after_the_other, "one device": one_device}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(options.runs + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if run:
                times[name].append(time.perf_counter() - begin)

    lines = [
        "# The two columns of AlexNet, at once and one after the other",
        "",
        environment(minigrad, np),
        "",
        f"Batch {options.batch}, forward and backward, interleaved, median of {options.runs}; ratios: median of pairs.",
        "",
        "| | seconds | time / one after the other | time / one device |",
        "|---|---|---|---|",
        *(
            f"| {name} | {statistics.median(times[name]):.2f} | {ratio(times, name, 'one after the other'):.2f} | "
            f"{ratio(times, name, 'one device'):.2f} |"
            for name in ways
        ),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.save:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "columns.md").write_text(text)


if __name__ == "__main__":
    main()
