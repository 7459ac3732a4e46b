"""One training of the claims: it goes on where it was stopped, and leaves its curve as a small file in the end."""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from going_on import CONFIG, Course, config_before
from progress import progress
from run_folder import CHECKPOINTS, Run, write_whole
from scoring import evaluate
from training import check_before_saving, train_epoch

import minigrad
from minigrad import checkpoint, optim
from minigrad.base.interrupts import hold
from minigrad.checkpoint import Checkpoints
from minigrad.data import Loader
from minigrad.errors import ArgumentError, DataError, printable

from .exams import EXAMS
from .nets import build, fit
from .pictures import Library, Pictures, test_loader, train_loader
from .setups import Arm, Setup, as_json

WEIGHTS = "weights.safetensors"
WARM_UP = 0.05  # of all steps, with the cosine schedule
FIT_IMAGES = 100
MINUTES = 5.0  # between two checkpoints within an epoch
FORMAT = 1


def result_path(results: Path, arm: Arm, seed: int) -> Path:
    return results / f"{arm.name}-seed{seed}.json"


def read_result(path: Path) -> dict[str, Any] | None:
    """What a run has left, None where there is nothing; DataError for a file that is no such thing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(path)} cannot be read ({printable(error)}): bring it back, or remove it") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("setup"), dict):
        raise DataError(f"{printable(path)} is no result of claims.py, format {FORMAT}: move it away")
    return found


def train(arm: Arm, seed: int, options: argparse.Namespace, library: Library, results: Path) -> dict[str, Any]:
    """The result of this run: read where it is there, else trained for, and written."""
    path = result_path(results, arm, seed)
    found = read_result(path)
    if found is not None:
        if found["setup"] != as_json(arm.setup):
            raise ArgumentError(
                f"{printable(path)} is of another setup than {arm.name} has now: move it away, or give another folder "
                "with --results"
            )
        print(f"{arm.name}, seed {seed}: done before, {printable(path)}")
        return found
    if options.data is None:
        raise ArgumentError(f"--data PATH: {arm.name} needs the pictures of {arm.setup.data}")
    pictures = library.pictures(options.data, arm.setup)
    folder = options.out / f"{arm.name}-seed{seed}"
    before = (folder / CONFIG).exists()
    folder.mkdir(parents=True, exist_ok=True)
    with Run(folder, new=not before) as run:
        found = _train(run, arm, seed, options, pictures, before)
        results.mkdir(parents=True, exist_ok=True)
        write_whole(path, as_lines(found))
        run.check()
    print(f"{arm.name}, seed {seed}: {printable(path)}")
    return found


def _train(
    run: Run, arm: Arm, seed: int, options: argparse.Namespace, pictures: Pictures, before: bool
) -> dict[str, Any]:
    setup = arm.setup
    minigrad.manual_seed(seed)
    net = build(setup, pictures.classes, options.devices)
    device = options.devices[0]
    loader = train_loader(pictures, setup, seed, options.workers)
    kept, saved = Checkpoints(run.path / CHECKPOINTS, 1), None
    config = {"arm": arm.name, "seed": seed, "options": {}, "setup": as_json(setup), "data": facts(pictures)}
    if before:
        then, saved = config_before(run.path, kept, None)
        if {name: then.get(name) for name in config} != config:
            raise ArgumentError(
                f"{printable(run.path)} holds a run of another setup, or of other pictures: move it away, or give "
                "another folder with --out"
            )
    first = None if saved is None else saved["first_kernels"]
    if saved is None:
        fit(net, setup, views(loader, device))
        first = net.conv1.weight.numpy().copy() if setup.net == "cifar" else net.kernels()
    optimizer = optim.SGD(net.parameters(), setup.lr, setup.momentum, setup.weight_decay, update_rule="alexnet")
    planned = setup.epochs * len(loader)
    schedule = optim.WarmupCosine(optimizer, round(WARM_UP * planned), planned) if setup.schedule == "cosine" else None
    objects = {"model": net, "optimizer": optimizer} | ({"schedule": schedule} if schedule is not None else {})
    course = Course(run, loader, kept, MINUTES, objects, {"config": config, "first_kernels": first})
    if saved is not None:
        course.go_on(None, planned)
        print(f"{arm.name}, seed {seed}: going on after step {course.step} of {planned}")
    run.write(CONFIG, json.dumps(config, indent=2) + "\n")
    course.begin()
    run.save, run.checkpoint, run.planned = saver(net, pictures, setup, device), course.save, planned
    learn(run, course, net, setup, pictures, device, f"{arm.name}, seed {seed}")
    measured = {name: EXAMS[name](net, setup, pictures, run.log, first, device) for name in arm.measured}
    speed = run.log.speed()
    return {
        "format": FORMAT, "arm": arm.name, "seed": seed, "setup": as_json(setup), "quick": bool(options.quick),
        "curve": curve(run.log, setup), "measured": rounded(measured), "parameters": int(net.num_parameters()),
        "seconds": round(speed["seconds"], 2), "images_per_s": round(speed["images_per_s"], 1),
        "devices": list(options.devices), "data": facts(pictures), "machine": machine(),
        "versions": {
            "minigrad": minigrad.__version__, "numpy": np.__version__, "python": platform.python_version(),
        },
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def learn(run: Run, course: Course, net: Any, setup: Setup, pictures: Pictures, device: str, title: str) -> None:
    """Train from where the course is to the setup's end, with its tests."""
    loader, optimizer = course.loader, course.objects["optimizer"]
    tested = tests_at(setup)
    for epoch in range(course.epoch, setup.epochs + 1):
        if setup.stop_at is not None and epoch > 1 and training_error(run.log, epoch - 1) <= setup.stop_at:
            break
        with (
            progress(len(loader) - course.batch, f"{title}, epoch {epoch}/{setup.epochs}", "steps") as bar,
            closing(loader.epoch(epoch - 1, course.batch)) as batches,
        ):
            step = train_epoch(
                net, batches, optimizer, device, epoch=epoch, first_step=course.step, log=run.log, bar=bar,
                schedule=course.objects.get("schedule"), after_step=course.after_step,
            )  # fmt: skip
        scores = []
        if epoch in tested:
            for split, images in (("seen", pictures.seen()), ("val", pictures.held_out)):
                scores.append((split, evaluate(net, test_loader(images, pictures, setup), device, step=step)))
        with hold(finish=True):  # or a checkpoint could have one half of it
            for split, one in scores:
                run.log.add(
                    split=split, epoch=epoch, step=step, images=one.images, loss=one.loss, top1=one.top1, top5=one.top5
                )
            course.after_epoch(scores[-1][1].top1 if scores else 0.0)
        run.keep(last=epoch == setup.epochs)


