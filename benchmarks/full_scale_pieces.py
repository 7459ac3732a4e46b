"""The pieces of a training on all of ILSVRC-2012, measured on made-up pictures; full_scale.py adds them up."""

from __future__ import annotations

import io
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers import Peer, cores  # puts examples/ on the path
from PIL import Image

from minigrad import optim
from minigrad.checkpoint import Checkpoints
from minigrad.data import PackedImages, Report, check_store, find_source, open_images, pack

ONE, TWO = "cpu:0", "cpu:0,cpu:1"
RAW, JPEG, FILES = "raw store", "JPEG store", "the files"  # where pictures come from, in training
CLASSES = 1000
NARROW = (2, 2, 2, 2, 2, 8, 8)  # widths of a net that only stands by


@dataclass(frozen=True)
class Pieces:
    """What was measured; medians.  Seconds of a core are the processor's, others are those of the clock.

    By devices (ONE, TWO): step_s, seconds of a training step with pictures of the raw store; step_core_s, those of all
    cores together; waiting, the share of step_s spent waiting for data; peak_mb, the most memory of that process, in
    MB; one_view_s, ten_views_s, seconds of a test for each picture.  By source (RAW, JPEG, FILES): view_s, seconds of a
    core to read a picture and draw a training view of it, for a processor; sent_s, the same for a card, which draws the
    view itself; pack_s, seconds for each packed picture, on all cores; pack_core_s, seconds of a core; picture_bytes,
    what a picture takes on disk.
    """

    cores: int
    batch: int
    step_s: dict[str, float]
    step_core_s: dict[str, float]
    waiting: dict[str, float]
    peak_mb: dict[str, float]
    one_view_s: dict[str, float]
    ten_views_s: dict[str, float]
    view_s: dict[str, float]
    sent_s: dict[str, float]
    decode_s: float  # of a core: the bytes of a JPEG file -> 256 x 256
    stats_s: float  # of a core: a picture's share in the mean image, read from the files
    pack_s: dict[str, float]
    pack_core_s: dict[str, float]
    picture_bytes: dict[str, float]
    check_bytes_s: float
    disk_pictures_s: float  # raw pictures a second, in a random order, that were not in memory
    checkpoint_bytes: int
    checkpoint_s: float
    resume_s: float  # to read one and go on
    weights_bytes: int
    weights_s: float


@dataclass(frozen=True)
class Amount:
    """How much is measured: pictures to pack; rounds, of which medians are taken; in each of these so many training
    steps after one that does not count, and so many pictures to test with one view and with ten.
    """

    train: int = 384
    val: int = 32
    rounds: int = 5
    steps: int = 2
    one_view: int = 256
    ten_views: int = 32


QUICK = Amount(train=64, val=8, rounds=1, steps=1, one_view=64, ten_views=8)

# ---------------------------------------------------------------- pictures


def photograph(rng: np.random.Generator, height: int = 375, width: int = 500) -> bytes:
    """A JPEG file as ILSVRC's are: about 115 KB, and as much work to decode.

    Amplitudes fall with the frequency to the power 1.46, the channels are much alike, and there is some grain.  With
    this exponent, quality 95 and full colour resolution, files and what is left of them at 256 x 256 and quality 90
    take what 200 photographs of ImageNet took: 110 KB (on average; ILSVRC's 115), 20.4 KB, 2.7 ms to decode.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    planes = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency**1.46, s=(height, width))
    red, green, blue = planes / planes.std((1, 2), keepdims=True)
    pixels = 118 + 60 * np.stack([green + red / 4, green, green + blue / 4], -1)
    pixels += 2 * rng.standard_normal(pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=95, subsampling=0)
    return file.getvalue()


def make_pictures(folder: Path, train: int, val: int, different: int = 96) -> list[bytes]:
    """Class folders of so many pictures, named as ImageNet's; returns those that differ."""
    rng = np.random.default_rng(0)
    photographs = [photograph(rng, *size) for _, size in zip(range(different), [(375, 500), (500, 375)] * different)]
    for split, count in (("train", train), ("val", val)):
        for k in range(count):
            wnid = f"n{k % 8 + 1440764:08}"
            path = folder / split / wnid / f"{wnid}_{k + 10000}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photographs[k % len(photographs)])
    return photographs


