"""Train AlexNet in two columns, test it with ten views, and draw what it learned.

    python examples/alexnet_imagenet.py                    ten classes of rendered pictures, a few minutes on two cores
    python examples/alexnet_imagenet.py --data DIR         DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg
    python examples/alexnet_imagenet.py --evaluate WEIGHTS [--data DIR]
    python examples/alexnet_imagenet.py --predict WEIGHTS IMAGE...
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import figures
import numpy as np
from alexnet import PRESETS, AlexNet, together
from tqdm import tqdm
from training import Log, Scores, TrainingError, evaluate, probabilities, train_epoch

import minigrad
from minigrad import checkpoint, optim
from minigrad.data import (
    CenterView,
    ImageFolder,
    ImageStats,
    Loader,
    Report,
    TenViews,
    TrainViews,
    compute_stats,
    prepare_image,
)
from minigrad.data.demo_set import make_demo_set
from minigrad.errors import ArgumentError, CheckpointError, DataError, MinigradError


@dataclass(frozen=True)
class Recipe:
    """How a preset is trained, unless told otherwise on the command line."""

    optimizer: str
    lr: float
    batch_size: int
    epochs: int
    schedule: str  # "plateau": lr / 10 when the test error stops falling; "cosine": warm up, then fall to 0 as a cosine
    colour_noise: float = 0.1  # standard deviation of the paper's PCA colour noise
    dropout: float = 0.5
    fit_images: int = 0  # training views that the first weights are scaled to (minigrad.nn.standardize_outputs)


PAPER = Recipe("sgd", lr=0.01, batch_size=128, epochs=90, schedule="plateau")
RECIPES = {
    "paper": PAPER,
    "original": PAPER,
    "trainable": Recipe("sgd", lr=0.003, batch_size=32, epochs=90, schedule="cosine", dropout=0.2, fit_images=100),
}
DEMO_EPOCHS = 3
WARMUP = 0.05  # of all steps


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    minigrad.manual_seed(options.seed)
    # One line per unreadable file, without the source line that warns.
    warnings.showwarning = lambda message, *_: tqdm.write(f"warning: {message}", file=sys.stderr)
    try:
        if options.predict:
            predict(options)
        elif options.evaluate:
            evaluate_weights(options)
        else:
            train(options)
    except MinigradError as error:
        print(f"alexnet_imagenet.py: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    return 0


# ---------------------------------------------------------------- the three jobs


def train(options: argparse.Namespace) -> None:
    begin = time.perf_counter()
    root = options.data or demo_set(options)
    train_set = ImageFolder(root, "train")
    val_set = ImageFolder(root, "val", limit=options.val_limit)
    recipe = recipe_for(options)
    run = new_run(options, Path(root).name)
    report = Report()

    print(f"{len(train_set)} training and {len(val_set)} test images of {len(train_set.classes)} classes from {root}")
    stats = compute_stats(train_set, max_images=options.stats_images, workers=options.workers, report=report)
    stats.save(run / "preparation.npz")
    model = build(options, len(train_set.classes), recipe.dropout)
    print(f"AlexNet, preset {options.preset}, on {' and '.join(options.devices)}: {model.num_parameters():,} parameters")
    scale = PRESETS[options.preset].pixel_scale
    views = TrainViews(model.input_size, stats.mean_image, stats.pca, recipe.colour_noise, scale)
    common = {"workers": options.workers, "seed": options.seed, "report": report}
    if recipe.fit_images:
        sample = next(Loader(train_set, recipe.fit_images, views, shuffle=True, **common).epoch(0))
        model.fit_to(minigrad.Tensor(sample.images, device=options.devices[0]))
    loader = Loader(train_set, recipe.batch_size, views, shuffle=True, drop_last=len(train_set) > recipe.batch_size, **common)
    one_view = Loader(val_set, 64, CenterView(model.input_size, stats.mean_image, scale), **common)

    steps = min(options.steps or math.inf, recipe.epochs * len(loader))
    optimizer, schedule = optimizer_for(model, recipe, int(steps))
    save_config(run / "config.json", options, recipe, train_set, val_set, stats)
    log, step, epoch, interrupted = Log(run / "log.csv"), 0, 0, False
    try:
        while step < steps:
            epoch += 1
            batches = loader.epoch(epoch - 1)
            left = int(steps) - step
            with tqdm(total=min(len(loader), left), unit="step", desc=f"epoch {epoch}/{recipe.epochs}", **BAR) as bar:
                per_step = schedule if recipe.schedule == "cosine" else None
                step = train_epoch(
                    model, first(batches, left), optimizer, options.devices[0],
                    epoch=epoch, first_step=step, log=log, bar=bar, schedule=per_step,
                )  # fmt: skip
            scores = evaluate(model, one_view, options.devices[0])
            log.add(split="val", epoch=epoch, step=step, images=scores.images, loss=scores.loss, top1=scores.top1, top5=scores.top5)
            print(f"epoch {epoch}: {describe(scores)}, one view")
            if recipe.schedule == "plateau":
                schedule.step(1 - scores.top1)
            save_weights(run / "weights.safetensors", model, options, train_set.classes, stats)
            warn_of_plateau(log, len(train_set.classes), step)
    except KeyboardInterrupt:
        interrupted = True
        print(f"\ninterrupted at step {step}: finishing with the weights as they are")
        save_weights(run / "weights.safetensors", model, options, train_set.classes, stats)
    finally:
        log.close()
    trained = time.perf_counter()

    scores = None if interrupted else ten_views(model, val_set, stats, scale, options, common)
    drawn = [] if options.no_figures else draw(run, log, model, train_set, val_set, stats, scale, options, scores)
    finish(run, scores, log, report, drawn, trained - begin, time.perf_counter() - begin, options)


def evaluate_weights(options: argparse.Namespace) -> None:
    model, classes, stats, scale = restore(options, options.evaluate)
    root = options.data or demo_set(options)
    val_set = ImageFolder(root, "val", classes=classes, limit=options.val_limit)
    report = Report()
    common = {"workers": options.workers, "seed": options.seed, "report": report}
    scores = ten_views(model, val_set, stats, scale, options, common)
    print(f"{options.evaluate} on {val_set.folder}: {describe(scores)}, ten views")
    if report.skipped:
        print(report)


def predict(options: argparse.Namespace) -> None:
    weights, *paths = options.predict
    if not paths:
        raise ArgumentError("--predict: give the weights and at least one image: --predict WEIGHTS IMAGE...")
    model, classes, stats, scale = restore(options, weights)
    views = TenViews(model.input_size, stats.mean_image, scale)
    failed = 0
    for path in paths:
        try:
            image = prepare_image(path)
        except DataError as error:
            failed += 1
            print(f"{path}: {error}", file=sys.stderr)
            continue
        p = probabilities(model, views(image).transpose(0, 3, 1, 2)[None], options.devices[0])[0]
        best = np.argsort(-p, kind="stable")[:5]
        print(f"{path}: " + ", ".join(f"{classes[k]} {p[k]:.1%}" for k in best))
    if failed == len(paths):
        raise DataError(f"--predict: none of the {failed} image(s) could be read")


# ---------------------------------------------------------------- pieces of the job

BAR: dict[str, Any] = {
    "dynamic_ncols": True,
    "bar_format": "{desc} {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} {elapsed}, {remaining} left {postfix}",
}


def demo_set(options: argparse.Namespace) -> Path:
    """The embedded ten classes, rendered on the first call into the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "minigrad"
    root = cache / ("demo-tiny" if options.tiny else "demo")
    counts = {"train_per_class": 6, "val_per_class": 2} if options.tiny else {}
    with tqdm(desc="rendering the demo pictures", unit="picture", leave=False, dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return make_demo_set(root, **counts, progress=progress)


def recipe_for(options: argparse.Namespace) -> Recipe:
    """The preset's recipe with what the command line says."""
    changes: dict[str, Any] = {"epochs": DEMO_EPOCHS} if options.data is None else {}
    if options.tiny:
        changes = {"epochs": 1, "batch_size": 16}
    changes |= {key: value for key in ("lr", "batch_size", "epochs") if (value := getattr(options, key)) is not None}
    return Recipe(**{**asdict(RECIPES[options.preset]), **changes})


def build(options: argparse.Namespace, num_classes: int, dropout: float) -> AlexNet:
    return AlexNet(num_classes, options.preset, options.devices, dropout=dropout)


def optimizer_for(model: AlexNet, recipe: Recipe, steps: int) -> tuple[Any, Any]:
    """The recipe's optimizer over weights and biases, and its schedule of the learning rate."""
    if recipe.optimizer == "sgd":
        groups = list(model.parameter_groups(recipe.lr, weight_decay=0.0005))
        optimizer: Any = optim.SGD(groups, recipe.lr, momentum=0.9, update_rule="alexnet")
    else:
        optimizer = optim.Adam(list(model.parameter_groups(recipe.lr, weight_decay=0.0)), recipe.lr)
    if recipe.schedule == "cosine":
        return optimizer, optim.WarmupCosine(optimizer, round(WARMUP * steps), steps)
    return optimizer, optim.ReduceOnPlateau(optimizer, factor=0.1, patience=3)


def first(batches: Any, count: int) -> Any:
    """At most `count` batches; closing the loader's iterator stops its threads."""
    try:
        for _ in range(count):
            batch = next(batches, None)
            if batch is None:
                return
            yield batch
    finally:
        batches.close()


def ten_views(model: AlexNet, val_set: Any, stats: ImageStats, scale: float, options: Any, common: Any) -> Scores:
    """The paper's test: four corners, the centre, and their mirror images, softmax averaged (section 4.1)."""
    loader = Loader(val_set, 8, TenViews(model.input_size, stats.mean_image, scale), **common)
    with tqdm(total=len(loader), unit="batch", desc="testing with ten views", leave=False, dynamic_ncols=True) as bar:
        return evaluate(model, loader, options.devices[0], bar)


def warn_of_plateau(log: Log, num_classes: int, step: int) -> None:
    """AlexNet may sit at the loss of guessing for long: say so while something can be done about it."""
    recent = log.column("train", "loss")[-50:]
    chance = math.log(num_classes)
    if step >= 100 and abs(float(recent.mean()) - chance) < 0.02 * chance:
        print(
            f"warning: after {step} steps the loss is still {recent.mean():.3f}, that of guessing (ln {num_classes} = "
            f"{chance:.3f}): a known plateau of AlexNet; --preset trainable leaves it early, or try a lower --lr"
        )


def describe(scores: Scores) -> str:
    return f"top-1 {scores.top1:.1%}, top-5 {scores.top5:.1%}, loss {scores.loss:.3f} on {scores.images} held-out images"


def finish(run: Path, scores: Any, log: Log, report: Report, drawn: list[str], trained: float, total: float, options: Any) -> None:
    """What was done, where it lies, what to try next."""
    data, compute = log.column("train", "data_s"), log.column("train", "compute_s")
    images = log.column("train", "images").sum()
    print()
    if len(data):
        print(
            f"Trained on {images:.0f} images in {data.sum() + compute.sum():.0f} s: {images / (data.sum() + compute.sum()):.1f} "
            f"images/s, {data.sum():.0f} s waiting for data, {compute.sum():.0f} s computing."
        )
    if scores is not None:
        print(f"Ten views: {describe(scores)} (guessing: {1 / options.num_classes:.1%}).")
    if report.skipped:
        print(report)
    print(f"Everything took {total:.0f} s ({trained:.0f} s until the end of training). In {run}:")
    for name in ("config.json", "log.csv", "weights.safetensors", "preparation.npz", *drawn):
        print(f"  {name}")
    script, weights = "python examples/alexnet_imagenet.py", run / "weights.safetensors"
    data_option = f" --data {options.data}" if options.data else ""
    print("Try next:")
    print(f"  {script}{data_option} --epochs {3 * options.ran_epochs}    # learn on: better, and three times as long")
    print(f"  {script} --predict {weights} IMAGE...")
    print(f"  {script}{data_option} --devices cpu:0    # the same net on one device")
    if not options.data:
        print(f"  {script} --data DIR    # your own pictures: DIR/train/<class>/*.jpg, DIR/val/<class>/*.jpg")


# ---------------------------------------------------------------- pictures


def draw(run: Path, log: Log, model: AlexNet, train_set: Any, val_set: Any, stats: Any, scale: float, options: Any, scores: Any) -> list[str]:
    """All pictures of the run; returns their file names."""
    print("drawing ...")
    title = f"AlexNet ({options.preset}), {len(train_set)} training images"
    if scores is not None:
        title += f": {scores.top1:.0%} top-1 on held-out images (ten views)"
    if len(log.column("train", "loss")):
        figures.learning_curves(log, len(train_set.classes), run / "learning_curves.png", title)
    figures.conv1_kernels(model.state_dict()["conv1.weight"], run / "conv1_kernels.png")

    random = np.random.default_rng(options.seed)
    shown = readable(val_set, random.permutation(len(val_set)), 8)
    views = TenViews(model.input_size, stats.mean_image, scale)
    images = [image for _, image in shown]
    p = probabilities(model, np.stack([views(image) for image in images]).transpose(0, 1, 4, 2, 3), options.devices[0])
    labels = [int(val_set.labels[i]) for i, _ in shown]
    figures.predictions(images, p, labels, val_set.classes, run / "predictions.png")

    pool = readable(train_set, random.permutation(len(train_set)), 400)
    center = CenterView(model.input_size, stats.mean_image, scale)
    there = fc7(model, [center(image) for _, image in pool], options.devices[0])
    queries = shown[:5]
    here = fc7(model, [center(image) for _, image in queries], options.devices[0])
    found = []
    for feature in here:
        nearest = np.argsort(((there - feature) ** 2).sum(1))[:6]
        found.append([(pool[j][1], train_set.classes[train_set.labels[pool[j][0]]]) for j in nearest])
    names = [val_set.classes[val_set.labels[i]] for i, _ in queries]
    figures.neighbours([image for _, image in queries], names, found, run / "nearest.png")
    return ["learning_curves.png", "conv1_kernels.png", "predictions.png", "nearest.png"]


def readable(images: ImageFolder, order: np.ndarray, count: int) -> list[tuple[int, np.ndarray]]:
    """The first `count` (index, image) in that order whose files can be read."""
    found: list[tuple[int, np.ndarray]] = []
    for i in order:
        try:
            found.append((int(i), images.image(int(i))))
        except DataError:
            continue  # reported during training
        if len(found) == count:
            break
    return found


def fc7(model: AlexNet, views: list[np.ndarray], device: str, batch: int = 64) -> np.ndarray:
    """The activations of the last hidden layer, (N, 4096), for prepared views (H, W, 3)."""
    model.eval()
    with minigrad.no_grad():
        parts = [
            together(model.features(minigrad.Tensor(np.stack(views[i : i + batch]).transpose(0, 3, 1, 2), device=device)), device)
            for i in range(0, len(views), batch)
        ]
        return np.concatenate([part.numpy() for part in parts])


# ---------------------------------------------------------------- files of a run


def new_run(options: argparse.Namespace, dataset: str) -> Path:
    """A new folder runs/<name>: an earlier run is never written over."""
    if options.name:
        run = options.out / options.name
        if run.exists():
            raise ArgumentError(f"--name {options.name}: {run} exists; choose another name, runs are never overwritten")
    else:
        number = 1
        while (run := options.out / f"{dataset}-{options.preset}-{number:03d}").exists():
            number += 1
    try:
        run.mkdir(parents=True)
    except OSError as error:
        raise ArgumentError(f"--out {options.out}: cannot make the folder {run} ({error})") from None
    return run


def save_config(path: Path, options: Any, recipe: Recipe, train_set: Any, val_set: Any, stats: ImageStats) -> None:
    options.num_classes, options.ran_epochs = len(train_set.classes), recipe.epochs
    config = {
        "preset": options.preset, "devices": options.devices, "seed": options.seed, "recipe": asdict(recipe),
        "data": str(options.data or "demo set"), "classes": list(train_set.classes),
        "train_images": len(train_set), "val_images": len(val_set), "statistics": str(stats),
        "command": sys.argv[1:], "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "minigrad": minigrad.__version__, "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip
    path.write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")


def save_weights(path: Path, model: AlexNet, options: Any, classes: Any, stats: ImageStats) -> None:
    facts = {
        "classes": json.dumps(list(classes)),
        "preset": options.preset,
        "mean_rgb": json.dumps([float(v) for v in stats.mean_rgb]),
    }
    checkpoint.save(path, model.state_dict(), facts)


def restore(options: argparse.Namespace, path: Any) -> tuple[AlexNet, list[str], ImageStats, float]:
    """The model, classes and preparation that belong to a weights file."""
    state, facts = checkpoint.load(path)
    if "fc8.weight" not in state:
        raise CheckpointError(f"{path}: these are no AlexNet weights: fc8.weight is missing, there are {sorted(state)[:4]} ...")
    num_classes = len(state["fc8.weight"])
    classes = json.loads(facts.get("classes", "[]")) or [f"class {k}" for k in range(num_classes)]
    options.preset = facts.get("preset", options.preset)
    model = build(options, num_classes, RECIPES[options.preset].dropout)
    model.load_state_dict(state)
    beside = Path(path).parent / "preparation.npz"
    if beside.is_file():
        stats = ImageStats.load(beside)
    else:
        mean = np.array(json.loads(facts.get("mean_rgb", "[124, 117, 104]")), dtype=np.float32)
        print(f"no {beside.name} beside the weights: subtracting the mean colour {mean.round(1)}, not the mean image")
        stats = ImageStats(mean, mean, minigrad.data.IMAGENET_PCA, 0, 0, 0)
    return model, classes, stats, PRESETS[options.preset].pixel_scale


# ---------------------------------------------------------------- the command line


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="alexnet_imagenet.py",
        description="Train the two-column AlexNet of Krizhevsky, Sutskever and Hinton (2012). Without options: on ten "
        "classes of rendered pictures, made on the first run.",
        epilog="Results go to runs/<name>/: config.json, log.csv, weights.safetensors and pictures.",
    )
    what = parser.add_argument_group("what to do (default: train)")
    what.add_argument("--evaluate", metavar="WEIGHTS", help="test saved weights with ten views")
    what.add_argument("--predict", nargs="+", metavar=("WEIGHTS", "IMAGE"), help="the five likeliest classes of each image")
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, metavar="DIR", help="folder with train/<class>/*.jpg and val/<class>/*.jpg (jpeg or png, any size); default: the demo set")
    data.add_argument("--val-limit", type=positive(int), metavar="N", help="test on at most N images of each class")
    data.add_argument("--stats-images", type=positive(int), default=5000, metavar="N", help="mean image and colour components from at most N images (default: %(default)s)")
    data.add_argument("--workers", type=positive(int, zero=True), default=2, metavar="N", help="threads that load images (default: %(default)s)")
    learn = parser.add_argument_group("training")
    learn.add_argument("--preset", choices=tuple(PRESETS), default="trainable", help="paper; original: the code behind it; trainable: starts learning at once (default: %(default)s); see docs/alexnet.md")
    learn.add_argument("--devices", type=device_list, default=os.environ.get("MINIGRAD_DEVICES", "cpu:0,cpu:1"), metavar="A[,B]", help="one device or two, a column on each (default: %(default)s)")
    learn.add_argument("--epochs", type=positive(int), help=f"passes over the training images (default: {DEMO_EPOCHS} on the demo set, else 90)")
    learn.add_argument("--steps", type=positive(int), help="stop after that many steps")
    learn.add_argument("--batch-size", type=positive(int), help="images per step (default: the preset's, 32 or 128)")
    learn.add_argument("--lr", type=positive(float), help="learning rate (default: the preset's)")
    learn.add_argument("--seed", type=positive(int, zero=True), default=0, help="of weights, dropout, order and crops (default: %(default)s)")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs go (default: %(default)s)")
    out.add_argument("--name", help="name of this run (default: numbered)")
    out.add_argument("--no-figures", action="store_true", help="draw nothing (matplotlib is not needed then)")
    out.add_argument("--tiny", action="store_true", help="a few pictures and steps: does everything work?")
    options = parser.parse_args(arguments)
    if not options.no_figures and not (options.evaluate or options.predict):
        try:
            figures.pyplot()
        except MinigradError as error:
            parser.error(str(error))  # now, not after the training
    return options


def positive(kind: type, zero: bool = False) -> Any:
    """An argparse type: a number above 0 (or from 0 on)."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not (value > 0 or (zero and value == 0)) or value == math.inf:
            raise argparse.ArgumentTypeError(f"must be {'at least 0' if zero else 'above 0'}, got {text}")
        return value

    convert.__name__ = "whole number" if kind is int else "number"  # for argparse's message
    return convert


def device_list(text: str) -> tuple[str, ...]:
    """An argparse type: one or two different devices that can be used here."""
    names = tuple(name.strip() for name in text.split(","))
    try:
        devices = [minigrad.device(name) for name in names]
        for device in devices:
            _ = device.xp  # imports CuPy and asks the driver, where a graphics card is named
    except MinigradError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if len(devices) > 2 or len(set(devices)) < len(devices):
        raise argparse.ArgumentTypeError(f"give one device or two different ones, got {text}")
    return tuple(str(device) for device in devices)


if __name__ == "__main__":
    sys.exit(main())
