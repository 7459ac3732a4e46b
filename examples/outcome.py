"""The end of a run: its pictures, how its time was spent, and what to do next."""

from __future__ import annotations

import argparse
from pathlib import Path

import figures
import numpy as np
from command_line import command, word
from going_on import CHECKPOINTS, CONFIG
from page.exhibits import Exhibits
from page.live import PAGE
from run_folder import Run
from scoring import Scores
from trained import PREPARATION, WEIGHTS, Trained

from minigrad.data import Report
from minigrad.errors import printable


def draw(run: Run, net: Trained, first_kernels: np.ndarray, shown: Exhibits, scores: Scores) -> list[str]:
    """All pictures of the run; returns the names of those that could be drawn, and enters the others in run.missing."""
    title = f"AlexNet ({net.preset}), {len(shown.train_set)} training images: {scores.top1:.0%} top-1 on held-out "
    title += "images (ten views)"

    def curves(path: Path) -> None:
        figures.learning_curves(run.log, len(net.classes), path, title, "held-out images, one view")

    def kernels(path: Path) -> None:
        figures.conv1_kernels(net.model.kernels(), first_kernels, path, net.model.preset.columns)

    def predictions(path: Path) -> None:
        images, labels = shown.held_out()
        figures.predictions(images, shown.probabilities(), labels, net.names, path)

    def nearest(path: Path) -> None:
        images, labels = shown.held_out()
        found = [[(near, net.names[k]) for near, k in row] for row in shown.neighbours()["fc7"]]
        figures.neighbours(images[: len(found)], [net.names[k] for k in labels[: len(found)]], found, path)

    def confusion(path: Path) -> None:
        figures.confusion(scores.confusion, net.names, path)

    pictures = {
        "learning_curves.png": curves, "conv1_kernels.png": kernels, "predictions.png": predictions,
        "nearest.png": nearest, "confusion.png": confusion,
    }  # fmt: skip
    drawn, failed = figures.draw_each(run.path, pictures)
    run.missing.update(failed)
    return drawn


def tell(run: Run, report: Report, drawn: list[str], trained: float, total: float) -> None:
    """How the time was spent, what was skipped, and what lies in the run's folder."""
    if run.log.steps():
        speed = run.log.speed()
        print(
            f"Trained on {speed['images']} images in {speed['seconds']:.0f} s: {speed['images_per_s']:.1f} images/s, "
            f"{speed['waiting_for_data']:.1%} of the time waiting for data."
        )
    print(f"Everything took {total:.0f} s ({trained:.0f} s until the end of training).")
    if report.skipped:
        print(report)
    names = [CONFIG, "log.csv", "metrics.json", WEIGHTS, PREPARATION, CHECKPOINTS, PAGE, *drawn]
    print(f"In {printable(run.path)}: {', '.join(name for name in names if (run.path / name).exists())}")


def suggest(run: Path, options: argparse.Namespace, epochs: int) -> None:
    """What to do next, as commands that work in the folder where this one was given."""
    weights, testing = word(run / WEIGHTS), ("devices", "workers", "val_limit")
    longer = command(options, "--resume", word(run), "--epochs", str(4 * epochs), keep=())
    print("Try next:")
    print(f"  {longer}    # go on: longer is better")
    print(f"  {command(options, '--evaluate', weights, keep=testing)}")
    print(f"  {command(options, '--predict', weights, keep=['devices'])} IMAGE...")
    if len(options.devices) > 1:
        one = command(options, "--devices", options.devices[0], drop=("devices", "name", "resume"))
        print(f"  {one}    # the same net on one device")
    if not options.data:
        yours = command(options, "--data", drop=("epochs", "steps", "name", "tiny", "resume"))
        print(f"  {yours} DIR    # your own pictures: DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg")
