"""Train AlexNet in two columns, test it with ten views, and draw what it learned.

python examples/alexnet_imagenet.py                    ten classes of rendered pictures, a few minutes on two cores
python examples/alexnet_imagenet.py --data DIR         DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg
python examples/alexnet_imagenet.py --evaluate WEIGHTS [--data DIR]
python examples/alexnet_imagenet.py --predict WEIGHTS IMAGE...
"""

from __future__ import annotations

import interruption

if __name__ == "__main__":  # before the imports that take a second
    interruption.begin()

import argparse
import functools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import figures
import numpy as np
from alexnet import PRESETS, AlexNet
from command_line import (
    OneLineParser,
    any_path,
    command,
    device_list,
    folder_name,
    new_run,
    positive,
    run_job,
    word,
)  # fmt: skip
from progress import progress
from run_folder import Log, Run
from trained import PREPARATION, WEIGHTS, Trained, readable
from training import Scores, train_epoch

import minigrad
from minigrad import files, optim
from minigrad.data import ImageFolder, Loader, Report, compute_stats, prepare_image
from minigrad.data.demo_set import make_demo_set
from minigrad.errors import ArgumentError, DataError, MinigradError, printable


@dataclass(frozen=True)
class Recipe:
    """How a preset is trained, unless the command line says otherwise."""

    lr: float
    batch_size: int
    epochs: int
    schedule: str  # "plateau": lr / 10 when the test error stops falling; "cosine": warm up, then fall to 0 as a cosine
    momentum: float = 0.9
    weight_decay: float = 0.0005
    dropout: float = 0.5
    colour_noise: float = 0.1  # standard deviation of the paper's PCA colour noise
    fit_images: int = 0  # training views that the first weights are scaled to (minigrad.nn.standardize_outputs)


PAPER = Recipe(lr=0.01, batch_size=128, epochs=90, schedule="plateau")
RECIPES = {
    "paper": PAPER,
    "original": PAPER,
    "trainable": Recipe(lr=0.003, batch_size=32, epochs=90, schedule="cosine", dropout=0.2, fit_images=100),
}
DEMO_EPOCHS = 3
CONFIG = "config.json"  # of a run: its recipe, its classes, and where its images are
WARM_UP = 0.05  # of all steps, with the cosine schedule


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    minigrad.manual_seed(options.seed)
    job = predict if options.predict else evaluate_weights if options.evaluate else train
    return run_job("alexnet_imagenet.py", job, options)


# ---------------------------------------------------------------- the three jobs


def train(options: argparse.Namespace) -> None:
    begin = time.perf_counter()
    root = options.data or demo_set(options.tiny)
    train_set, val_set = ImageFolder(root, "train"), ImageFolder(root, "val", limit=options.val_limit)
    with new_run(options.out, options.name, f"{root.resolve().name}-{options.preset}") as run:
        train_net(run, options, root, train_set, val_set, begin)


def train_net(
    run: Run, options: argparse.Namespace, root: Path, train_set: ImageFolder, val_set: ImageFolder, begin: float
) -> None:
    recipe, report = recipe_for(options), Report()
    print(
        f"{len(train_set)} training and {len(val_set)} test images of {len(train_set.classes)} classes "
        f"from {printable(root)}"
    )
    stats = compute_stats(train_set, max_images=options.stats_images, workers=options.workers, report=report)
    model = AlexNet(len(train_set.classes), options.preset, options.devices, dropout=recipe.dropout)
    net = Trained(model, options.preset, train_set.classes, stats)
    print(f"AlexNet, preset {net.preset}, on {' and '.join(model.devices)}: {model.num_parameters():,} parameters")

    loader = Loader(
        train_set, recipe.batch_size, net.train_view(recipe.colour_noise), shuffle=True, seed=options.seed,
        workers=options.workers, drop_last=len(train_set) > recipe.batch_size, report=report,
    )  # fmt: skip
    if recipe.fit_images:
        fit_to_data(net, loader, recipe.fit_images)
    first_kernels = model.state_dict()["conv1.weight"]
    steps = recipe.epochs * len(loader) if options.steps is None else options.steps
    recipe = replace(recipe, epochs=math.ceil(steps / len(loader)))
    optimizer = optim.SGD(
        list(model.parameter_groups(recipe.lr, recipe.weight_decay)),
        recipe.lr, momentum=recipe.momentum, update_rule="alexnet",
    )  # fmt: skip
    each_step, each_epoch = schedules(optimizer, recipe, steps)
    run.write(CONFIG, config_of(options, recipe, root, train_set, val_set, str(stats)))

    log, step, run.save, run.planned = run.log, 0, net.save, steps
    for epoch in range(1, recipe.epochs + 1):
        left = min(len(loader), steps - step)
        with progress(left, f"epoch {epoch}/{recipe.epochs}", "steps", leave=True) as bar:
            step = train_epoch(
                model, first(loader.epoch(epoch - 1), left), optimizer, net.device,
                epoch=epoch, first_step=step, log=log, bar=bar, schedule=each_step,
            )  # fmt: skip
        one = net.test(val_set, options.workers, report, ten=False, step=step)
        log.add(split="val", epoch=epoch, step=step, images=one.images, loss=one.loss, top1=one.top1, top5=one.top5)
        run.score("one_view", one, views=1, epoch=epoch, step=step)
        print(f"epoch {epoch}: {describe(one)}, one view")
        if each_epoch is not None and each_epoch.step(1 - one.top1):
            print(f"the test error has stopped falling: learning rate now {optimizer.param_groups[0]['lr']:g}")
        run.keep(last=epoch == recipe.epochs)
        warn_of_plateau(log, len(net.classes), step)
    trained = time.perf_counter()
    scores = net.test(val_set, options.workers, report, ten=True, step=step)
    run.score("ten_views", scores, views=10, epoch=recipe.epochs, step=step)
    print(f"Ten views: {describe(scores)} (guessing: {1 / len(net.classes):.1%}).")

    drawn = [] if options.no_figures else draw(run, net, first_kernels, train_set, val_set, scores, options.seed)
    run.keep(last=True)
    tell(run, report, drawn, trained - begin, time.perf_counter() - begin)
    suggest(run.path, options, recipe.epochs)
    run.check()


