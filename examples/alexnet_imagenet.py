"""Train AlexNet in two columns, test it with ten views, and draw what it learned.

python examples/alexnet_imagenet.py                    ten classes of rendered pictures, a few minutes on two cores
python examples/alexnet_imagenet.py --data PATH        class folders in PATH/train/ and PATH/val/, ImageNet's official
                                                       files, Tiny ImageNet's, a tar or zip of class folders,
                                                       or a store that prepare_imagenet.py has packed
python examples/alexnet_imagenet.py --resume runs/NAME go on with a run that was stopped, as if it had not been
python examples/alexnet_imagenet.py --evaluate WEIGHTS [--data PATH]
python examples/alexnet_imagenet.py --predict WEIGHTS IMAGE...
"""

from __future__ import annotations

import interruption

if __name__ == "__main__":  # before the imports that take a second
    interruption.begin()

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from alexnet import LAYERS, PRESETS, AlexNet
from alexnet_options import Recipe, parse, recipe_for
from command_line import new_run, word
from evaluation import evaluate, predict
from going_on import (
    CHECKPOINTS,
    CONFIG,
    Course,
    as_before,
    check_data,
    config_before,
    facts_of_data,
    options_for_config,
    scale_rates,
    stats_as_values,
    stats_of_values,
    where_it_began,
)
from inputs import Inputs
from outcome import draw, suggest, tell
from page.exhibits import Exhibits
from page.live import Page
from processes import alone, earlier_run, in_turn, run_together, tell_of_broken
from progress import progress, searched, warn
from run_folder import Log, Run, TrainingError
from schedules import OriginalSchedule, schedules
from trained import Trained, with_mean
from training import train_epoch
from zoo import FirstWeights, first_weights

import minigrad
from minigrad import optim
from minigrad.base import files
from minigrad.base.interrupts import hold
from minigrad.checkpoint import Checkpoints
from minigrad.data import ImageStats, Loader, NamedImages, PackedImages, Report, compute_stats, open_images
from minigrad.data.demo_set import make_demo_set
from minigrad.distributed import Comm, DataParallel
from minigrad.errors import DataError, printable, some


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    minigrad.manual_seed(options.seed)
    job = resume if options.resume else train
    if options.predict or options.evaluate:
        job = alone("--predict", predict) if options.predict else alone("--evaluate", evaluate)
    return run_together("alexnet_imagenet.py", job, options)


# ---------------------------------------------------------------- training, and going on with it


def train(options: argparse.Namespace, comm: Comm) -> None:
    begin = time.perf_counter()
    root = options.data or in_turn(comm, lambda: demo_set(options.tiny))
    train_set, val_set = both_sets(root, options)
    with new_run(options.out, options.name, f"{root.resolve().name}-{options.preset}") as run:
        train_net(run, options, comm, root, train_set, val_set, begin)


def resume(options: argparse.Namespace, comm: Comm) -> None:
    begin = time.perf_counter()
    with earlier_run(options, comm) as (run, path):
        config, saved = config_before(run.path, Checkpoints(run.path / CHECKPOINTS), path)
        options = as_before(options, config["options"])
        minigrad.manual_seed(options.seed)
        root = options.data or Path(config["data"])
        if options.data is None and not root.exists():
            root = in_turn(comm, lambda: demo_set(options.tiny)) if config["demo"] else root
        train_set, val_set = both_sets(root, options)
        check_data(config, root, train_set, val_set)
        train_net(run, options, comm, root, train_set, val_set, begin, config, saved, path)


