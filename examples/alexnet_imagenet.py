"""Train AlexNet in two columns, test it with ten views, and draw what it learned.

python examples/alexnet_imagenet.py                    ten classes of rendered pictures, a few minutes on two cores
python examples/alexnet_imagenet.py --data DIR         DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg
python examples/alexnet_imagenet.py --resume runs/NAME go on with a run that was stopped, as if it had not been
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import figures
import numpy as np
from alexnet import AlexNet
from alexnet_options import WARM_UP, Recipe, parse, recipe_for
from command_line import command, new_run, run_job, word
from going_on import (
    CHECKPOINTS,
    CONFIG,
    Course,
    as_before,
    check_data,
    config_before,
    facts_of_data,
    options_for_config,
    run_and_checkpoint,
    scale_rates,
    stats_as_values,
    stats_of_values,
    where_it_began,
)
from inputs import Inputs
from progress import progress, warn
from run_folder import Log, Run, TrainingError
from scoring import Scores, ensemble
from trained import PREPARATION, WEIGHTS, Trained, readable
from training import train_epoch

import minigrad
from minigrad import checkpoint, optim
from minigrad.base import files
from minigrad.base.interrupts import hold
from minigrad.checkpoint import Checkpoints
from minigrad.data import ImageFolder, Loader, Report, compute_stats, prepare_image
from minigrad.data.decode import EXTENSIONS
from minigrad.data.demo_set import make_demo_set
from minigrad.errors import ArgumentError, DataError, printable, some


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    minigrad.manual_seed(options.seed)
    job = predict if options.predict else evaluate_weights if options.evaluate else resume if options.resume else train
    return run_job("alexnet_imagenet.py", job, options)


# ---------------------------------------------------------------- the three jobs


def train(options: argparse.Namespace) -> None:
    begin = time.perf_counter()
    root = options.data or demo_set(options.tiny)
    train_set, val_set = ImageFolder(root, "train"), ImageFolder(root, "val", limit=options.val_limit)
    with new_run(options.out, options.name, f"{root.resolve().name}-{options.preset}") as run:
        train_net(run, options, root, train_set, val_set, begin)


def resume(options: argparse.Namespace) -> None:
    begin = time.perf_counter()
    folder, path = run_and_checkpoint(options.resume)
    with Run(folder, new=False) as run:
        config, saved = config_before(folder, Checkpoints(folder / CHECKPOINTS), path)
        options = as_before(options, config["options"])
        minigrad.manual_seed(options.seed)
        root = options.data or Path(config["data"])
        if options.data is None and not root.is_dir():
            root = demo_set(options.tiny) if config["demo"] else root
        train_set, val_set = ImageFolder(root, "train"), ImageFolder(root, "val", limit=options.val_limit)
        check_data(config, root, train_set, val_set)
        train_net(run, options, root, train_set, val_set, begin, config, saved, path)


def train_net(
    run: Run, options: argparse.Namespace, root: Path, train_set: ImageFolder, val_set: ImageFolder, begin: float,
    before: dict[str, Any] | None = None, saved: dict[str, Any] | None = None, path: Path | None = None,
) -> None:  # fmt: skip
    """Train in the run's folder; before, saved, path: its configuration, its checkpoint's values, and where that is."""
    recipe, report = recipe_for(options), Report()
    print(
        f"{len(train_set)} training and {len(val_set)} test images of {len(train_set.classes)} classes "
        f"from {printable(root)}"
    )
    if saved is None:
        stats = compute_stats(train_set, max_images=options.stats_images, workers=options.workers, report=report)
    else:
        stats = stats_of_values(saved["stats"])
    model = AlexNet(len(train_set.classes), options.preset, options.devices, dropout=recipe.dropout)
    net = Trained(model, options.preset, train_set.classes, stats)
    print(f"AlexNet, preset {net.preset}, on {' and '.join(model.devices)}: {model.num_parameters():,} parameters")

    loader = net.loader(
        train_set, recipe.batch_size, net.train_view(recipe.colour_noise), shuffle=True, seed=options.seed,
        workers=options.workers, drop_last=len(train_set) > recipe.batch_size, report=report,
    )  # fmt: skip
    if options.init is not None and saved is None:
        begin_with(model, options.init)
    elif recipe.fit_images and saved is None:
        fit_to_data(net, loader, recipe.fit_images)
    model.freeze(options.freeze)
    first_kernels = model.state_dict()["conv1.weight"] if saved is None else saved["first_kernels"]
    per_epoch = math.ceil(len(loader) / recipe.accumulate)
    steps = recipe.epochs * per_epoch if options.steps is None else options.steps
    recipe = replace(recipe, epochs=math.ceil(steps / per_epoch))
    apart = "conv1" if recipe.schedule == "original" else ""
    optimizer = optim.SGD(
        list(model.parameter_groups(recipe.lr, recipe.weight_decay, apart)),
        recipe.lr, momentum=recipe.momentum, update_rule="alexnet",
    )  # fmt: skip
    each_step, each_epoch = schedules(net, loader, optimizer, recipe, steps)
    config = config_of(options, recipe, root, train_set, val_set, str(stats), before)
    course = Course(
        run, loader, Checkpoints(run.path / CHECKPOINTS, options.keep_checkpoints), options.checkpoint_minutes,
        {"model": model, "optimizer": optimizer, "schedule": each_step or each_epoch},
        {"config": config, "stats": stats_as_values(stats), "first_kernels": first_kernels}, recipe.accumulate,
    )  # fmt: skip
    if saved is not None:
        course.go_on(path)
        if recipe.lr != before["recipe"]["lr"]:
            scale_rates(optimizer, each_step or each_epoch, recipe.lr / before["recipe"]["lr"])
        if course.epoch > recipe.epochs and tested_to_the_end(run.path, course.step):
            print(
                f"the run is complete: it has done its {steps} steps; --resume {word(run.path)} --epochs "
                f"{2 * recipe.epochs} trains on"
            )
            return
        print(f"going on after step {course.step} of {steps}, in epoch {course.epoch}")
    elif before is not None:
        print("no checkpoint yet: the run begins anew")
    run.write(CONFIG, json.dumps(config, indent=2) + "\n")
    course.begin()

    run.save, run.checkpoint, run.planned = net.save, course.save, steps
    try:
        learn(course, net, recipe, (each_step, each_epoch), val_set, options.workers, report)
    except TrainingError as error:
        raise TrainingError(f"{error}.  {where_it_began(course, net, train_set.paths)}") from error
    step = course.step
    trained = time.perf_counter()
    scores = net.test(val_set, options.workers, report, ten=True, step=step)
    run.score("ten_views", scores, views=10, epoch=recipe.epochs, step=step, classes=net.classes)
    print(f"Ten views: {describe(scores)} (guessing: {1 / len(net.classes):.1%}).")

    drawn = [] if options.no_figures else draw(run, net, first_kernels, train_set, val_set, scores, options.seed)
    run.keep(last=True)
    tell(run, report, drawn, trained - begin, time.perf_counter() - begin)
    suggest(run.path, options, recipe.epochs)
    run.check()


def learn(
    course: Course, net: Trained, recipe: Recipe, schedules: tuple[Any, Any], val_set: ImageFolder, workers: int,
    report: Report,
) -> None:  # fmt: skip
    """Train from where the course is, epoch by epoch, with a test at the end of each."""
    plateau = Plateau(course.run.log, len(net.classes))

    def after_step(step: int) -> None:
        course.after_step(step)
        plateau.look(step)

    run, loader, optimizer, (each_step, each_epoch) = course.run, course.loader, course.objects["optimizer"], schedules
    for epoch in range(course.epoch, recipe.epochs + 1):
        if isinstance(each_epoch, OriginalSchedule):
            each_epoch.begin(epoch)
        left = min(len(loader) - course.batch, (run.planned - course.step) * recipe.accumulate)
        with progress(
            math.ceil(left / recipe.accumulate), f"epoch {epoch}/{recipe.epochs}", "steps", leave=True
        ) as bar:
            step = train_epoch(
                net.model, first(loader.epoch(epoch - 1, course.batch), left), optimizer, net.device,
                epoch=epoch, first_step=course.step, log=run.log, bar=bar, schedule=each_step,
                after_step=after_step, accumulate=recipe.accumulate,
            )  # fmt: skip
        one = net.test(val_set, workers, report, ten=False, step=step)
        with hold(finish=True):  # or a checkpoint could have one half of it
            run.log.add(
                split="val", epoch=epoch, step=step, images=one.images, loss=one.loss, top1=one.top1, top5=one.top5
            )
            run.enter("training", run.log.speed())
            run.score("one_view", one, views=1, epoch=epoch, step=step)
            reduced = each_epoch is not None and each_epoch.step(1 - one.top1)
            course.after_epoch(one.top1)
        print(f"epoch {epoch}: {describe(one)}, one view")
        if reduced:
            print(f"learning rate now {optimizer.param_groups[0]['lr']:g}")
        run.keep(last=epoch == recipe.epochs)


def tested_to_the_end(run: Path, step: int) -> bool:
    """Whether metrics.json has the scores with ten views, after that step."""
    try:
        return bool(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["ten_views"]["step"] == step)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def evaluate_weights(options: argparse.Namespace) -> None:
    tell = (lambda text: None) if options.json else print
    nets = [Trained.restore(path, options.preset, options.devices, tell) for path in options.evaluate]
    for path, net in zip(options.evaluate, nets):
        if list(net.classes) != list(nets[0].classes):
            raise ArgumentError(
                f"--evaluate: {printable(path)} has other classes than {printable(options.evaluate[0])}: only nets of "
                "the same classes can be averaged"
            )
    root, report = options.data or trained_on(options.evaluate[0], tell), Report()
    val_set = ImageFolder(root, "val", classes=nets[0].classes, limit=options.val_limit)
    found: dict[str, Any] = {"images": str(val_set.folder)}
    for views, name in ((1, "one view"), (10, "ten views")):
        each, average = ensemble([net.answers(val_set, options.workers, report, ten=views == 10) for net in nets])
        for path, scores in zip(options.evaluate, each):
            found.setdefault(str(path), {})[name] = scores.facts(nets[0].classes)
            tell(f"{printable(path)} on {printable(val_set.folder)}: {describe(scores)}, {name}")
        if len(nets) > 1:
            found.setdefault("average", {})[name] = average.facts(nets[0].classes)
            tell(f"the average of {len(nets)} nets: {describe(average)}, {name}")
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
            f"--evaluate: no readable {printable(config)} says what the weights were trained on: give --data DIR"
        ) from None
    if not (root.is_absolute() and root.is_dir()):
        raise DataError(
            f"--evaluate: {printable(config)} says that the weights were trained on {printable(root)}, "
            "which is not there: give --data DIR"
        )
    tell(f"no --data: the images are those that the weights were trained for, in {printable(root)}")
    return root


def predict(options: argparse.Namespace) -> None:
    weights, *given = options.predict
    if not given:
        raise ArgumentError("--predict: give the weights and at least one image: --predict WEIGHTS IMAGE...")
    tell = (lambda text: None) if options.json else print
    net = Trained.restore(Path(weights), options.preset, options.devices, tell)
    paths, failed, found, shown = images_of(given), 0, [], []
    for path in paths:
        try:
            image = prepare_image(path)
        except DataError as error:
            failed += 1
            print(printable(error), file=sys.stderr)
            continue
        log_p = net.log_probabilities(image, path)
        p, best = np.exp(log_p), np.argsort(-log_p, kind="stable")[:5]  # of equals, the first class
        found.append({"image": str(path), "classes": {net.classes[k]: float(p[k]) for k in best}})
        if len(shown) < SHOWN:
            shown.append((image, p))
        tell(f"{printable(path)}: " + ", ".join(f"{printable(net.classes[k])} {p[k]:.1%}" for k in best))
    if options.json:
        print(json.dumps(found, indent=2))
    if options.picture and shown:
        images, shares = zip(*shown)
        figures.predictions(images, np.stack(shares), None, net.classes, options.picture)
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


def fit_to_data(net: Trained, loader: Loader, count: int) -> None:
    """Scale the first weights to `count` training views, drawn as the training will draw them."""
    views, inputs = list[np.ndarray](), Inputs(net.device)
    for batch in loader.epoch(0):
        views.extend(inputs(batch).numpy())
        if len(views) >= count:
            break
    net.model.fit_to(minigrad.Tensor(np.stack(views[:count]), device=net.device))


def schedules(net: Trained, loader: Loader, optimizer: Any, recipe: Recipe, steps: int) -> tuple[Any, Any]:
    """What moves the learning rate after each step, and after each epoch's test; one of them is None."""
    if recipe.schedule == "cosine":
        return optim.WarmupCosine(optimizer, round(WARM_UP * steps), steps), None
    if recipe.schedule == "original":
        return None, OriginalSchedule(net, loader, optimizer, recipe)
    return None, optim.ReduceOnPlateau(optimizer, factor=0.1, patience=3)


