"""Train LeNet-5 (lenet.py) on files in the format of MNIST.

    python examples/lenet_mnist.py                    Fashion-MNIST where installed, else drawn digits
    python examples/lenet_mnist.py --variant relu     ReLU and max-pooling in the same net
    python examples/lenet_mnist.py --data DIR         DIR holds the four idx files of MNIST, gzipped or not
    python examples/lenet_mnist.py --data drawn       digits drawn in memory: the smallest set

On Debian, Fashion-MNIST is the package dataset-fashion-mnist.
"""

from __future__ import annotations

import interruption

if __name__ == "__main__":  # before the imports that take a second
    interruption.begin()

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import figures
import numpy as np
from command_line import OneLineParser, any_path, command, folder_name, new_run, one_device, positive, run_job
from drawn_digits import drawn_digits
from lenet import VARIANTS, LeNet5
from progress import progress
from run_folder import Run
from scoring import Scores, evaluate, log_probabilities, rivals
from training import check_before_saving, train_epoch

import minigrad
from minigrad import Tensor, checkpoint, optim
from minigrad.data import Batch, Mnist, load_mnist
from minigrad.errors import DataError, MinigradError, printable

# ---------------------------------------------------------------- the data

INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FASHION = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DIGITS = tuple("0123456789")
DRAWN = "drawn digits"
WEIGHTS = "weights.safetensors"
TINY = (200, 100)  # training and test images of --tiny


def find_data(options: argparse.Namespace) -> tuple[str, Mnist, tuple[str, ...]]:
    """(what it is, images and labels, class names) for --data, or the best there is without."""
    folder = options.data
    if folder is None and INSTALLED.is_dir() and not options.tiny:
        folder = INSTALLED
    if folder in (None, "drawn"):
        counts = TINY if options.tiny else (5000, 1000)
        with progress(sum(counts), "drawing digits", "pictures") as bar:
            return DRAWN, drawn_digits(*counts, seed=options.seed, progress=bar.update), DIGITS
    data = load_mnist(folder)
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        if images.shape[1:] != (28, 28) or not len(images) or labels.max() > 9:
            raise DataError(
                f"--data {printable(folder)}: LeNet-5 needs images of 28 x 28 in ten classes, "
                f"found images {images.shape} and labels up to {labels.max() if len(labels) else '-'}: give a set such "
                "as MNIST or Fashion-MNIST"
            )
    if options.tiny:
        n, m = TINY
        data = Mnist(data.train_images[:n], data.train_labels[:n], data.test_images[:m], data.test_labels[:m])
    # The files do not say whether they show digits or clothes; the folder's name does.
    fashion = "fashion" in str(Path(folder).resolve()).lower()
    return ("Fashion-MNIST" if fashion else "MNIST"), data, (FASHION if fashion else DIGITS)


def prepare(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 28, 28) to float32 (N, 1, 32, 32), background -0.1 and ink 1.175 (section II.B).

    The border lets the ends of strokes come to the middle of what the highest feature detectors see.
    """
    border = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return border[:, None].astype(np.float32) * np.float32(1.275 / 255) - np.float32(0.1)


class Batches:
    """Images in memory, batch by batch; with a seed, every epoch has an order of its own."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int | None = None):
        self.images, self.labels, self.batch_size, self.seed = images, labels, batch_size, seed

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        order = np.arange(len(self.images))
        if self.seed is not None:
            np.random.default_rng([self.seed, number]).shuffle(order)
        for start in range(0, len(order), self.batch_size):
            i = order[start : start + self.batch_size]
            yield Batch(prepare(self.images[i]), self.labels[i], i)

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class Recipe:
    """How a variant is trained, unless told otherwise: by Adam, its rate warmed up, then along a cosine to 0."""

    lr: float
    epochs: int = 4
    batch_size: int = 32


RECIPES = {"1998": Recipe(lr=0.002), "relu": Recipe(lr=0.002)}
DRAWN_EPOCHS = 10  # of 5,000 images
WARMUP = 0.05  # of all steps


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    minigrad.manual_seed(options.seed)
    return run_job("lenet_mnist.py", train, options)


def train(options: argparse.Namespace) -> None:
    begin = time.perf_counter()
    what, data, classes = find_data(options)
    with new_run(options.out, options.name, f"lenet-{options.variant}") as run:
        train_net(run, options, what, data, classes, begin)