class Repeated:
    """A dataset over and over, `count` pictures in all: an epoch as long as ImageNet's."""

    def __init__(self, images: PackedImages, count: int) -> None:
        self.images, self.labels, self.in_memory = images, np.resize(images.labels, count), images.in_memory

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return self.images.image(index % len(self.images))

    @property
    def paths(self) -> list[str]:
        return [self.images.paths[k % len(self.images)] for k in range(len(self))]


# ---------------------------------------------------------------- a process that trains


def trainer(
    store: str, devices: str, run_folder: str, pictures: int, batch: int, widths: Sequence[int] | None = None
) -> dict[str, Callable[..., Any]]:
    """The main job's net, loader, loop, tests and checkpoints, preset paper, to be called piece by piece."""
    from alexnet import WIDTHS, AlexNet
    from alexnet_imagenet import first
    from alexnet_options import parse, recipe_for
    from going_on import CHECKPOINTS, Course, stats_as_values
    from progress import progress
    from run_folder import Run
    from schedules import schedules
    from trained import Trained
    from training import train_epoch

    options = parse(["--data", store, "--preset", "paper", "--no-figures", "--devices", devices])
    recipe, images = recipe_for(options), PackedImages(store, "train")
    model = AlexNet(CLASSES, options.preset, options.devices, widths=widths or WIDTHS, dropout=recipe.dropout)
    net = Trained(model, options.preset, [f"n{k:08}" for k in range(CLASSES)], images.stats)
    loader = net.loader(
        Repeated(images, pictures), batch, net.train_view(recipe.colour_noise), shuffle=True,
        seed=options.seed, workers=options.workers, drop_last=True,
    )  # fmt: skip
    optimizer = optim.SGD(
        list(model.parameter_groups(recipe.lr, recipe.weight_decay)), recipe.lr, momentum=recipe.momentum,
        update_rule="alexnet",
    )  # fmt: skip
    each_step, each_epoch = schedules(net, loader, optimizer, recipe, recipe.epochs * len(loader))
    run = Run(Path(run_folder))
    run.path.mkdir(parents=True)
    course = Course(
        run, loader, Checkpoints(run.path / CHECKPOINTS, options.keep_checkpoints), math.inf,
        {"model": model, "optimizer": optimizer, "schedule": each_step or each_epoch},
        {"config": {}, "stats": stats_as_values(net.stats), "first_kernels": model.kernels()},
    )  # fmt: skip
    epochs = iter(range(1 << 30))

    def steps(count: int) -> list[tuple[float, float, float]]:
        """(seconds waiting for data, seconds computing, of all cores) of so many steps, after one that does not count.

        The third is a mean, in which that one does count: the same for all.
        """
        begin = time.process_time()
        with progress(count + 1, f"training on {devices}", "steps") as bar:
            train_epoch(
                model, first(loader.epoch(next(epochs)), count + 1), optimizer, net.device, epoch=1,
                first_step=course.step, log=run.log, bar=bar, schedule=each_step, after_step=course.after_step,
                accumulate=recipe.accumulate,
            )  # fmt: skip
        worked = (time.process_time() - begin) / (count + 1)
        return [(row["data_s"], row["compute_s"], worked) for row in run.log.rows[-count:]]

    def test(count: int, ten: bool) -> float:
        """Seconds for each picture."""
        begin = time.perf_counter()
        scores = net.test(Repeated(PackedImages(store, "val"), count), options.workers, Report(), ten)
        return (time.perf_counter() - begin) / scores.images

    def keep() -> tuple[float, float]:
        """Seconds to write a checkpoint of the last step, and to write the weights."""
        begin = time.perf_counter()
        course.save()
        saved = time.perf_counter()
        net.save(run.path)
        return saved - begin, time.perf_counter() - saved

    def resume() -> float:
        """Seconds to go on from the last checkpoint."""
        begin = time.perf_counter()
        course.go_on(None, 1 << 30)
        return time.perf_counter() - begin

    def sizes() -> tuple[int, int]:
        """Bytes of a checkpoint, and of the weights with the preparation beside them."""
        latest = course.kept.latest()
        assert latest is not None
        names = ("weights.safetensors", "preparation.npz")
        return latest.stat().st_size, sum((run.path / name).stat().st_size for name in names)

    return {"steps": steps, "test": test, "keep": keep, "resume": resume, "sizes": sizes}


