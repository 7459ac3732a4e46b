"""The page of a run that is trained: rewritten as training goes, and with what is known when the run has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import progress
from interruption import Interrupted, raise_again
from progress import warn
from run_folder import IncompleteRunError, Run, cause, write_whole

from . import exhibits, facts
from .curves import Curves
from .document import data_of, document
from .events import Events
from .exhibits import Exhibits
from .index import INDEX, write_index

PAGE = "report.html"
EVERY = 30.0  # seconds between two pages, at least
SHARE = 0.005  # of the time of training, which the page may take
PICTURES = ("kernels", "predictions", "neighbours")
WARNINGS = 400  # shown, at most, of all processes of a run
KEPT = (*PICTURES, "answers", "warnings", "skipped")  # what only the page has; the run's other files have the rest


class Page:
    """runs/NAME/report.html.

    begin, after_step, after_epoch, testing and last are called by the main job, in this order, and end by the run when
    it is left.  None of them raises anything but a signal's Interrupted: a page that cannot be made is a warning, the
    first time.  What asks the net (predictions, neighbours) or draws is left for later where the page has taken more
    than SHARE of the time; `last` does all of it.  off: nothing is done at all.
    """

    def __init__(
        self, run: Run, config: Mapping[str, Any], net: Any, first_kernels: np.ndarray, shown: Exhibits, report: Any,
        off: bool = False,
    ):  # fmt: skip
        self.run, self.config, self.net, self.first_kernels = run, config, net, first_kernels
        self.shown, self.report, self.off = shown, report, off
        self.runs = run.path.parent  # where the index is, also where the run has to move elsewhere in the end
        # what classes are called, in datasets whose classes are codes
        self.words: Mapping[str, str] = shown.net.words
        self.curves, self.events, self.taken = Curves(), Events(), 0
        self.data: dict[str, Any] = {"state": "training", "why": ""}
        self.earlier_warnings: list[str] = []
        self.failed: dict[str, str] = {}  # which page could not be written the last time, and why
        self.spent, self._begun, self._written = 0.0, time.monotonic(), -EVERY
        self._steps_before, self._costs = 0, dict[str, float]()

    # ---------------------------------------------------------------- called by the main job

    def begin(self) -> None:
        """Take up what a run that goes on has so far; the first page is written after the first step."""

        def work() -> None:
            self._take_up()
            self._steps_before, self._begun = self.curves.steps, time.monotonic()
            if self.curves.steps:
                self.data |= earlier(self.run.path / PAGE, self.curves.steps)
                self.earlier_warnings = self.data.get("warnings", [])
                self._write()

        self.run.ending = self.end
        self._try(work)
        self._try(lambda: write_index(self.runs, training=self.run.path), INDEX)

    def after_step(self, step: int) -> None:
        if time.monotonic() - self._written >= EVERY and self._has_time(0.0):
            self._try(self._write)

    def after_epoch(self, scores: Any, step: int) -> None:
        """scores: of the test at the epoch's end, with one view."""

        def work() -> None:
            self.shown.forget()
            self.data["answers"] = facts.answers_of_scores(scores, self.shown.names, 1, step)
            views = exhibits.SHOWN, exhibits.ASKED + exhibits.POOL
            self._draw("kernels", 0, self._kernels, step)
            self._draw("predictions", views[0], self._predictions_of_one_view, step)
            self._draw("neighbours", views[1], self._neighbours, step)
            if self._has_time(0.0):
                self._write()

        self._try(work)

    def testing(self, what: str) -> None:
        """Say on the page that the net is tested: what is long, and nothing is rewritten meanwhile."""
        self.data["why"] = what
        self._try(self._write)
        self.data["why"] = ""

    def last(self, step: int) -> None:
        """Draw everything, when the last test is done; where that fails, the run is said to lack its page."""

        def work() -> None:
            self.data.pop("answers", None)  # metrics.json has those of ten views now
            for name, draw in (("kernels", self._kernels), ("predictions", self._predictions),
                               ("neighbours", self._neighbours)):  # fmt: skip
                self.data[name] = draw() | {"step": step}
            self._write()

        self._try(work)
        if PAGE in self.failed:
            self.run.missing[PAGE] = self.failed[PAGE]

    def end(self, error: BaseException | None) -> None:
        """The run has ended, by this error where there is one; its folder may be gone."""

        def work() -> None:
            self._state(error)
            if self.curves.steps and self.run.path.is_dir():
                self._write()
            self.events.close()

        self._try(work, ended=True)
        self._try(lambda: write_index(self.runs), INDEX, ended=True)

    # ---------------------------------------------------------------- how

    def _try(self, work: Callable[[], Any], name: str = PAGE, ended: bool = False) -> None:
        if self.off:
            return
        begin = time.monotonic()
        try:
            work()
        except Exception as error:  # no fault of a name, a picture or a disk may end a run
            if not ended:
                raise_again()
            if name not in self.failed:
                later = "" if ended else ": going on, to try again later"
                warn(f"{name} cannot be written ({type(error).__name__}: {cause(error)}){later}")
            self.failed[name] = cause(error)
            self._written = time.monotonic()
        self.spent += time.monotonic() - begin

    def _take_up(self) -> None:
        rows = self.run.log.rows[self.taken :]
        self.taken += len(rows)
        self.curves.add(rows)
        self.events.add(self.run.path, rows, anew=self.taken == len(rows))

    def _write(self) -> None:
        self._take_up()
        now = time.monotonic()
        self.data |= {
            "progress": self._progress(now - self._begun), "written": time.time(), "every": EVERY,
            "patience": self._patience(now - self._begun),
            "warnings": [*self.earlier_warnings, *progress.warned][-WARNINGS:],
            "skipped": facts.skipped_data(self.report.skipped),
        }  # fmt: skip
        found = facts.facts_of_run(self.run.path.name, self.config, self.run.metrics, self.curves, self.words)
        page = found | {name: value for name, value in self.data.items() if value is not None}
        write_whole(self.run.path / PAGE, document("report", f"{self.run.path.name} · minigrad", page))
        self.failed.pop(PAGE, None)
        self._written = time.monotonic()

    def _has_time(self, cost: float) -> bool:
        return self.spent + cost <= SHARE * max(time.monotonic() - self._begun, EVERY)

    def _draw(self, name: str, images: int, draw: Callable[[], dict[str, Any]], step: int) -> None:
        """Draw where there is time for it, judged by the last time or else by the speed of training."""
        trained = self.curves.images / max(self.curves.data_s + self.curves.compute_s, 1e-9)
        guess = images / (3 * max(trained, 1e-9))  # a step goes forward, and back twice
        if self._has_time(self._costs.get(name, guess)):
            begin = time.monotonic()
            self.data[name] = draw() | {"step": step}
            self._costs[name] = time.monotonic() - begin

    def _kernels(self) -> dict[str, Any]:
        model = self.net.model
        return exhibits.kernels_data(model.kernels(), self.first_kernels, model.preset.columns)

    def _predictions_of_one_view(self) -> dict[str, Any]:
        return exhibits.predictions_data(self.shown, views=1)

    def _predictions(self) -> dict[str, Any]:
        return exhibits.predictions_data(self.shown, views=10)

    def _neighbours(self) -> dict[str, Any]:
        return exhibits.neighbours_data(self.shown)

    def _progress(self, seconds: float) -> dict[str, Any]:
        steps, planned = self.curves.steps, self.run.planned
        done = steps - self._steps_before
        left = (planned - steps) * seconds / done if done > 1 else None
        epoch = self.run.log.rows[-1]["epoch"] if self.run.log.rows else 0
        epochs = self.config["recipe"]["epochs"]
        return {"step": steps, "steps": planned, "epoch": epoch, "epochs": epochs, "seconds_left": left}

    def _patience(self, seconds: float) -> float:
        """Seconds after which a page that has not been rewritten tells of a run that is gone."""
        per_step = seconds / max(1, self.curves.steps - self._steps_before)
        return 6 * 3600.0 if self.data["why"] else max(600.0, 10 * per_step, 2 * self.spent / SHARE)

    def _state(self, error: BaseException | None) -> None:
        state, why = "finished", ""
        if isinstance(error, IncompleteRunError):
            why = cause(error)
        elif isinstance(error, (Interrupted, KeyboardInterrupt)):
            state, why = "stopped", cause(error) if str(error) else "interrupted"
        elif error is not None:
            state, why = "failed", cause(error)
        self.data |= {"state": state, "why": why}


def earlier(path: Path, steps: int) -> dict[str, Any]:
    """What an earlier page has that no other file of the run has; of pictures, those of a net of so many steps or less.

    {} where there is none, or it cannot be read.
    """
    data: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        data = data_of(path.read_text(encoding="utf-8"))
    kept = {name: data[name] for name in KEPT if name in data}
    for name in (*PICTURES, "answers"):
        found = kept.get(name)
        if not (isinstance(found, dict) and isinstance(found.get("step"), int) and found["step"] <= steps):
            kept.pop(name, None)
    return kept
