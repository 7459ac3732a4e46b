"""A run's folder, and the care that nothing of a run is lost: by a signal, a full disk, or a folder that is gone."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from progress import warn

from minigrad.base import files
from minigrad.base.interrupts import hold
from minigrad.errors import ArgumentError, CheckpointError, DataError, MinigradError, printable

FILES = ("config.json", "log.csv", "metrics.json", "preparation.npz", "weights.safetensors")  # besides pictures
LOCK = "lock"  # held while a process trains there
CHECKPOINTS = "checkpoints"  # the folder of them
NOT_WRITTEN = (OSError, CheckpointError, DataError)  # what a full disk raises: DataError by the preparation


class TrainingError(MinigradError):
    """The net has diverged: its loss, its answers or its weights are not finite."""

    exit_code = 1


class IncompleteRunError(MinigradError):
    """The training is done, but something that it was to leave is missing or lies elsewhere."""

    exit_code = 1


def cause(error: BaseException) -> str:
    """What went wrong, in a few words on one line, without the error's class."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable((str(error).splitlines() or [""])[0] or type(error).__name__)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; OSError where that cannot be."""
    with files.writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def say(text: str) -> None:
    """print, but a standard output that is gone is no error: what comes next has to be done."""
    with suppress(OSError, ValueError):
        print(text, flush=True)


class Log:
    """log.csv: one row per training step and one per test, written as they happen.

    A row that cannot be written (the disk is full, the folder gone) ends nothing: all rows are kept in memory, and
    `catch_up` writes what is missing.
    """

    COLUMNS = ("split", "epoch", "step", "images", "lr", "loss", "top1", "top5", "images_per_s", "data_s", "compute_s")

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.whole = True  # whether the file holds all rows

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        if not self.whole:
            return
        try:
            if len(self.rows) == 1:
                write_whole(self.path, self.text())
            else:  # opened for each row, and never made anew: what was removed or replaced meanwhile is noticed
                with open(os.open(self.path, os.O_WRONLY | os.O_APPEND), "wb") as file:
                    file.write(_lines([row]).encode())
        except OSError as error:
            self.whole = False
            warn(f"{self.path} cannot be written ({cause(error)}): going on; its rows are kept for the next try")

    def go_on(self, count: int) -> None:
        """Take up the first `count` rows that an earlier process has written; what it wrote after them goes."""
        try:
            self.rows = list(itertools.islice(rows_of(self.path), count))
        except (OSError, ValueError, csv.Error) as error:
            warn(f"{self.path} cannot be read ({cause(error)}): it begins anew")
        if len(self.rows) < count:
            warn(f"{self.path} lacks {count - len(self.rows)} of its {count} rows: going on without them")
        self.whole = False
        self.catch_up()

    def catch_up(self) -> None:
        """Write the file anew where it is gone or lacks rows; `whole` tells whether it could be."""
        with suppress(OSError):
            if not self.whole or not self.path.exists():
                self.whole = False
                write_whole(self.path, self.text())
                self.whole = True

    def text(self) -> str:
        return ",".join(self.COLUMNS) + "\r\n" + _lines(self.rows)

    def column(self, split: str, name: str) -> np.ndarray:
        return np.array([row[name] for row in self.rows if row["split"] == split], dtype=float)

    def speed(self) -> dict[str, Any]:
        """Images and seconds of all training steps, images/s, and the share of the time spent waiting for data."""
        images, data, compute = (float(self.column("train", name).sum()) for name in ("images", "data_s", "compute_s"))
        seconds = data + compute
        speed, share = (images / seconds, data / seconds) if seconds else (math.nan, math.nan)  # no row was saved
        return {"images": int(images), "seconds": seconds, "images_per_s": speed, "waiting_for_data": share}

    def steps(self) -> int:
        """How many training steps there were."""
        return sum(row["split"] == "train" for row in self.rows)


def _finite(value: Any) -> Any:
    """None for nan and inf, which JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log.csv, one after the other, without the columns that are empty in them."""
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {k: value_of(v) for k, v in row.items() if v not in ("", None)}