# ---------------------------------------------------------------- measuring


def measure(folder: Path, amount: Amount, batch: int, pictures: int) -> Pieces:
    """All pieces; folder: an empty one, for pictures, stores and checkpoints; pictures: of an epoch."""
    tell("making pictures")
    photographs = make_pictures(folder / "files", amount.train, amount.val)
    stores = {RAW: folder / "raw", JPEG: folder / "jpeg"}
    packing = packed(folder / "files", stores, amount.rounds)
    tell("reading stores")
    disk = cold(stores[RAW])  # before anybody has mapped it
    check = [checked(store) for _ in range(amount.rounds) for store in stores.values()]
    taken = {name: size_of(store / "train") / amount.train for name, store in stores.items()}
    taken[FILES] = statistics.mean(map(len, photographs))
    return Pieces(
        cores=cores(),
        batch=batch,
        picture_bytes=taken,
        disk_pictures_s=disk,
        check_bytes_s=statistics.median(check),
        **packing,
        **loaded(stores, folder / "files", photographs, amount.rounds, batch),
        **trained_and_tested(stores[RAW], folder, amount, batch, pictures),
    )


def packed(files: Path, stores: dict[str, Path], rounds: int) -> dict[str, dict[str, float]]:
    """Pack the files, in turns, as prepare_imagenet.py does; what is packed last stays."""
    from prepare_imagenet import JPEG_QUALITY

    source = find_source(files)
    count = sum(len(listing) for listing in source.splits.values())
    clock: dict[str, list[float]] = {name: [] for name in stores}
    core: dict[str, list[float]] = {name: [] for name in stores}
    for turn in range(rounds):
        for name, store in stores.items():
            tell(f"packing the {name}, {turn + 1} of {rounds}")
            shutil.rmtree(store, ignore_errors=True)
            begin, worked = time.perf_counter(), time.process_time()
            pack(source, store, jpeg_quality=JPEG_QUALITY if name == JPEG else None, workers=cores())
            clock[name].append((time.perf_counter() - begin) / count)
            core[name].append((time.process_time() - worked) / count)
    return {"pack_s": medians(clock), "pack_core_s": medians(core)}


def checked(store: Path) -> float:
    """Bytes a second, of files that are in memory."""
    begin = time.perf_counter()
    faults = check_store(store)
    if faults:
        raise RuntimeError(f"a store that was just packed is damaged: {faults}")
    return size_of(store) / (time.perf_counter() - begin)


def cold(store: Path) -> float:
    """Raw pictures a second, in a random order, by one thread, that have to come from the disk."""
    for path in (store / "train").iterdir():
        if hasattr(os, "posix_fadvise"):  # elsewhere it stays in memory
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # pack has synced it: it is dropped
    images = PackedImages(store, "train")
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    begin = time.perf_counter()
    for index in order:
        images.image(index).copy()
    return len(order) / (time.perf_counter() - begin)