def train_net(
    run: Run, options: argparse.Namespace, what: str, data: Mnist, classes: tuple[str, ...], begin: float
) -> None:
    recipe = recipe_for(options, what)
    print(f"{len(data.train_images):,} training and {len(data.test_images):,} test images: {what}")
    model = LeNet5(len(classes), options.variant, options.device)
    print(f"LeNet-5, variant {options.variant}, on {options.device}: {model.num_parameters():,} parameters")
    run.write("config.json", config_of(options, recipe, what, data, classes))

    batches = Batches(data.train_images, data.train_labels, recipe.batch_size, options.seed)
    test = Batches(data.test_images, data.test_labels, batch_size=250)
    optimizer = optim.Adam(model.parameters(), recipe.lr)
    steps = recipe.epochs * len(batches)
    schedule = optim.WarmupCosine(optimizer, round(WARMUP * steps), steps)
    facts = {"model": "LeNet-5", "variant": options.variant, "data": what, "classes": list(classes)}

    step, run.planned = 0, steps
    run.save = lambda folder: save(folder, model, test, facts, options.device)
    for epoch in range(1, recipe.epochs + 1):
        with progress(len(batches), f"epoch {epoch}/{recipe.epochs}", "steps", leave=True) as bar:
            step = train_epoch(
                model, batches.epoch(epoch), optimizer, options.device,
                epoch=epoch, first_step=step, log=run.log, bar=bar, schedule=schedule,
            )  # fmt: skip
        scores = evaluate(model, test, options.device, step=step)
        run.log.add(
            split="val", epoch=epoch, step=step, images=scores.images,
            loss=scores.loss, top1=scores.top1, top5=scores.top5,
        )  # fmt: skip
        run.score("one_view", scores, views=1, epoch=epoch, step=step)
        print(f"epoch {epoch}: {describe(scores)}")
        run.keep(last=epoch == recipe.epochs)
    drawn = [] if options.no_figures else draw(run, model, test, classes, what, options)
    run.keep(last=True)
    tell(run, scores, drawn, what, time.perf_counter() - begin, options, recipe)
    run.check()


def save(folder: Path, model: LeNet5, test: Batches, facts: dict[str, Any], device: str) -> None:
    """Weights into the folder of a run.  TrainingError, and those saved before are kept, where the net has diverged."""
    state = model.state_dict()
    check_before_saving(model, state, prepare(test.images[:1])[0], device)
    checkpoint.save(folder / WEIGHTS, state, facts)


def recipe_for(options: argparse.Namespace, what: str) -> Recipe:
    """The variant's recipe with what the command line says."""
    changes: dict[str, Any] = {"epochs": DRAWN_EPOCHS} if what == DRAWN else {}
    if options.tiny:
        changes = {"epochs": 2, "batch_size": 20}
    for key in ("lr", "epochs", "batch_size"):
        if getattr(options, key) is not None:
            changes[key] = getattr(options, key)
    return Recipe(**{**asdict(RECIPES[options.variant]), **changes})