def value_of(text: str) -> Any:
    """A number where it is one."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _lines(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, Log.COLUMNS)
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


class Run:
    """A run's folder: `with Run(path) as run`.

    write(name, text), score(...) and log are small files; `save`, set by the program, writes the net into a folder, and
    is called in one place, _save().  However the block is left, by a signal or an error, the net of the last whole step
    is kept, and it is said where.  A folder that is gone is made again.  What cannot be written is said, and keep()
    tries again; the net goes to the system's folder for temporary files in the end.
    """

    def __init__(self, path: Path, new: bool = True):
        self.path, self.log, self.new = path, Log(path / "log.csv"), new
        self.save: Callable[[Path], None] | None = None
        self.checkpoint: Callable[[], None] | None = None  # keeps the training, so that it can go on
        self.ending: Callable[[BaseException | None], None] | None = None  # is told when the run is left, and how
        self.missing: dict[str, str] = {}  # what could not be written: name -> why
        self._texts: dict[str, str] = {}
        self.metrics: dict[str, dict[str, Any]] = {}  # what metrics.json holds
        self._lock = ExitStack()
        self._kept_at = 0  # steps after which the net was last saved
        self.planned = 0  # steps in all

    # ---------------------------------------------------------------- small files

    def write(self, name: str, text: str) -> None:
        """A small file, whole or not at all; where it cannot be written, keep() tries again."""
        self._texts[name] = text
        try:
            write_whole(self.path / name, text)
            self.missing.pop(name, None)
        except OSError as error:
            self.missing[name] = cause(error)
            warn(f"{self.path / name} cannot be written ({cause(error)}): going on, to try again later")

    def score(
        self, test: str, scores: Any, *, views: int, epoch: int, step: int, classes: Sequence[str] = (),
        words: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Enter the scores of a test in metrics.json, in place of its earlier ones; classes, words: as facts has it."""
        self.enter(test, {**scores.facts(classes, words), "views": views, "epoch": epoch, "step": step})

    def enter(self, name: str, numbers: dict[str, Any]) -> None:
        """Enter numbers under that name in metrics.json."""
        self.metrics[name] = {k: _finite(v) for k, v in numbers.items()}
        self.write("metrics.json", json.dumps(self.metrics, indent=2) + "\n")

    # ---------------------------------------------------------------- the net

    def keep(self, last: bool = False) -> None:
        """Put on disk what is not there yet: the net as it is after this step, and the small files.

        Where the net cannot be written, that is said, and the next call tries again; the last one tries another place,
        and raises IncompleteRunError if there is none.  A checkpoint takes twice the room of the net, and where only
        it cannot be written, that is said, too.
        """
        with hold(finish=True):
            try:
                if not self.path.is_dir():
                    self._kept_at = 0
                    self.path.mkdir(parents=True)
                    warn(f"{self.path} was gone: made again")
                self._save()
            except NOT_WRITTEN as error:
                if last:
                    self._move(cause(error))
                else:
                    warn(f"{self.path}: the net could not be saved ({cause(error)}): training goes on, and the next "
                         "epoch tries again")  # fmt: skip
            self._save_checkpoint(last)
            for name, text in self._texts.items():
                if not (self.path / name).exists() or name in self.missing:
                    self.write(name, text)
            self.log.catch_up()

    def _save(self) -> None:
        assert self.save is not None
        if self._kept_at < self.log.steps():
            self.save(self.path)
            self._kept_at = self.log.steps()

    def _save_checkpoint(self, last: bool) -> None:
        if self.checkpoint is None:
            return
        self.missing.pop(CHECKPOINTS, None)
        try:
            self.checkpoint()
        except NOT_WRITTEN as error:
            self.missing[CHECKPOINTS] = cause(error)
            rest = "those of before stay" if last else "training goes on, and the next one is tried"
            warn(f"no checkpoint could be written ({cause(error)}): {rest}")

    def _move(self, why: str) -> None:
        """Go on in the system's folder for temporary files, because the net cannot be written where it should."""
        there = self.path
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f"minigrad-{there.name[:60]}-"))
            self._save()
        except NOT_WRITTEN as error:
            elsewhere, self.path = self.path, there
            if elsewhere != there:
                shutil.rmtree(elsewhere, ignore_errors=True)
            raise IncompleteRunError(
                f"the net could be saved neither in {printable(there)} ({why}) nor in {tempfile.gettempdir()} "
                f"({cause(error)}): make room, or choose a place with --out, and train again"
            ) from None
        self.log.path = self.path / self.log.path.name
        self.missing[str(there)] = f"{why}: the run is in {self.path}"
        warn(f"{there}: the net could not be saved ({why}): the run is now in {self.path}")

    def check(self) -> None:
        """IncompleteRunError where something of the run is missing, or is elsewhere."""
        missing = {**self.missing, **({} if self.log.whole else {self.log.path.name: "it lacks rows"})}
        if missing:
            what = "; ".join(f"{printable(name)}: {why}" for name, why in missing.items())
            raise IncompleteRunError(f"the training is done, but not all of the run could be written: {what}")

    # ---------------------------------------------------------------- the end

    def __enter__(self) -> Run:
        about = f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        try:
            self._lock.enter_context(files.holding(self.path / LOCK, about))
        except files.HeldError as error:
            raise ArgumentError(
                f"{printable(self.path)} is in use: {printable(error.holder)} trains there, and holds its file {LOCK}: "
                "wait until that has ended, or end it"
            ) from None
        except OSError as error:
            warn(f"{self.path / LOCK} cannot be written ({cause(error)}): nothing keeps a second process out")
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with self._lock:
            if error is not None:
                self._left(error)
        if self.ending is not None:
            with hold(finish=True):
                self.ending(error)

    def _left(self, error: BaseException) -> None:
        """Keep what there is to keep where an error or a signal ends the run."""
        with hold(finish=True):
            steps = self.log.steps()
            if steps == 0 and self.new:
                self._remove()
                say("Stopped before the first step: there is no net to keep.")
                return
            # After a TrainingError the weights are those that gave nan or inf: the last epoch's are better.
            lost = self.save is None or isinstance(error, TrainingError | IncompleteRunError)
            if self._kept_at < steps and not lost:
                say(f"Stopped after {steps} of {self.planned} steps: keeping the net as it is.")
                try:
                    self.keep(last=True)
                except (IncompleteRunError, TrainingError) as problem:
                    warn(str(problem))
            if self._kept_at:
                say(f"The net after {self._kept_at} of {self.planned} steps is in {printable(self.path)}.")

    def _remove(self) -> None:
        """Remove the folder: nothing was learned, and it would only occupy its name."""
        with suppress(OSError):
            for name in (*self._texts, LOCK):
                (self.path / name).unlink(missing_ok=True)  # the signal may have come before it was written
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
            self.path.rmdir()