def train_net(
    run: Run, options: argparse.Namespace, comm: Comm, root: Path, train_set: NamedImages, val_set: NamedImages,
    begin: float, before: dict[str, Any] | None = None, saved: dict[str, Any] | None = None, path: Path | None = None,
) -> None:  # fmt: skip
    """Train in the run's folder.

    before, saved, path: its configuration, its checkpoint's values, and where that is.
    """
    recipe, report = recipe_for(options, before and before["recipe"]), Report()
    print(
        f"{len(train_set)} training and {len(val_set)} test images of {len(train_set.classes)} classes "
        f"from {printable(root)}"
    )
    comm.agree("the pictures", facts_of_data(train_set, val_set))
    given = None
    if options.init is not None and saved is None:
        given = first_weights(options.init, PRESETS[options.preset], recipe.dropout)
    if saved is None:
        stats = comm.broadcast(statistics(train_set, options, report) if comm.rank == 0 else None)
        stats = stats if given is None else given.prepared(stats)
    else:
        stats = stats_of_values(saved["stats"])
    stats = with_mean(stats, options.preset)
    input_size = given.input_size if given is not None else 224 if before is None else before.get("input_size", 224)
    model = AlexNet(len(train_set.classes), options.preset, options.devices, input_size, dropout=recipe.dropout)
    net = Trained(model, options.preset, train_set.classes, stats, train_set.words, comm)
    where = " and ".join(model.devices) + (f", in each of {comm.size} processes" if comm.size > 1 else "")
    print(f"AlexNet, preset {net.preset}, on {where}: {model.num_parameters():,} parameters")

    batches = partial(
        net.loader, train_set, recipe.batch_size, net.train_view(recipe.colour_noise), shuffle=True, seed=options.seed,
        workers=options.workers, drop_last=len(train_set) > recipe.batch_size, report=report,
    )  # fmt: skip
    loader = batches(shard=(comm.rank, comm.size))
    anew = set(LAYERS if given is None else begin_with(model, options.init, net.classes, given))
    if anew and recipe.fit_images and saved is None and comm.rank == 0:  # the others take its weights
        fit_to_data(net, batches(), recipe.fit_images, anew)
    model.freeze(options.freeze)
    together = DataParallel(model, comm)
    first_kernels = model.kernels() if saved is None else saved["first_kernels"]
    per_epoch = math.ceil(len(loader) / recipe.accumulate)
    steps = recipe.epochs * per_epoch if options.steps is None else options.steps
    recipe = replace(recipe, epochs=math.ceil(steps / per_epoch))
    optimizer = optim.SGD(
        list(model.parameter_groups(recipe.lr, recipe.weight_decay, recipe.apart())),
        recipe.lr, momentum=recipe.momentum, update_rule="alexnet",
    )  # fmt: skip
    each_step, each_epoch = schedules(net, loader, optimizer, recipe, steps)
    config = config_of(options, recipe, root, train_set, val_set, str(stats), before) | {"input_size": input_size}
    course = Course(
        run, loader, Checkpoints(run.path / CHECKPOINTS, options.keep_checkpoints), options.checkpoint_minutes,
        {"model": model, "optimizer": optimizer, "schedule": each_step or each_epoch},
        {"config": config, "stats": stats_as_values(stats), "first_kernels": first_kernels}, recipe.accumulate,
        keeps=comm.rank == 0,
    )  # fmt: skip
    if saved is not None:
        course.go_on(path, steps)
        if recipe.lr != before["recipe"]["lr"]:
            scale_rates(optimizer, each_step or each_epoch, recipe.lr / before["recipe"]["lr"])
        if course.epoch > recipe.epochs and comm.broadcast(tested_to_the_end(run.path, course.step)):
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
    shown = Exhibits(net, train_set, val_set, options.seed)
    no_figures = options.no_figures or comm.rank > 0
    page = Page(run, config, net, first_kernels, shown, report, off=no_figures)

    run.save = net.save if comm.rank == 0 else lambda folder: None
    run.checkpoint, run.planned = course.save, steps
    page.begin()
    try:
        learn(course, net, together, recipe, (each_step, each_epoch), val_set, options.workers, report, page)
    except TrainingError as error:
        if comm.size > 1:  # to look for the cause takes all of them, and they may not all be here
            raise
        raise TrainingError(f"{error}.  {where_it_began(course, net, train_set.paths)}") from error
    step = course.step
    trained = time.perf_counter()
    page.testing("testing with ten views")
    scores = net.test(val_set, options.workers, report, ten=True, step=step)
    run.score("ten_views", scores, views=10, epoch=recipe.epochs, step=step, classes=net.classes, words=net.words)
    print(f"Ten views: {scores} (guessing: {1 / len(net.classes):.1%}).")

    drawn = [] if no_figures else draw(run, net, first_kernels, shown, scores)
    page.last(step)
    run.keep(last=True)
    tell(run, report, drawn, trained - begin, time.perf_counter() - begin)
    suggest(run.path, options, recipe.epochs)
    run.check()


