"""What a batch costs the processor on its way to a card: prepared on the processor, and sent as it was decoded.

    python benchmarks/feeding.py [--runs 7] [--save]

Pictures of 256 x 256 in memory, views of 224 x 224, as the main job takes them.  Prepared: a Loader's threads make
float32 views.  As pictures: they copy bytes and draw the random numbers (`Loader(pictures=True)`), and the card does
the rest (the op `prepare`).  Both give the same numbers, which is checked first, on the emulator.  Times are the
processor's, of one thread: no card is needed, and nothing is said about one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from peers import arguments, environment, header, report, row

import minigrad.functional as F
from minigrad import Tensor, device
from minigrad.cudasim.settings import options
from minigrad.data import IMAGENET_PCA, CenterView, ImageArray, Loader, TenViews, TrainViews

PREPARED, PICTURES = "prepared", "as pictures"
LARGEST = 128


def jobs(mean: np.ndarray) -> dict[str, tuple[int, Any]]:
    """Batch size and transform of each pass over the pictures in examples/alexnet_imagenet.py."""
    return {
        "training": (128, TrainViews(224, mean, IMAGENET_PCA, 0.1, 1 / 58)),
        "test, one view": (64, CenterView(224, mean, 1 / 58)),
        "test, ten views": (8, TenViews(224, mean, 1 / 58)),
    }


def loader(data: ImageArray, n: int, transform: Any, how: str) -> Loader:
    some = ImageArray(data.images[:n], data.labels[:n])
    return Loader(some, n, transform, workers=0, pictures=how == PICTURES)


def sent(batch: Any) -> list[np.ndarray]:
    """The arrays that travel with each batch; the mean image travels once."""
    views = getattr(batch, "views", None)
    return [batch.images] if views is None else [batch.images, views.windows, views.colours]


def measured(runs: int, works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of the processor's time of each, medians, measured in turns after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(1 + runs):
        for name, work in works.items():
            begin = time.process_time()
            work()
            if turn:
                times[name].append(1e3 * (time.process_time() - begin))
    return {name: statistics.median(each) for name, each in times.items()}


def staging(arrays: list[np.ndarray]) -> Callable[[], None]:
    """The copy into memory that the card can read by itself, in the order in which the numbers lie."""
    pairs = []
    for array in arrays:
        axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        dense = array.transpose(axes)
        pairs.append((np.ones(dense.shape, array.dtype), dense))

    def copy() -> None:
        for target, source in pairs:
            target[...] = source

    return copy


def table(data: ImageArray, mean: np.ndarray, runs: int) -> list[str]:
    lines = header("batch", "", "MB sent", "ms to make it", "ms to hand it over")
    for job, (n, transform) in jobs(mean).items():
        loaders = {how: loader(data, n, transform, how) for how in (PREPARED, PICTURES)}
        batches = {how: next(each.epoch(0)) for how, each in loaders.items()}
        make = measured(runs, {how: lambda each=each: next(each.epoch(0)) for how, each in loaders.items()})  # type: ignore[misc]
        hand = measured(runs, {how: staging(sent(batch)) for how, batch in batches.items()})
        for how, batch in batches.items():
            megabytes = sum(array.nbytes for array in sent(batch)) / 1e6
            lines.append(row(f"{job}, {n}", how, f"{megabytes:.2f}", f"{make[how]:.1f}", f"{hand[how]:.2f}"))
    return lines


def kernel(data: ImageArray, mean: np.ndarray) -> list[str]:
    """What the kernel asks of memory, as the emulator counts it, at full size; RuntimeError where it is wrong."""
    lines = header("views", "MB that its accesses move", "MB of the arrays, each once", "times")
    for job, (_, transform) in jobs(mean).items():
        expected, batch = (next(loader(data, 2, transform, how).epoch(0)) for how in (PREPARED, PICTURES))
        with options(mode="check", counters=True):
            where = device("cudasim:0")
            images, average = Tensor(batch.images, device=where), Tensor(batch.views.mean, device=where)
            y = F.prepare(images, *batch.views._replace(mean=average)).numpy()  # compiled, and not counted
            modules = [module for module in where.runtime.modules() if module.mode == "check"]
            for module in modules:
                module.counters().reset()
            F.prepare(images, *batch.views._replace(mean=average))
            moved = 32 * sum(one.units for module in modules for one in module.counters().rows)
        if not np.array_equal(y, expected.images):
            raise RuntimeError(f"{job}: the emulated card's views differ from the processor's")
        views, whole = y.size // (3 * 224 * 224), isinstance(transform, TenViews)
        read = batch.images.nbytes if whole else y.nbytes // 4  # ten views overlap, and cover all of a picture
        least = y.nbytes + read + mean.nbytes
        lines.append(row(f"{job}: {views}", f"{moved / 1e6:.2f}", f"{least / 1e6:.2f}", f"{moved / least:.1f}"))
    return lines


def main() -> None:
    asked = arguments(__doc__, runs=7).parse_args()
    rng = np.random.default_rng(0)
    data = ImageArray(rng.integers(0, 256, (LARGEST, 256, 256, 3), dtype=np.uint8), np.zeros(LARGEST, int))
    mean = rng.uniform(0, 255, (256, 256, 3)).astype(np.float32)
    counted = kernel(data, mean)
    lines = [
        "# What a batch costs on its way to a card",
        "",
        environment("numpy"),
        "",
        f"The processor's time, one thread, medians of {asked.runs} in turns: to make a batch of pictures that are in",
        "memory already (decoded), and to hand it over, which is a copy into page-locked memory, here into any.  The",
        "mean image, 0.79 MB, travels once.",
        "",
        *table(data, mean, asked.runs),
        "",
        "The kernel, with 2 pictures, executed on the CPU emulator, not yet run on hardware. Moved: all sectors that",
        "accesses ask of the caches; what the caches keep, such as the other channels of a pixel, is counted again.",
        "",
        *counted,
    ]
    report("feeding", lines, asked.save)


if __name__ == "__main__":
    main()