class OriginalSchedule:
    """What the run behind the paper did (config 145 of the original code; docs/alexnet.md), at the begin of each epoch.

    With another number of epochs than its 93 all is stretched.
    """

    RATES = {1: 1.0, 23: 0.1, 51: 0.01, 78: 0.001}  # from this epoch on, so much of the first rate
    CONV1_SLOWER, CONV1_FROZEN = 68, 72  # from these on, conv1 learns at 0.001 of it, and not at all
    NO_COLOUR_NOISE, EPOCHS = 68, 93

    def __init__(self, net: Trained, loader: Loader, optimizer: Any, recipe: Recipe):
        self.net, self.loader, self.optimizer, self.recipe = net, loader, optimizer, recipe
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        conv1 = {id(p) for name, p in net.model.named_parameters() if "conv1" in name}
        self.of_conv1 = [all(id(p) in conv1 for p in group["params"]) for group in optimizer.param_groups]

    def begin(self, epoch: int) -> None:
        """Set rates and noise for this epoch (from 1); what they were before does not matter."""
        then = (epoch - 1) * self.EPOCHS // self.recipe.epochs + 1  # its epoch, in that run
        rate = next(rate for first, rate in reversed(self.RATES.items()) if then >= first)
        for group, base, of_conv1 in zip(self.optimizer.param_groups, self.base_lrs, self.of_conv1):
            group["lr"] = base * (0.001 if of_conv1 and then >= self.CONV1_SLOWER else rate)
        if then >= self.CONV1_FROZEN:
            self.net.model.freeze(["conv1"])
        noise = self.recipe.colour_noise if then < self.NO_COLOUR_NOISE else 0.0
        self.loader.transform = self.net.train_view(noise)

    def step(self, error: float) -> bool:
        return False  # the test error is not asked

    def state_dict(self) -> dict[str, Any]:
        return {"base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.base_lrs = list(state["base_lrs"])


def begin_with(model: AlexNet, weights: Path) -> None:
    """Load what fits of saved weights, and tell the rest: fine-tuning, to other classes too."""
    state, _ = checkpoint.load(weights)
    left_out = model.load_state_dict(state, strict=False)
    names = [*left_out.misshapen, *left_out.missing]
    rest = f"; these begin anew: {', '.join(map(printable, names))}" if names else ""
    print(f"weights of {printable(weights)}{rest}")
    if left_out.unexpected:
        print(f"not taken, as the net has none such: {some([printable(name) for name in left_out.unexpected], 4)}")


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


class Plateau:
    """AlexNet may sit at the loss of guessing for long: say so while it does, at step 100, 200, 400, ..."""

    def __init__(self, log: Log, num_classes: int):
        self.log, self.num_classes, self.next = log, num_classes, 100

    def look(self, step: int) -> None:
        if step < self.next:
            return
        self.next = 2 * step
        losses = [row["loss"] for row in self.log.rows[-60:] if row["split"] == "train"][-50:]
        recent, chance = sum(losses) / len(losses), math.log(self.num_classes)
        if abs(recent - chance) < 0.02 * chance:
            warn(
                f"after {step} steps the loss is still {recent:.3f}, that of guessing (ln {self.num_classes} = "
                f"{chance:.3f}): a known plateau of AlexNet; --preset trainable leaves it early, or try another --lr"
            )


def config_of(
    options: Any, recipe: Recipe, root: Path, train_set: Any, val_set: Any, stats: str, before: dict[str, Any] | None
) -> dict[str, Any]:
    """What is in config.json; of a run that goes on, when it was begun and by which command is told too."""
    began = {"command": sys.argv[1:], "started": time.strftime("%Y-%m-%d %H:%M:%S")}
    if before is not None:
        again = [*before.get("resumed", []), began]
        began = {"command": before["command"], "started": before["started"], "resumed": again}
    return {
        "preset": options.preset, "devices": options.devices, "seed": options.seed, "recipe": asdict(recipe),
        "options": options_for_config(options),
        "data": str(root.resolve()), "demo": options.data is None, **facts_of_data(train_set, val_set),
        "statistics": stats, **began,
        "minigrad": minigrad.__version__, "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip


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
    if run.log.steps():
        speed = run.log.speed()
        print(
            f"Trained on {speed['images']} images in {speed['seconds']:.0f} s: {speed['images_per_s']:.1f} images/s, "
            f"{speed['waiting_for_data']:.1%} of the time waiting for data."
        )
    print(f"Everything took {total:.0f} s ({trained:.0f} s until the end of training).")
    if report.skipped:
        print(report)
    names = [CONFIG, "log.csv", "metrics.json", WEIGHTS, PREPARATION, CHECKPOINTS, *drawn]
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
        one = command(options, "--devices", options.devices[0], drop=("devices", "name"))
        print(f"  {one}    # the same net on one device")
    if not options.data:
        yours = command(options, "--data", drop=("epochs", "steps", "name", "tiny"))
        print(f"  {yours} DIR    # your own pictures: DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg")


if __name__ == "__main__":
    interruption.finish(main)
