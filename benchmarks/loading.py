"""Images per second from files to batches: minigrad's Loader, the same with processes, torchvision and DataLoader.

    python benchmarks/loading.py PHOTOS [--runs 9] [--workers 2] [--steps 8] [--save]

PHOTOS: class folders of JPEG files.  Three sources are made of them: the files as they are; files of 256 x 256 (the
shorter side scaled, the centre cut out, JPEG of quality 90), as ILSVRC is often kept; the same pixels as one array of
uint8 in a memory-mapped file.  Each contestant takes all of a source in a random order and makes training views of it:
the picture at 256 x 256, a random 224 x 224 of it, mirrored half of the time, minus the mean colour, times a scale, in
batches of 16 float32.  They take turns (A B C A B C ...), each in a process of its own, and nobody computes meanwhile.

Without torchvision the others are timed alone.  Then AlexNet is trained for a few steps: how long does it wait?
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from peers import Peer, Save, Times, environment, header, interleaved, ratio, report, row
from PIL import Image

from minigrad.data import IMAGENET_MEAN_RGB, ImageFolder, Loader, TrainViews

BATCH, SIZE, CROP, SCALE = 16, 256, 224, 1 / 58
OURS, PROCESSES, TORCH = "minigrad", "processes", "torchvision"
VIEWS = TrainViews(CROP, IMAGENET_MEAN_RGB, scale=SCALE)


class Pixels:
    """uint8 images (N, H, W, C) in a memory-mapped file: the simplest store there is."""

    def __init__(self, path: str) -> None:
        self.pixels = np.load(path, mmap_mode="r")
        self.labels = np.zeros(len(self.pixels), np.int64)

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> np.ndarray:
        return self.pixels[index]


def source(path: str) -> Any:
    return Pixels(path) if path.endswith(".npy") else ImageFolder(path, None, size=SIZE)


# ---------------------------------------------------------------- contestants


def epochs(passes: Iterator[Iterator[np.ndarray]]) -> dict[str, Callable[[], Any]]:
    """What a contestant can do: `epoch` loads everything once and returns how many images, and their mean."""

    def epoch() -> tuple[int, float]:
        count, total = 0, 0.0
        for images in next(passes):
            count += len(images)
            total += float(images[:, :, ::7, ::7].sum(dtype=np.float64)) * 49 / images[0].size  # all pages are touched
        return count, total / count

    return {"epoch": epoch}


def ours(path: str, workers: int) -> dict[str, Callable[[], Any]]:
    """Threads."""
    loader = Loader(source(path), BATCH, VIEWS, shuffle=True, workers=workers, cache_bytes=0)
    return epochs((batch.images for batch in loader) for _ in iter(int, 1))


def processes(path: str, workers: int) -> dict[str, Callable[[], Any]]:
    """What Loader might do with processes: they write into shared memory, and only numbers go through pipes."""
    import multiprocessing
    from multiprocessing import shared_memory

    data, context = source(path), multiprocessing.get_context("spawn")
    shape = (BATCH, CROP, CROP, 3)
    memory = [shared_memory.SharedMemory(create=True, size=4 * int(np.prod(shape))) for _ in range(2 * workers + 1)]
    arrays = [np.ndarray(shape, np.float32, each.buf) for each in memory]
    pipes = []
    for _ in range(workers):
        pipe, theirs = context.Pipe()
        names = [each.name for each in memory]
        context.Process(target=_work, args=(theirs, data, shape, names), daemon=True).start()
        pipes.append(pipe)
        pipe.recv()  # it is ready
    for each in memory:
        each.unlink()  # the memory goes with the last process that has it, whatever happens

    def batches(epoch: int) -> Iterator[np.ndarray]:
        order = np.random.default_rng([1, 0, epoch]).permutation(len(data))
        jobs = [order[k : k + BATCH].tolist() for k in range(0, len(order), BATCH)]
        for number in range(len(jobs) + 2 * workers):
            if number >= 2 * workers:  # the oldest, while two of each worker are under way
                done = number - 2 * workers
                count = pipes[done % workers].recv()
                yield arrays[done % len(memory)][:count].transpose(0, 3, 1, 2)
            if number < len(jobs):
                pipes[number % workers].send((number % len(memory), epoch, jobs[number]))

    return epochs(batches(epoch) for epoch in range(1 << 30))


def _work(pipe: Any, data: Any, shape: tuple[int, ...], names: list[str]) -> None:
    from multiprocessing import shared_memory

    memory = [shared_memory.SharedMemory(name) for name in names]
    arrays = [np.ndarray(shape, np.float32, each.buf) for each in memory]
    pipe.send("ready")
    while True:
        slot, epoch, indices = pipe.recv()
        for k, index in enumerate(indices):
            arrays[slot][k] = VIEWS(data.image(index), np.random.default_rng([2, 0, epoch, index]))
        pipe.send(len(indices))


def torchvision(path: str, workers: int) -> dict[str, Callable[[], Any]]:
    """As its documentation does it, with channels-last batches left to whoever wants them."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision import datasets, transforms

    views = [
        transforms.RandomCrop(CROP),
        transforms.RandomHorizontalFlip(),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize((IMAGENET_MEAN_RGB / 255).tolist(), [1 / SCALE / 255] * 3),
    ]

    class Rows(Dataset):
        def __init__(self) -> None:
            self.pixels = np.load(path, mmap_mode="c")  # "c": torch warns of arrays that cannot be written into
            self.transform = transforms.Compose(views)

        def __len__(self) -> int:
            return len(self.pixels)

        def __getitem__(self, index: int) -> Any:
            return self.transform(torch.from_numpy(self.pixels[index]).permute(2, 0, 1)), 0

    if path.endswith(".npy"):
        data: Any = Rows()
    else:
        first = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE), *views[:2], transforms.PILToTensor()]
        data = datasets.ImageFolder(path, transforms.Compose([*first, *views[2:]]))
    loader = DataLoader(
        data, BATCH, shuffle=True, num_workers=workers, persistent_workers=True, multiprocessing_context="fork"
    )
    return epochs((images.numpy() for images, _ in loader) for _ in iter(int, 1))