def evaluate_weights(options: argparse.Namespace) -> None:
    net = Trained.restore(options.evaluate, options.preset, options.devices)
    root, report = options.data or trained_on(options.evaluate), Report()
    val_set = ImageFolder(root, "val", classes=net.classes, limit=options.val_limit)
    scores = net.test(val_set, options.workers, report, ten=True)
    print(f"{printable(options.evaluate)} on {printable(val_set.folder)}: {describe(scores)}, ten views")
    if report.skipped:
        print(report)


def trained_on(weights: Path) -> Path:
    """The folder of images that weights were trained on, as config.json beside them has it."""
    config = weights.parent / CONFIG
    try:
        root = Path(json.loads(config.read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, LookupError, TypeError):
        raise DataError(
            f"--evaluate: no readable {printable(config)} says what the weights were trained on: give --data DIR"
        ) from None
    if not (root.is_absolute() and root.is_dir()):
        raise DataError(
            f"--evaluate: {printable(config)} says that the weights were trained on {printable(root)}, "
            "which is not there: give --data DIR"
        )
    print(f"no --data: the images are those that the weights were trained for, in {printable(root)}")
    return root


def predict(options: argparse.Namespace) -> None:
    weights, *paths = options.predict
    if not paths:
        raise ArgumentError("--predict: give the weights and at least one image: --predict WEIGHTS IMAGE...")
    net = Trained.restore(Path(weights), options.preset, options.devices)
    failed = 0
    for path in paths:
        try:
            image = prepare_image(path)
        except DataError as error:
            failed += 1
            print(printable(error), file=sys.stderr)
            continue
        log_p = net.log_probabilities(image, path)
        best = np.argsort(-log_p, kind="stable")[:5]  # of equals, the first class
        print(f"{printable(path)}: " + ", ".join(f"{printable(net.classes[k])} {np.exp(log_p[k]):.1%}" for k in best))
    if failed:
        raise DataError(f"--predict: {failed} of {len(paths)} image(s) could not be read")


# ---------------------------------------------------------------- pieces of a training run


def demo_set(tiny: bool) -> Path:
    """The embedded ten classes, rendered into the user's cache folder the first time."""
    counts = {"train_per_class": 6, "val_per_class": 2} if tiny else {}
    with progress(None, "rendering the demo pictures", "pictures") as bar:

        def rendered(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        advice = "set XDG_CACHE_HOME to a folder that can be written to, or give pictures of your own with --data DIR"
        try:
            root = files.cache_folder() / ("demo-tiny" if tiny else "demo")
            return make_demo_set(root, **counts, progress=rendered)
        except OSError as error:
            raise DataError(f"the demo pictures have no place: {error.strerror}; {advice}") from error
        except DataError as error:
            raise DataError(f"{error}; {advice}") from error


def recipe_for(options: argparse.Namespace) -> Recipe:
    """The preset's recipe, with what the command line changes."""
    recipe = RECIPES[options.preset]
    if options.data is None:
        recipe = replace(recipe, epochs=DEMO_EPOCHS)
    if options.tiny:
        recipe = replace(recipe, epochs=1, batch_size=16)
    said = {name: getattr(options, name) for name in ("lr", "batch_size", "epochs")}
    return replace(recipe, **{name: value for name, value in said.items() if value is not None})


def fit_to_data(net: Trained, loader: Loader, count: int) -> None:
    """Scale the first weights to `count` training views, drawn as the training will draw them."""
    views: list[np.ndarray] = []
    for batch in loader.epoch(0):
        views.extend(batch.images)
        if len(views) >= count:
            break
    net.model.fit_to(minigrad.Tensor(np.stack(views[:count]), device=net.device))


def schedules(optimizer: Any, recipe: Recipe, steps: int) -> tuple[Any, Any]:
    """What moves the learning rate after each step, and after each epoch's test; one of them is None."""
    if recipe.schedule == "cosine":
        return optim.WarmupCosine(optimizer, round(WARM_UP * steps), steps), None
    return None, optim.ReduceOnPlateau(optimizer, factor=0.1, patience=3)


def first(batches: Any, count: int) -> Iterator[Any]:
    """At most `count` batches; closing the loader's iterator stops its threads."""
    try:
        for _ in range(count):
            batch = next(batches, None)
            if batch is None:
                return
            yield batch
    finally:
        batches.close()


def warn_of_plateau(log: Log, num_classes: int, step: int) -> None:
    """AlexNet may sit at the loss of guessing for long: say so while something can be done about it."""
    recent, chance = log.column("train", "loss")[-50:], math.log(num_classes)
    if step >= 100 and abs(float(recent.mean()) - chance) < 0.02 * chance:
        print(
            f"warning: after {step} steps the loss is still {recent.mean():.3f}, that of guessing (ln {num_classes} = "
            f"{chance:.3f}): a known plateau of AlexNet; --preset trainable leaves it early, or try another --lr"
        )


def config_of(options: Any, recipe: Recipe, root: Path, train_set: Any, val_set: Any, stats: str) -> str:
    config = {
        "preset": options.preset, "devices": options.devices, "seed": options.seed, "recipe": asdict(recipe),
        "data": str(root.resolve()), "classes": list(train_set.classes),
        "train_images": len(train_set), "val_images": len(val_set), "statistics": stats,
        "command": sys.argv[1:], "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "minigrad": minigrad.__version__, "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip
    return json.dumps(config, indent=2) + "\n"


# ---------------------------------------------------------------- the end of a run


def describe(scores: Scores) -> str:
    return (
        f"top-1 {scores.top1:.1%}, top-5 {scores.top5:.1%}, loss {scores.loss:.3f} on {scores.images} held-out images"
    )


def draw(
    run: Run, net: Trained, first_kernels: np.ndarray, train_set: ImageFolder, val_set: ImageFolder, scores: Scores,
    seed: int,
) -> list[str]:  # fmt: skip
    """All pictures of the run; returns the names of those that could be drawn, and enters the others in run.missing."""
    title = f"AlexNet ({net.preset}), {len(train_set)} training images: {scores.top1:.0%} top-1 on held-out images "
    title += "(ten views)"
    random = np.random.default_rng(seed)
    held_out, pool_order = random.permutation(len(val_set)), random.permutation(len(train_set))

    @functools.cache
    def shown() -> tuple[list[np.ndarray], list[int]]:
        found = readable(val_set, held_out, 8)
        return [image for _, image in found], [int(val_set.labels[i]) for i, _ in found]

    def curves(path: Path) -> None:
        figures.learning_curves(run.log, len(net.classes), path, title, "held-out images, one view")

    def kernels(path: Path) -> None:
        figures.conv1_kernels(net.model.state_dict()["conv1.weight"], first_kernels, path)

    def predictions(path: Path) -> None:
        images, labels = shown()
        figures.predictions(images, net.probabilities(images), labels, net.classes, path)

    def nearest(path: Path) -> None:
        images, labels = shown()
        pool = readable(train_set, pool_order, 400)
        there, here = net.features([image for _, image in pool]), net.features(images[:5])
        found = []
        for feature in here:
            order = np.argsort(((there - feature) ** 2).sum(1))[:6]
            found.append([(pool[j][1], net.classes[train_set.labels[pool[j][0]]]) for j in order])
        figures.neighbours(images[:5], [net.classes[k] for k in labels[:5]], found, path)

    pictures = {
        "learning_curves.png": curves, "conv1_kernels.png": kernels, "predictions.png": predictions,
        "nearest.png": nearest,
    }  # fmt: skip
    drawn, failed = figures.draw_each(run.path, pictures)
    run.missing.update(failed)
    return drawn


def tell(run: Run, report: Report, drawn: list[str], trained: float, total: float) -> None:
    """How the time was spent, what was skipped, and what lies in the run's folder."""
    log = run.log
    data, compute = log.column("train", "data_s").sum(), log.column("train", "compute_s").sum()
    images = int(log.column("train", "images").sum())
    if images:
        print(
            f"Trained on {images} images in {data + compute:.0f} s: {images / (data + compute):.1f} images/s, "
            f"{data:.0f} s waiting for data, {compute:.0f} s computing."
        )
    print(f"Everything took {total:.0f} s ({trained:.0f} s until the end of training).")
    if report.skipped:
        print(report)
    names = [CONFIG, "log.csv", "metrics.json", WEIGHTS, PREPARATION, *drawn]
    print(f"In {printable(run.path)}: {', '.join(name for name in names if (run.path / name).exists())}")


def suggest(run: Path, options: argparse.Namespace, epochs: int) -> None:
    """What to do next, as commands that work in the folder where this one was given."""
    weights, testing = word(run / WEIGHTS), ("devices", "workers", "val_limit")
    anew = ("epochs", "steps", "name")
    print("Try next:")
    print(f"  {command(options, '--epochs', str(4 * epochs), drop=anew)}    # anew, and for longer: longer is better")
    print(f"  {command(options, '--evaluate', weights, keep=testing)}")
    print(f"  {command(options, '--predict', weights, keep=['devices'])} IMAGE...")
    if len(options.devices) > 1:
        one = command(options, "--devices", options.devices[0], drop=("devices", "name"))
        print(f"  {one}    # the same net on one device")
    if not options.data:
        yours = command(options, "--data", drop=(*anew, "tiny"))
        print(f"  {yours} DIR    # your own pictures: DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg")


# ---------------------------------------------------------------- the command line


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="alexnet_imagenet.py",
        description="Train the two-column AlexNet of Krizhevsky, Sutskever and Hinton (2012). Without options: on ten "
        "classes of rendered pictures, made on the first run.",
        epilog="Results go to runs/<name>/: config.json, log.csv, metrics.json, weights.safetensors, preparation.npz "
        "and pictures. Exit codes: 0; 1: training failed, or not all could be written; 2: wrong arguments or data; "
        "130, 143, 129: ended by Ctrl-C, SIGTERM, SIGHUP, with the net kept.",
    )
    number, whole = positive(float), positive(int)
    what = parser.add_argument_group("what to do (default: train)").add_mutually_exclusive_group()
    what.add_argument("--evaluate", type=any_path, metavar="WEIGHTS", help="test saved weights with ten views")
    what.add_argument(
        "--predict", nargs="+", metavar=("WEIGHTS", "IMAGE"), help="print the five likeliest classes of each image"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", type=any_path, metavar="DIR",
        help="folder with train/<class>/*.jpg and val/<class>/*.jpg; jpeg, png, gif, bmp or webp of any size (default: "
        "the demo set)",
    )  # fmt: skip
    data.add_argument("--val-limit", type=whole, metavar="N", help="test on at most N images of each class")
    data.add_argument(
        "--stats-images", type=whole, default=5000, metavar="N",
        help="mean image and colour components from at most N images (default: %(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--workers", type=positive(int, zero=True, most=1000), default=2, metavar="N",
        help="threads that load images; 0: load between steps (default: %(default)s)",
    )  # fmt: skip
    learn = parser.add_argument_group("training")
    learn.add_argument(
        "--preset", choices=tuple(PRESETS), default="trainable",
        help="paper; original: the code behind the paper; trainable: starts learning at once (default: %(default)s)",
    )  # fmt: skip
    learn.add_argument(
        "--devices", type=device_list, default=os.environ.get("MINIGRAD_DEVICES", "cpu:0,cpu:1"), metavar="A[,B]",
        help="two devices, a column on each, or one (default: %(default)s)",
    )  # fmt: skip
    learn.add_argument(
        "--epochs", type=whole, metavar="N",
        help=f"passes over the training images (default: {DEMO_EPOCHS} on the demo set, else 90)",
    )  # fmt: skip
    learn.add_argument("--steps", type=whole, metavar="N", help="exactly N steps, whatever that is in epochs")
    learn.add_argument(
        "--batch-size", type=whole, metavar="N", help="images per step (default: 32; paper, original: 128)"
    )
    learn.add_argument("--lr", type=number, help="learning rate (default: 0.003; paper, original: 0.01)")
    learn.add_argument(
        "--seed", type=positive(int, zero=True, most=2**63 - 1), default=0, metavar="N",
        help="of weights, dropout, order and crops (default: %(default)s)",
    )  # fmt: skip
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out", type=any_path, default=Path("runs"), metavar="DIR", help="where runs go (default: %(default)s)"
    )
    out.add_argument("--name", type=folder_name, help="name of this run (default: numbered)")
    out.add_argument("--no-figures", action="store_true", help="draw nothing; matplotlib is not needed then")
    out.add_argument("--tiny", action="store_true", help="a few pictures, a few steps: does everything work?")
    options = parser.parse(arguments)
    if not (options.no_figures or options.evaluate or options.predict):
        try:
            figures.pyplot()
        except MinigradError as error:
            parser.error(str(error))  # now, not after the training
    return options


if __name__ == "__main__":
    interruption.finish(main)
