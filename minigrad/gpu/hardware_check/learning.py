"""A training run on the card by the main job's own command, beside PyTorch's net of the same recipe on the same data.

PyTorch's has the same first weights, the same batches in the same order (minigrad's loader makes them), the same
schedule of the learning rate, and other dropout masks.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minigrad

from ...device import Device
from ...errors import MinigradError
from .compare import usable
from .report import EMULATED, Part, table
from .steps import NO_CLONE, programs, where_torch_is

POINTS = 8  # of a loss curve
WORKERS = min(8, os.cpu_count() or 1)  # threads that load pictures


class Ran(NamedTuple):
    """Of each step: the loss, seconds waited for data, seconds computed, images.  top1: by one view, at the end."""

    losses: list[float]
    waited: list[float]
    computed: list[float]
    images: list[int]
    top1: float

    def cells(self) -> tuple[str, ...]:
        parts = np.array_split(np.array(self.losses), min(POINTS, len(self.losses)))
        curve = " ".join(f"{part.mean():.3g}" for part in parts)
        # The first step compiles what has not been compiled yet.
        images, waited, computed = (sum(of[1:] or of) for of in (self.images, self.waited, self.computed))
        seconds = waited + computed
        return curve, f"{self.top1:.1%}", f"{images / seconds:.4g}", f"{waited / seconds:.0%}"


def learn(part: Part, devices: Sequence[Device], data: Path | None, epochs: int) -> None:
    """A row for our run, and one for PyTorch's."""
    root = programs()
    if root is None:
        part.line(NO_CLONE)
        return
    emulated = devices[0].kind != "cuda"
    command = ["--devices", ",".join(device.name for device in devices), "--workers", str(WORKERS)]
    command += ["--epochs", str(epochs)] if not emulated else ["--steps", "2", "--batch-size", "4", "--val-limit", "1"]
    with tempfile.TemporaryDirectory() as folder:
        if emulated and data is None:
            data = few_pictures(Path(folder))
        shown = " ".join(["python examples/alexnet_imagenet.py", *command, *(["--data DIR"] if data else [])])
        part.head(
            *([EMULATED, ""] if emulated else []),
            f"`{shown}`, and PyTorch's net of the same recipe, first weights and batches on",
            f"{'the processor' if emulated else 'the same card'}.  The loss: means of up to {POINTS} equal stretches.",
            "",
            *table(("", "loss", "top-1, one view", "images/s", "waiting for data")),
        )
        command += ["--data", str(data.resolve())] if data else []
        jobs = [
            ("minigrad", partial(_main_job, root, command)),
            ("PyTorch eager", partial(_torch, where_torch_is(devices[0]), command)),
        ]
        part.work(jobs, lambda: all(map(usable, devices)))


def few_pictures(folder: Path) -> Path:
    """A folder with two classes of the tiny demo set."""
    from alexnet_imagenet import demo_set

    root = demo_set(tiny=True)
    for split in ("train", "val"):
        for pictures in sorted((root / split).iterdir())[:2]:
            shutil.copytree(pictures, folder / split / pictures.name)
    return folder