CONTESTANTS = {OURS: ours, PROCESSES: processes, TORCH: torchvision}


# ---------------------------------------------------------------- measurements


def prepared(photos: str, folder: Path, least: int) -> dict[str, str]:
    """The three sources by name; a small set of photographs is written several times, to `least` pictures or more."""
    data = ImageFolder(photos, None, size=SIZE)
    small = folder / "jpeg" / "all"
    small.mkdir(parents=True)
    pixels = np.stack([data.image(k) for k in range(len(data))])
    for k in range(max(least, len(data))):
        Image.fromarray(pixels[k % len(data)]).save(small / f"{k:06}.jpg", quality=90)
    np.save(folder / "pixels.npy", pixels[np.arange(max(least, len(data))) % len(data)])
    return {
        "photographs": photos,
        f"JPEG, {SIZE} x {SIZE}": str(small.parent),
        f"uint8, {SIZE} x {SIZE}": str(folder / "pixels.npy"),
    }


def measured(path: str, workers: int, runs: int, who: list[str]) -> tuple[int, Times]:
    """Images of the source, and seconds that each takes for all of them; RuntimeError where they load others."""
    contestants = [Peer(name, CONTESTANTS[name], path, workers, children=name != OURS) for name in who]
    try:
        seen = {peer.name: peer.call("epoch") for peer in contestants}
        count, mean = seen[OURS]
        for name, (n, other) in seen.items():
            if n != count or not abs(other - mean) < 0.03:  # the views are random: of 200 photographs the mean varies
                raise RuntimeError(f"{name} loads {n} images with the mean {other}, {OURS} {count} with {mean}")
        return count, interleaved(contestants, "epoch", runs)
    finally:
        for peer in contestants:
            peer.close()


def table(sources: dict[str, str], workers: int, runs: int, who: list[str]) -> list[str]:
    names = (
        "source",
        "workers",
        *(f"{name}, images/s" for name in who),
        *(f"{OURS} / {name}" for name in who[1:]),
        "load",
    )
    lines = header(*names)
    for name, path in sources.items():
        for count in sorted({1, workers}):
            images, times = measured(path, count, runs, who)
            speeds = [f"{images / statistics.median(times[each]):.0f}" for each in who]
            ratios = [f"{1 / ratio(times, OURS, each):.2f}" for each in who[1:]]
            lines.append(row(name, count, *speeds, *ratios, f"{os.getloadavg()[0]:.0f}"))
            print(lines[-1], flush=True)
    return lines