def learn(
    course: Course, net: Trained, together: DataParallel, recipe: Recipe, moved: tuple[Any, Any], val_set: NamedImages,
    workers: int, report: Report, page: Page,
) -> None:  # fmt: skip
    """Train from where the course is, epoch by epoch, with a test at the end of each.  moved: see schedules()."""
    plateau = Plateau(course.run.log, len(net.classes))

    def after_step(step: int) -> None:
        course.after_step(step)
        plateau.look(step)
        page.after_step(step)

    run, loader, optimizer, (each_step, each_epoch) = course.run, course.loader, course.objects["optimizer"], moved
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
                after_step=after_step, accumulate=recipe.accumulate, together=together,
            )  # fmt: skip
        one = net.test(val_set, workers, report, ten=False, step=step)
        tell_of_broken(net.comm, report)
        with hold(finish=True):  # or a checkpoint could have one half of it
            run.log.add(
                split="val", epoch=epoch, step=step, images=one.images, loss=one.loss, top1=one.top1, top5=one.top5
            )
            run.enter("training", run.log.speed())
            run.score("one_view", one, views=1, epoch=epoch, step=step)
            reduced = each_epoch is not None and each_epoch.step(1 - one.top1)
            course.after_epoch(one.top1)
        print(f"epoch {epoch}: {one}, one view")
        if reduced:
            print(f"learning rate now {optimizer.param_groups[0]['lr']:g}")
        run.keep(last=epoch == recipe.epochs)
        page.after_epoch(one, step)


def tested_to_the_end(run: Path, step: int) -> bool:
    """Whether metrics.json has the scores with ten views, after that step."""
    try:
        return bool(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["ten_views"]["step"] == step)
    except (OSError, ValueError, LookupError, TypeError):
        return False


# ---------------------------------------------------------------- pieces of a training run


def demo_set(tiny: bool) -> Path:
    """The embedded ten classes, rendered into the user's cache folder the first time."""
    counts = {"train_per_class": 6, "val_per_class": 2} if tiny else {}
    with progress(None, "rendering the demo pictures", "pictures") as bar:

        def rendered(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        advice = "set XDG_CACHE_HOME to a folder that can be written to, or give pictures of your own with --data PATH"
        try:
            root = files.cache_folder() / ("demo-tiny" if tiny else "demo")
            return make_demo_set(root, **counts, progress=rendered)
        except OSError as error:
            raise DataError(f"the demo pictures have no place: {error.strerror}; {advice}") from error
        except DataError as error:
            raise DataError(f"{error}; {advice}") from error


def both_sets(root: Path, options: argparse.Namespace) -> tuple[NamedImages, NamedImages]:
    """The images to train on, and those held out."""
    with progress(100, "searching", "percent") as bar:  # which an archive may take minutes of
        train_set = open_images(root, "train", progress=searched(bar))
        return train_set, open_images(root, "val", limit=options.val_limit, progress=searched(bar))


def statistics(train_set: NamedImages, options: argparse.Namespace, report: Report) -> ImageStats:
    """Mean image and colour components: a store has its own, of all its training pictures."""
    if not isinstance(train_set, PackedImages):
        return compute_stats(train_set, max_images=options.stats_images, workers=options.workers, report=report)
    if "stats_images" in options.given:
        warn("--stats-images is not needed: a store has statistics of all its training pictures, and they are taken")
    return train_set.stats


def fit_to_data(net: Trained, loader: Loader, count: int, layers: Collection[str] = LAYERS) -> None:
    """Scale the first weights of layers to `count` training views, drawn as the training will draw them."""
    views, inputs = list[np.ndarray](), Inputs(net.device)
    for batch in loader.epoch(0):
        views.extend(inputs(batch).numpy())
        if len(views) >= count:
            break
    net.model.fit_to(minigrad.Tensor(np.stack(views[:count]), device=net.device), layers)


def begin_with(model: AlexNet, weights: Path, classes: Sequence[str], given: FirstWeights) -> set[str]:
    """Load what fits of saved weights, and tell the rest: fine-tuning, to other classes too.

    fc8 fits where its classes have the same names, in the same order: as many of others say nothing of these.
    Returns the layers that begin anew.
    """
    same = given.names(classes)
    fits = {name: array for name, array in given.state.items() if same or model.layer_of(name) != "fc8"}
    left_out = model.load_state_dict(fits, strict=False)
    names = [*left_out.misshapen, *left_out.missing]
    rest = f"; these begin anew: {', '.join(map(printable, names))}" if names else ""
    others = "" if same else " (fc8, as the weights do not name these classes)"
    print(f"weights of {printable(weights)}{rest}{others}")
    if left_out.unexpected:
        print(f"not taken, as the net has none such: {some([printable(name) for name in left_out.unexpected], 4)}")
    return {model.layer_of(name) for name in names}


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


if __name__ == "__main__":
    interruption.finish(main)