def tests_at(setup: Setup) -> set[int]:
    """The epochs after which there is a test: evenly over the run, and always the last."""
    return {round((k + 1) * setup.epochs / setup.tests) for k in range(setup.tests)}


def training_error(log: Any, epoch: int) -> float:
    """The share of wrong answers in the batches of an epoch, while it learned from them: Figure 1's training error."""
    shares = [(row["images"], row["top1"]) for row in log.rows if row["split"] == "train" and row["epoch"] == epoch]
    return 1 - sum(n * top1 for n, top1 in shares) / sum(n for n, _ in shares)


def curve(log: Any, setup: Setup) -> list[dict[str, Any]]:
    """For each epoch its mean training loss and error and the seconds until its end, and its test where there was one.

    Numbers have the six digits that a log keeps, so that a run that went on has the curve of one that was left alone.
    """
    points: dict[int, dict[str, Any]] = {}
    seconds = 0.0
    rows = [{name: digits(value) for name, value in row.items()} for row in log.rows]
    for epoch in sorted({row["epoch"] for row in rows}):
        mine = [row for row in rows if row["epoch"] == epoch]
        train = [row for row in mine if row["split"] == "train"]
        images = sum(row["images"] for row in train)
        seconds += sum(row["data_s"] + row["compute_s"] for row in train)
        point = points[epoch] = {"epoch": epoch, "seconds": round(seconds, 2)}
        point["train_loss"] = digits(sum(row["images"] * row["loss"] for row in train) / images)
        point["train_error"] = digits(1 - sum(row["images"] * row["top1"] for row in train) / images)
        for row in mine:
            if row["split"] in ("seen", "val"):
                point[f"{row['split']}_loss"] = row["loss"]
                point[f"{row['split']}_error"] = digits(1 - row["top1"])
                point[f"{row['split']}_error5"] = digits(1 - row["top5"])
    return list(points.values())


def digits(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def rounded(value: Any) -> Any:
    """Numbers of four digits: what was measured has no more."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(item) for item in value]
    return float(f"{float(value):.4g}") if isinstance(value, (float, np.floating)) else value


def as_lines(result: dict[str, Any]) -> str:
    """JSON with one line for each entry, and for each point of the curve."""
    entries = []
    for name, value in result.items():
        text = json.dumps(value)
        if name == "curve":
            text = "[\n  " + ",\n  ".join(json.dumps(point) for point in value) + "\n ]"
        entries.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def views(loader: Loader, device: str) -> minigrad.Tensor:
    """Training views, drawn as the training will draw them."""
    found: list[np.ndarray] = []
    with closing(loader.epoch(0)) as batches:
        for batch in batches:
            found.extend(batch.images)
            if len(found) >= FIT_IMAGES:
                break
    return minigrad.Tensor(np.stack(found[:FIT_IMAGES]), device=device)


def saver(net: Any, pictures: Pictures, setup: Setup, device: str) -> Callable[[Path], None]:
    image = next(iter(test_loader(pictures.held_out, pictures, setup))).images[0]

    def save(folder: Path) -> None:
        state = net.state_dict()
        check_before_saving(net, state, image, device)
        checkpoint.save(folder / WEIGHTS, state)

    return save


def facts(pictures: Pictures) -> dict[str, Any]:
    return {**pictures.facts, "classes": pictures.classes}


def machine() -> str:
    """The processor, as Linux calls it."""
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
