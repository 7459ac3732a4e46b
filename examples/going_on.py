"""A training that may be stopped at any moment, and goes on as if nothing had been: what is kept of it, and when.

A checkpoint is the training after a whole step: weights, velocity, schedule, the generators' states, and where in which
epoch it is.  It is written at the end of every epoch, every few minutes, when SIGUSR1 asks for one, and when a signal
or an error ends the run.  What a process did after its last checkpoint is done again, with the same bits.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from command_line import word
from inputs import Inputs
from interruption import asked_to_keep
from progress import warn
from run_folder import CHECKPOINTS, Run, TrainingError, cause
from training import not_finite, steps_of

import minigrad
from minigrad.checkpoint import Checkpoints
from minigrad.data import ImageStats, Loader, NamedImages, PackedImages, RgbPCA
from minigrad.distributed import Comm, DataParallel
from minigrad.errors import ArgumentError, CheckpointError, DataError, NotFiniteError, printable, some
from minigrad.optim import Schedule

CONFIG = "config.json"

# What may be changed when a run goes on.  All the rest would make another run of it.
CHANGEABLE = (
    "data", "workers", "devices", "epochs", "steps", "lr", "val_limit", "no_figures", "checkpoint_minutes",
    "keep_checkpoints",
)  # fmt: skip
_SPLIT = re.compile("^(?:train|val|test|ILSVRC2012_img_train|ILSVRC2012_img_val)/")  # folders of splits, in sources

NOT_OF_A_RUN = ("given", "out", "name", "resume", "evaluate", "predict")


class Course:
    """Where a training is: in `epoch` (from 1), before its batch number `batch`, after `step` steps.

    objects: what checkpoint.save_training takes; facts: what does not change in the course of it; accumulate: how many
    batches a step has; keeps: whether checkpoints are written, by one of several processes.
    """

    def __init__(
        self, run: Run, loader: Loader, kept: Checkpoints, minutes: float, objects: Mapping[str, Any],
        facts: Mapping[str, Any], accumulate: int = 1, keeps: bool = True,
    ):  # fmt: skip
        self.run, self.loader, self.kept, self.minutes = run, loader, kept, minutes
        self.objects, self.facts, self.keeps = objects, facts, keeps
        self.epoch, self.batch, self.step, self.accumulate = 1, 0, 0, accumulate
        self.cut: list[int] | None = None  # the place where --steps has ended the last epoch, before its end
        self.score: float | None = None  # of the last test, until it is saved
        self.rng = minigrad.get_rng_state()
        self._saved = (0, -1)
        self._last = time.monotonic()

    def go_on(self, path: Path | None, steps: int) -> None:
        """Bring everything to where a checkpoint, or the latest, has it; steps: how many there will be in all."""
        values = self.kept.load(path, **self.objects)
        self.epoch, self.batch, self.step = values["epoch"], values["batch"], values["step"]
        self.cut = values.get("cut")
        if self.cut is not None and self.step < steps:  # the rest of that epoch comes first
            (self.epoch, self.batch), self.cut = self.cut, None
        self.run.log.go_on(values["rows"])
        self.run.metrics.update(values["metrics"])
        self.rng, self._saved = minigrad.get_rng_state(), (self.epoch, self.step)

    def begin(self) -> None:
        """Write the first checkpoint of a new run; where that cannot be, it is said."""
        if self.step == 0:
            self._try_to_save()

    def after_step(self, step: int) -> None:
        """To be called inside hold(), when a step is whole; writes a checkpoint where it is time."""
        self.step, self.batch = step, self.loader.position[1]
        self.rng = minigrad.get_rng_state()
        if asked_to_keep() or time.monotonic() - self._last >= 60 * self.minutes:
            self._try_to_save()

    def after_epoch(self, score: float) -> None:
        """To be called when the epoch's test is done: score is the higher, the better."""
        epoch, batch = self.loader.position
        batch = max(self.batch, batch if epoch == self.epoch - 1 else 0)  # batches may come whose files are all broken
        self.cut = [self.epoch, batch] if batch < len(self.loader) else None
        self.epoch, self.batch, self.score = self.epoch + 1, 0, score

    def _try_to_save(self) -> None:
        self._last = time.monotonic()
        try:
            self.save()
        except (OSError, CheckpointError) as error:
            warn(f"no checkpoint could be written ({cause(error)}): training goes on, and the next one is tried")

    def save(self) -> None:
        """Write a checkpoint, where there is none of this place; CheckpointError where that cannot be.

        TrainingError where the net has diverged: the checkpoints from before are the ones to go on from.
        """
        if self._saved == (self.epoch, self.step) or not self.keeps:
            return
        spoilt = not_finite(self.objects["model"].state_dict())
        if spoilt:
            raise TrainingError(
                f"after step {self.step} there are nan or inf in {some(spoilt, 3)}: the net has diverged, it is not "
                "kept; weights saved earlier are kept; start again with a lower --lr"
            )
        minigrad.set_rng_state(self.rng)  # a step that was cut off has drawn from them
        self.kept.folder = self.run.path / CHECKPOINTS  # which may have had to move
        place = {"epoch": self.epoch, "batch": self.batch, "cut": self.cut}
        known = {"rows": len(self.run.log.rows), "metrics": self.run.metrics}
        self.kept.save(self.step, score=self.score, **self.objects, **self.facts, **place, **known)
        self._saved, self.score, self._last = (self.epoch, self.step), None, time.monotonic()