def config_of(options: Any, recipe: Recipe, what: str, data: Mnist, classes: Any) -> str:
    config = {
        "model": "LeNet-5", "variant": options.variant, "device": options.device, "seed": options.seed,
        "recipe": asdict(recipe), "data": what, "folder": options.data, "classes": list(classes),
        "train_images": len(data.train_images), "test_images": len(data.test_images),
        "command": sys.argv[1:], "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "minigrad": minigrad.__version__, "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip
    return json.dumps(config, indent=2) + "\n"


def describe(scores: Scores) -> str:
    return f"top-1 {scores.top1:.2%}, loss {scores.loss:.3f} on {scores.images:,} test images"


def tell(
    run: Run, scores: Scores, drawn: list[str], what: str, seconds: float, options: argparse.Namespace, recipe: Recipe
) -> None:
    """What was done, where it lies, what to try next."""
    images, compute = run.log.column("train", "images").sum(), run.log.column("train", "compute_s")
    print()
    print(
        f"Trained on {images:,.0f} images of {what} in {compute.sum():.0f} s: {images / compute.sum():.0f} "
        f"images/s, {1e3 * np.median(compute):.1f} ms a step of {recipe.batch_size}."
    )
    print(f"LeNet-5, variant {options.variant}: {describe(scores)} (guessing: 10%).")
    print(f"Everything took {seconds:.0f} s. In {printable(run.path)}:")
    for name in ("config.json", "log.csv", "metrics.json", WEIGHTS, *drawn):
        if (run.path / name).exists():
            print(f"  {name}")
    other = "relu" if options.variant == "1998" else "1998"
    title = "ReLU and max-pooling" if other == "relu" else "the net of 1998"
    longer = command(options, "--epochs", str(3 * recipe.epochs), drop=("epochs", "name"))
    print("Try next:")
    print(f"  {command(options, '--variant', other, drop=('variant', 'name'))}    # {title}")
    print(f"  {longer}    # anew, and for longer")
    if what != "MNIST":
        yours = command(options, "--data", drop=("data", "tiny", "epochs", "name"))
        print(f"  {yours} DIR    # your own files in the format of MNIST")


# ---------------------------------------------------------------- pictures


def draw(run: Run, model: LeNet5, test: Batches, classes: tuple[str, ...], what: str, options: Any) -> list[str]:
    """All pictures of the run; returns the names of those that could be drawn, and enters the others in run.missing."""
    log_p = np.concatenate([log_probabilities(model, batch.images, options.device) for batch in test])
    right = float(np.mean(rivals(log_p, test.labels) == 0))
    title = f"LeNet-5 ({options.variant}) on {what}: {right:.1%} top-1 on test images"
    pictures = {
        "learning_curves.png": lambda path: figures.learning_curves(run.log, len(classes), path, title),
        "c1_kernels.png": lambda path: draw_kernels(model, test.images[:1], path, options.device),
        "mistakes.png": lambda path: draw_mistakes(test, np.exp(log_p), classes, path, title),
    }
    drawn, failed = figures.draw_each(run.path, pictures)
    run.missing.update(failed)
    return drawn


def draw_kernels(model: LeNet5, image: np.ndarray, path: Path, device: str) -> None:
    """The six kernels of C1, and below each what it finds in a test image."""
    plt = figures.pyplot()
    kernels = model.c1.weight.numpy()[:, 0]
    with minigrad.no_grad():
        maps = model.activation(model.c1(Tensor(prepare(image), device=device))).numpy()[0]
    figure, axes = plt.subplots(2, 1 + len(kernels), figsize=(9, 3.2))
    for axis in axes.flat:
        axis.axis("off")
    axes[1, 0].imshow(image[0], cmap="gray")
    axes[1, 0].set_title("test image", fontsize=9)
    for o, (kernel, answer) in enumerate(zip(kernels, maps), start=1):
        peak = np.abs(kernels).max()  # one scale for all, grey for 0
        axes[0, o].imshow(kernel, cmap="gray", vmin=-peak, vmax=peak)
        axes[0, o].set_title(f"kernel {o}", fontsize=9)
        axes[1, o].imshow(answer, cmap="gray")
    figure.suptitle("The kernels of C1 (white: +, black: -) and what each finds in a test image", fontsize=11)
    figures.save(figure, path)


def draw_mistakes(
    test: Batches, p: np.ndarray, classes: tuple[str, ...], path: Path, title: str, count: int = 24
) -> None:
    """The wrong answers that the net was surest of: another class at least as likely as the right one."""
    plt = figures.pyplot()
    others = p.copy()
    others[np.arange(len(p)), test.labels] = -1
    answer = others.argmax(1)
    wrong = np.flatnonzero(rivals(p, test.labels))
    surest = wrong[np.argsort(-p[wrong, answer[wrong]], kind="stable")][:count]
    figure, axes = plt.subplots(3, 8, figsize=(12, 6))
    for axis in axes.flat:
        axis.axis("off")
    for axis, i in zip(axes.flat, surest):
        axis.imshow(test.images[i], cmap="gray_r")
        says, truth = classes[answer[i]], classes[test.labels[i]]
        axis.set_title(f"{says}? {p[i, answer[i]]:.0%}\nis: {truth}", fontsize=9, color=figures.RED)
    figure.suptitle(f"{title}\nthe surest of {len(wrong):,} mistakes", fontsize=11)
    figures.save(figure, path)


# ---------------------------------------------------------------- the command line


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="lenet_mnist.py",
        description="Train LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998) on files in the format of MNIST. Without "
        f"options: on Fashion-MNIST from {INSTALLED} where it is installed, else on digits drawn in memory.",
        epilog="Results go to runs/<name>/: config.json, log.csv, metrics.json, weights.safetensors and pictures. Exit "
        "codes: 0; 1: training failed, or not all could be written; 2: wrong arguments or data; 130, 143, 129: ended "
        "by Ctrl-C, SIGTERM, SIGHUP, with the net kept.",
    )
    add = parser.add_argument
    add("--data", metavar="DIR", help="folder with the four idx files, gzipped or not; or: drawn")
    add("--variant", choices=tuple(VARIANTS), default="1998", help="the net (default: 1998)")
    add("--epochs", type=positive(int), help=f"passes over the images (default: 4; drawn: {DRAWN_EPOCHS})")
    add("--batch-size", type=positive(int), help="images per step (default: 32)")
    add("--lr", type=positive(float), help="learning rate of Adam (default: the variant's)")
    add("--seed", type=positive(int, zero=True, most=2**63 - 1), default=0, help="of weights and order (default: 0)")
    add("--device", type=one_device, default="cpu:0", help="cpu:N, textbook:N, cuda:N or cudasim:N (default: cpu:0)")
    add("--out", type=any_path, default=Path("runs"), metavar="DIR", help="where runs go (default: runs)")
    add("--name", type=folder_name, help="name of this run (default: numbered)")
    add("--no-figures", action="store_true", help="draw nothing (matplotlib is not needed then)")
    add("--tiny", action="store_true", help="a few images and steps: does everything work?")
    options = parser.parse(arguments)
    if not options.no_figures:
        try:
            figures.pyplot()
        except MinigradError as error:
            parser.error(str(error))  # now, not after the training
    return options


if __name__ == "__main__":
    interruption.finish(main)