def waiting(path: str, workers: int) -> dict[str, Callable[[], Any]]:
    """A process that trains AlexNet on a source: `steps(n)` returns the seconds of each wait and of each step."""
    from time import perf_counter

    from alexnet import AlexNet

    import minigrad.functional as F
    from minigrad import Tensor, optim

    net = AlexNet(preset="trainable", devices=("cpu:0", "cpu:1"))
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    data, cycle = source(path), np.arange(1 << 20)

    class Endless:
        """The source over and over: an epoch as long as ImageNet's, in which nothing is begun anew."""

        labels = cycle % 1000

        def __len__(self) -> int:
            return len(cycle)

        def image(self, index: int) -> np.ndarray:
            return data.image(index % len(data))

    loader = Loader(Endless(), 128, VIEWS, shuffle=True, workers=workers, cache_bytes=0)

    def steps(n: int) -> tuple[list[float], list[float]]:
        waits, works, batches = [], [], iter(loader)
        for _ in range(n):
            begin = perf_counter()
            batch = next(batches)
            waits.append(perf_counter() - begin)
            optimizer.zero_grad()
            F.cross_entropy(net(Tensor(batch.images, device="cpu:0")), batch.labels).backward()
            optimizer.step()
            works.append(perf_counter() - begin - waits[-1])
        return waits, works

    return {"steps": steps}


def shares(sources: dict[str, str], workers: int, steps: int) -> list[str]:
    lines = header("source", "ms a step, with its wait", "ms of it waiting", "share", "ms for the very first batch")
    for name, path in sources.items():
        with Peer(name, waiting, path, workers) as peer:
            waits, works = peer.call("steps", steps + 1)
        whole, waited = sum(waits[1:]) + sum(works[1:]), sum(waits[1:])
        each = (f"{1e3 * seconds / steps:.1f}" for seconds in (whole, waited))
        lines.append(row(name, *each, f"{waited / whole:.2%}", f"{1e3 * waits[0]:.0f}"))
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos", help="class folders of JPEG files")
    parser.add_argument("--runs", type=int, default=9, help="passes of each contestant over each source (default 9)")
    parser.add_argument("--workers", type=int, default=2, help="threads or processes (default 2)")
    parser.add_argument("--steps", type=int, default=8, help="training steps of AlexNet, batch 128 (default 8)")
    parser.add_argument("--pictures", type=int, default=512, help="least pictures of 256 x 256 (default 512)")
    parser.add_argument("--note", default="", help="what else is to be said about the machine")
    parser.add_argument("--save", action=Save, help="write what is printed to benchmarks/results/")
    asked = parser.parse_args()
    rivals = [TORCH] if find_spec("torchvision") else []
    with tempfile.TemporaryDirectory() as folder:
        sources = prepared(asked.photos, Path(folder), asked.pictures)
        loaded = table(sources, asked.workers, asked.runs, [OURS, PROCESSES, *rivals])
        waited = shares(sources, asked.workers, asked.steps)
    lines = [
        "# What loading takes",
        "",
        environment("numpy", "pillow", *(("torch", "torchvision") if rivals else ())),
        *(["", asked.note] if asked.note else []),
        "",
        f"Images per second, medians of {asked.runs} passes in turns, batches of {BATCH}: decoded, brought to",
        f"{SIZE} x {SIZE}, a random {CROP} x {CROP} of it mirrored half of the time, minus the mean colour, scaled,",
        "float32. Ratios are the medians of those of neighbouring passes; above 1 minigrad is faster. Workers: threads",
        "of minigrad's Loader, processes of the others. The column processes is the same work by processes that write",
        "into shared memory: this program has them, not minigrad. Load: how many processes of the machine, these among",
        "them, were running or wanted to at the end of the row.",
        "",
        *loaded,
        "",
        f"Training AlexNet in two columns on all cores, batch 128: {asked.steps} steps after the first, while",
        f"{asked.workers} threads load. The wait for the very first batch, which nothing can hide, is apart.",
        "",
        *waited,
    ]
    report("loading", lines, asked.save)


if __name__ == "__main__":
    main()