def stats_as_values(stats: ImageStats) -> dict[str, Any]:
    counts = [stats.count, stats.total, stats.seed]
    placed = {} if stats.fit == "scale" else {"fit": stats.fit}
    return {
        "mean_image": stats.mean_image, "mean_rgb": stats.mean_rgb, "eigenvectors": stats.pca.eigenvectors,
        "sd": stats.pca.sd, "counts": counts, **placed,
    }  # fmt: skip


def stats_of_values(values: Mapping[str, Any]) -> ImageStats:
    pca = RgbPCA(values["eigenvectors"], values["sd"])
    return ImageStats(values["mean_image"], values["mean_rgb"], pca, *values["counts"], values.get("fit", "scale"))


# ---------------------------------------------------------------- a net that has diverged


def where_it_began(course: Course, net: Any, names: Sequence[str]) -> str:
    """Which op, in which direction, first made nan or inf, and of which pictures: said in a sentence.

    Goes back to the last checkpoint and does its steps again, the same bits, with every result looked at.  The objects
    of the course are left wherever that ends.
    """
    try:
        values = course.kept.load(None, **course.objects)
    except CheckpointError:
        return "There is no checkpoint to look for the cause from"
    optimizer, schedule, step = course.objects["optimizer"], course.objects["schedule"], values["step"]
    warn(f"looking for the cause: the steps after {step} are done again, and every result of them is looked at")
    net.model.train()
    epoch, batch_number, seen = values["epoch"], values["batch"], Seen()
    while step <= course.step:
        batches = seen.of(course.loader.epoch(epoch - 1, batch_number))
        steps = steps_of(DataParallel(net.model, Comm()), Inputs(net.device), optimizer, batches, course.accumulate)
        try:
            while step <= course.step:
                seen.indices, step = [], step + 1
                with minigrad.debug(check_finite=True):
                    if next(steps, None) is None:
                        step -= 1
                        break
                optimizer.step()
                if isinstance(schedule, Schedule):
                    schedule.step()
                spoilt = not_finite(net.model.state_dict())
                if spoilt:
                    return f"It began in {seen.step(step, names)}: gradients were finite, the update broke {spoilt[0]}"
        except NotFiniteError as error:
            return f"It began in {seen.step(step, names)}: {error}"
        finally:
            batches.close()
        epoch, batch_number = epoch + 1, 0
    return "Done again, its steps gave finite numbers: was something outside at fault, memory say?"


class Seen:
    """Which pictures a step has seen."""

    indices: list[int] = []

    def of(self, batches: Any) -> Iterator[Any]:
        try:
            for batch in batches:
                self.indices = [*self.indices, *batch.indices]
                yield batch
        finally:
            batches.close()

    def step(self, number: int, names: Sequence[str]) -> str:
        return f"step {number}, of {some([printable(names[i]) for i in self.indices], 3)}"


# ---------------------------------------------------------------- a run of before


def run_and_checkpoint(given: Path) -> tuple[Path, Path | None]:
    """The run's folder, and the checkpoint, of what --resume was given: either of them; None: the latest."""
    if given.is_file():
        if given.parent.name != CHECKPOINTS:
            raise ArgumentError(
                f"--resume {printable(given)}: give the folder of a run, or a file in its folder {CHECKPOINTS}; to "
                "begin with weights, --init WEIGHTS"
            )
        return given.parent.parent, given
    if not given.is_dir():
        raise ArgumentError(f"--resume {printable(given)}: there is no such folder: give that of a run, runs/NAME")
    return given, None