def loaded(
    stores: dict[str, Path], files: Path, photographs: Sequence[bytes], rounds: int, batch: int
) -> dict[str, Any]:
    """Seconds of a core for each picture, to decode it, to draw a view of it, and to send it to a card."""
    from alexnet import AlexNet
    from alexnet_options import RECIPES
    from trained import Trained

    from minigrad.data import compute_stats, prepare_bytes

    sources: dict[str, Any] = {name: open_images(store, "train") for name, store in stores.items()}
    sources[FILES] = open_images(files, "train")
    net = Trained(AlexNet(2, "paper", (ONE,), widths=NARROW), "paper", ("a", "b"), sources[RAW].stats)
    view = net.train_view(RECIPES["paper"].colour_noise)

    def pass_over(source: Any, pictures: bool) -> Callable[[], int]:
        loader = net.loader(source, batch, view, shuffle=True, workers=0, cache_bytes=0, pictures=pictures)
        return lambda: sum(len(batch.labels) for batch in loader)

    works: dict[Any, Callable[[], int]] = {
        "decode": lambda: sum(prepare_bytes(data, "made").shape[0] == 256 for data in photographs),
        "stats": lambda: compute_stats(sources[FILES]).count,
        **{(name, sent): pass_over(source, sent) for name, source in sources.items() for sent in (False, True)},
    }
    times: dict[Any, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):  # the first does not count
        tell(f"loading, {turn} of {rounds}")
        for name, work in works.items():
            begin = time.process_time()
            count = work()
            if turn:
                times[name].append((time.process_time() - begin) / count)
    found = medians(times)
    return {
        "decode_s": found["decode"],
        "stats_s": found["stats"],
        "view_s": {name: found[name, False] for name in sources},
        "sent_s": {name: found[name, True] for name in sources},
    }


def trained_and_tested(store: Path, folder: Path, amount: Amount, batch: int, pictures: int) -> dict[str, Any]:
    """Steps, tests and checkpoints, of a process for each choice of devices, in turns."""
    peers = [
        Peer(devices, trainer, str(store), devices, str(folder / f"run{k}"), pictures, batch)
        for k, devices in enumerate((ONE, TWO))
    ]
    try:
        rows: dict[str, list[tuple[float, float, float]]] = {peer.name: [] for peer in peers}
        kept, tests = [], {(peer.name, ten): list[float]() for peer in peers for ten in (False, True)}
        for turn in range(amount.rounds):
            tell(f"training, {turn + 1} of {amount.rounds}")
            for peer in peers:
                rows[peer.name] += peer.call("steps", amount.steps)
                kept.append(peer.call("keep"))
        peak = {peer.name: peer.peak_mb() for peer in peers}
        for turn in range(amount.rounds + 1):  # the first, a small one, does not count
            tell(f"testing, {turn} of {amount.rounds}")
            for (name, ten), times in tests.items():
                peer = next(peer for peer in peers if peer.name == name)
                count = (8 if ten else 64) if turn == 0 else amount.ten_views if ten else amount.one_view
                seconds = peer.call("test", count, ten)
                if turn:
                    times.append(seconds)
        checkpoint, weights = peers[-1].call("sizes")
        resume = statistics.median(peers[-1].call("resume") for _ in range(amount.rounds))
    finally:
        for peer in peers:
            peer.close()
    save, save_weights = map(statistics.median, zip(*kept))
    return {
        "step_s": {name: statistics.median(wait + work for wait, work, _ in of) for name, of in rows.items()},
        "step_core_s": {name: statistics.median(worked for *_, worked in of) for name, of in rows.items()},
        "waiting": {
            name: sum(wait for wait, *_ in of) / sum(wait + work for wait, work, _ in of) for name, of in rows.items()
        },
        "peak_mb": peak,
        "one_view_s": {peer.name: statistics.median(tests[peer.name, False]) for peer in peers},
        "ten_views_s": {peer.name: statistics.median(tests[peer.name, True]) for peer in peers},
        "checkpoint_bytes": checkpoint,
        "checkpoint_s": save,
        "resume_s": resume,
        "weights_bytes": weights,
        "weights_s": save_weights,
    }


def medians(times: dict[Any, list[float]]) -> dict[Any, float]:
    return {name: statistics.median(each) for name, each in times.items()}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