def _main_job(root: Path, command: Sequence[str]) -> Iterator[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        call = [
            sys.executable,
            "examples/alexnet_imagenet.py",
            *command,
            "--no-figures",
            "--out",
            folder,
            "--name",
            "run",
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
        ran = subprocess.run(call, cwd=root, capture_output=True, text=True, errors="replace", env=environment)
        if ran.returncode:
            last = (ran.stderr.strip() or ran.stdout.strip() or "no output").splitlines()[-1]
            raise MinigradError(f"examples/alexnet_imagenet.py ended with {ran.returncode}: {last}")
        yield read_run(Path(folder) / "run").cells()


def read_run(run: Path) -> Ran:
    """What the folder of a run tells."""
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    scores = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    losses, waited, computed = ([float(row[name]) for row in rows] for name in ("loss", "data_s", "compute_s"))
    return Ran(losses, waited, computed, [int(row["images"]) for row in rows], scores["one_view"]["top1"])


# ---------------------------------------------------------------- PyTorch's run


def _torch(device: str, command: Sequence[str]) -> Iterator[tuple[str, ...]]:
    try:
        import torch
    except ImportError:
        yield "PyTorch is not installed here", "", "", ""
        return
    if device != "cpu" and not torch.cuda.is_available():
        yield "PyTorch has no CUDA here", "", "", ""
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = minigrad.tf32_allowed()
    torch.backends.cudnn.benchmark = True
    from alexnet_options import parse

    yield torch_run(parse([*command, "--no-figures"]), device).cells()


def torch_run(options: argparse.Namespace, device: str) -> Ran:
    """What examples/alexnet_imagenet.py does with these options until the last test, by PyTorch."""
    import torch
    import torch.nn.functional as f
    from alexnet import AlexNet
    from alexnet_imagenet import demo_set, first, fit_to_data, schedules
    from alexnet_options import recipe_for
    from nets import torch_net
    from trained import Trained
    from training import timed

    from ... import optim
    from ...data import ImageFolder, Loader, compute_stats

    minigrad.manual_seed(options.seed)
    recipe, root = recipe_for(options), options.data or demo_set(options.tiny)
    train_set, val_set = ImageFolder(root, "train"), ImageFolder(root, "val", limit=options.val_limit)
    stats = compute_stats(train_set, max_images=options.stats_images, workers=options.workers)
    model = AlexNet(len(train_set.classes), options.preset, options.devices, dropout=recipe.dropout)
    ours = Trained(model, options.preset, train_set.classes, stats)
    loader = Loader(
        train_set, recipe.batch_size, ours.train_view(recipe.colour_noise), shuffle=True, seed=options.seed,
        workers=options.workers, drop_last=len(train_set) > recipe.batch_size,
    )  # fmt: skip
    if recipe.fit_images:
        fit_to_data(ours, loader, recipe.fit_images)
    w = {name: torch.nn.Parameter(torch.from_numpy(a.copy()).to(device)) for name, a in model.state_dict().items()}
    net = torch_net(w, recipe.dropout)
    # The rule of 2012, v <- mu v - lr (g + wd w), is PyTorch's at a rate of 1, with lr in the loss and in the decay.
    # An optimiser of ours, over a parameter that nobody trains, keeps lr.
    optimizer = torch.optim.SGD(w.values(), 1.0, recipe.momentum)
    rate = optim.SGD([minigrad.Tensor([0.0], requires_grad=True)], recipe.lr)
    steps = options.steps or recipe.epochs * len(loader)
    each_step, _ = schedules(ours, loader, rate, recipe, steps)

    def on_device(batch: Any) -> tuple[Any, Any]:
        return torch.from_numpy(np.ascontiguousarray(batch.images)).to(device), torch.from_numpy(batch.labels).to(
            device
        )

    losses, waited, computed, images = list[float](), list[float](), list[float](), list[int]()
    for epoch in range(-(-steps // len(loader))):
        for wait, batch in timed(first(loader.epoch(epoch), steps - len(losses))):
            begin = time.perf_counter()
            lr = rate.param_groups[0]["lr"]
            optimizer.param_groups[0]["weight_decay"] = lr * recipe.weight_decay
            x, labels = on_device(batch)
            optimizer.zero_grad()
            loss = f.cross_entropy(net(x, True), labels)
            losses.append(loss.item())
            (lr * loss).backward()
            optimizer.step()
            if each_step is not None:
                each_step.step()
            if device != "cpu":
                torch.cuda.synchronize()
            waited.append(wait)
            computed.append(time.perf_counter() - begin)
            images.append(len(batch.labels))
    right = seen = 0
    with torch.inference_mode():
        for batch in Loader(val_set, 64, ours.center_view(), workers=options.workers, cache_bytes=0):
            x, labels = on_device(batch)
            right += int((net(x, False).argmax(1) == labels).sum())
            seen += len(batch.labels)
    return Ran(losses, waited, computed, images, right / seen)