def config_before(folder: Path, kept: Checkpoints, path: Path | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(the run's configuration, the values of the checkpoint to go on from, or None where there is none yet)."""
    if path is not None or kept.latest() is not None:
        try:
            values = kept.values(path)
        except CheckpointError as error:
            raise CheckpointError(f"--resume: {error}") from None
        if not isinstance(values.get("config"), dict):
            raise CheckpointError(f"--resume {printable(path or folder)}: no checkpoint of this program")
        return values["config"], values
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if isinstance(config["options"], dict):
            return config, None
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise ArgumentError(
        f"--resume {printable(folder)}: there is neither a checkpoint in it nor a {CONFIG} that says how it was begun: "
        "train anew"
    )


def options_for_config(options: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON can hold them."""
    kept = {name: value for name, value in vars(options).items() if name not in NOT_OF_A_RUN}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in kept.items()}
    return {**plain, "given": sorted(set(options.given) - set(NOT_OF_A_RUN))}


def as_before(options: argparse.Namespace, before: Mapping[str, Any]) -> argparse.Namespace:
    """The options of a run, but for what the command line says now, which is told; ArgumentError for what cannot be."""
    saved = {name: value for name, value in before.items() if name != "given" and hasattr(options, name)}
    for name, kind in (("data", Path), ("init", Path), ("devices", tuple), ("freeze", tuple)):
        if saved.get(name) is not None:
            saved[name] = kind(saved[name])
    result = argparse.Namespace(**{**vars(options), **saved})
    for name in options.given:
        now = getattr(options, name)
        if name in NOT_OF_A_RUN or (name in saved and word(now) == word(saved[name])):
            continue
        flag = f"--{name.replace('_', '-')}"
        if name not in CHANGEABLE:
            raise ArgumentError(
                f"--resume: {flag} cannot be changed, the run has {printable(word(saved.get(name)))}: what can is "
                + ", ".join(f"--{each.replace('_', '-')}" for each in CHANGEABLE)
            )
        if name == "devices" and len(now) != len(saved[name]):
            raise ArgumentError(
                f"--resume: --devices: the run has {'one column' if len(now) > 1 else 'two columns'}, and cannot go on "
                f"with {len(now)}: the velocity is that of its columns"
            )
        setattr(result, name, now)
        print(f"changed: {flag} {printable(word(now))}, it was {printable(word(saved.get(name)))}")
    if "epochs" in options.given and "steps" not in options.given:
        result.steps = None
    result.given = {name: getattr(result, name) for name in {*before["given"], *options.given}}
    return result


def check_data(config: Mapping[str, Any], root: Path, train_set: NamedImages, val_set: NamedImages) -> None:
    """DataError where the pictures are not those that the run was begun with: their order would be another."""
    other = difference(config, train_set, val_set)
    if other:
        raise DataError(
            f"--resume: the pictures in {printable(root)} are not those that the run was begun with ({other}): give "
            "the path that has them with --data PATH, or train anew"
        )


def difference(
    config: Mapping[str, Any], train_set: NamedImages, val_set: NamedImages, known: Sequence[str] | None = None
) -> str:
    """In what pictures differ from those that a run was begun with, "" where they are the same.

    known: which facts to go by, where an old run's configuration lacks some; all, if None.
    """
    now = facts_of_data(train_set, val_set)
    if known is None or "train_files" in known:
        now.setdefault("pixels", None)  # those of the files, also in runs of before there were stores
    for name, value in now.items():
        if config.get(name) != value and (known is None or name in (*known, "pixels")):
            shown = f"{config.get(name)} then, {value} now" if not isinstance(value, list) else "other classes"
            return f"{name}: {printable(shown)}"
    return ""


def facts_of_data(train_set: NamedImages, val_set: NamedImages) -> dict[str, Any]:
    """What tells whether pictures are the same as before: classes, numbers, and the files' names.

    A source and the store that it was packed to are the same, but where the store's pixels are others.
    """

    def names(images: NamedImages) -> str:
        """CRC-32 of the names within the split, with a newline between two."""
        folder, checksum, between = f"{images.folder}{os.sep}", 0, ""
        for path in images.paths:  # an ImageFolder's begin with the split's folder, others with its name in the source
            inside = path.removeprefix(folder) if path.startswith(folder) else _SPLIT.sub("", path, count=1)
            checksum = zlib.crc32((between + inside).encode(errors="surrogateescape"), checksum)
            between = "\n"
        return f"{checksum:08x}"

    pixels = {}
    if isinstance(train_set, PackedImages) and (train_set.kind, train_set.fit) != ("raw", "scale"):
        pixels = {"pixels": f"{train_set.kind}, {train_set.fit}"}
    return {
        "classes": list(train_set.classes), "train_images": len(train_set), "val_images": len(val_set),
        "train_files": names(train_set), "val_files": names(val_set), **pixels,
    }  # fmt: skip


def scale_rates(optimizer: Any, schedule: Any, factor: float) -> None:
    """Multiply all learning rates, those that a schedule starts from too."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
    if hasattr(schedule, "base_lrs"):
        schedule.base_lrs = [lr * factor for lr in schedule.base_lrs]
