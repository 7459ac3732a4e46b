"""What trained weights say of pictures: --evaluate and --predict of the main job."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import figures
import numpy as np
from going_on import CONFIG
from progress import warn
from scoring import ensemble
from trained import Trained

from minigrad.data import PackedImages, Report, open_images, prepare_image
from minigrad.data.decode import EXTENSIONS
from minigrad.data.prepare import BACKGROUND
from minigrad.errors import ArgumentError, DataError, printable


def evaluate(options: argparse.Namespace) -> None:
    tell = (lambda text: None) if options.json else print
    nets = [Trained.restore(path, options.preset, options.devices, tell) for path in options.evaluate]
    for path, net in zip(options.evaluate, nets):
        if list(net.classes) != list(nets[0].classes):
            raise ArgumentError(
                f"--evaluate: {printable(path)} has other classes than {printable(options.evaluate[0])}: only nets of "
                "the same classes can be averaged"
            )
    root, report = options.data or trained_on(options.evaluate[0], tell), Report()
    val_set = open_images(root, "val", classes=nets[0].classes, limit=options.val_limit)
    fit = val_set.fit if isinstance(val_set, PackedImages) else "scale"
    for path, net in zip(options.evaluate, nets):
        if net.stats.fit != fit:
            done = {"scale": "enlarged", "place": "placed unscaled in the centre"}
            warn(
                f"small pictures are {done[fit]} here, and were {done[net.stats.fit]} for {printable(path)}: where "
                "there are any, give a store that was packed as that of its training (prepare_imagenet.py)"
            )
    words = nets[0].words or val_set.words
    found: dict[str, Any] = {"images": str(val_set.folder)}
    for views, name in ((1, "one view"), (10, "ten views")):
        each, average = ensemble([net.answers(val_set, options.workers, report, ten=views == 10) for net in nets])
        for path, scores in zip(options.evaluate, each):
            found.setdefault(str(path), {})[name] = scores.facts(nets[0].classes, words)
            tell(f"{printable(path)} on {printable(val_set.folder)}: {scores}, {name}")
        if len(nets) > 1:
            found.setdefault("average", {})[name] = average.facts(nets[0].classes, words)
            tell(f"the average of {len(nets)} nets: {average}, {name}")
    if options.json:
        print(json.dumps(found, indent=2))
    if report.skipped:
        tell(report)


def trained_on(weights: Path, tell: Callable[[str], Any] = print) -> Path:
    """The folder of images that weights were trained on, as config.json beside them has it."""
    config = weights.parent / CONFIG
    try:
        root = Path(json.loads(config.read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, LookupError, TypeError):
        raise DataError(
            f"--evaluate: no readable {printable(config)} says what the weights were trained on: give --data PATH"
        ) from None
    if not (root.is_absolute() and root.exists()):
        raise DataError(
            f"--evaluate: {printable(config)} says that the weights were trained on {printable(root)}, "
            "which is not there: give --data PATH"
        )
    tell(f"no --data: the images are those that the weights were trained for, in {printable(root)}")
    return root


def predict(options: argparse.Namespace) -> None:
    weights, *given = options.predict
    if not given:
        raise ArgumentError("--predict: give the weights and at least one image: --predict WEIGHTS IMAGE...")
    tell = (lambda text: None) if options.json else print
    net = Trained.restore(Path(weights), options.preset, options.devices, tell)
    names = net.names
    paths, failed, found, shown = images_of(given), 0, [], []
    for path in paths:
        try:
            image = prepare_image(path, background=BACKGROUND if net.stats.fit == "place" else None)
        except DataError as error:
            failed += 1
            print(printable(error), file=sys.stderr)
            continue
        log_p = net.log_probabilities(image, path)
        p, best = np.exp(log_p), np.argsort(-log_p, kind="stable")[:5]  # of equals, the first class
        found.append({"image": str(path), "classes": {net.classes[k]: float(p[k]) for k in best}})
        if net.words:
            found[-1]["words"] = {net.classes[k]: net.words.get(net.classes[k], "") for k in best}
        if len(shown) < SHOWN:
            shown.append((image, p))
        tell(f"{printable(path)}: " + ", ".join(f"{printable(names[k])} {p[k]:.1%}" for k in best))
    if options.json:
        print(json.dumps(found, indent=2))
    if options.picture and shown:
        images, shares = zip(*shown)
        figures.predictions(images, np.stack(shares), None, names, options.picture)
        tell(f"{printable(options.picture)}: {len(shown)} of {len(found)} images with their likeliest classes")
    if failed:
        raise DataError(f"--predict: {failed} of {len(paths)} image(s) could not be read")


SHOWN = 24  # images in a picture of --predict, at most


def images_of(given: Sequence[str]) -> list[str]:
    """The files that are named, and those in the folders that are; DataError for a folder without one."""
    paths = []
    for name in given:
        if not os.path.isdir(name):
            paths.append(name)
            continue
        inside = [
            os.path.join(folder, file) for folder, _, files in os.walk(name) for file in files
            if file.lower().endswith(EXTENSIONS)
        ]  # fmt: skip
        if not inside:
            raise DataError(f"--predict: the folder {printable(name)} holds no image ({', '.join(EXTENSIONS)})")
        paths += sorted(inside)
    return paths
