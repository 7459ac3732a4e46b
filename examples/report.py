"""Make the page of a run anew from what the run left, or the page of all runs.

python examples/report.py runs/NAME      runs/NAME/report.html, and runs/index.html
python examples/report.py runs           runs/index.html alone
python examples/report.py runs/NAME --data PATH      where the run's pictures are now

The main job writes both by itself; this is for runs of before there were pages, or after a change of how they look.
"""

from __future__ import annotations

import interruption

if __name__ == "__main__":  # before the imports that take a second
    interruption.begin()

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from command_line import OneLineParser, any_path, device_list, run_job
from going_on import CHECKPOINTS, CONFIG, difference
from page import exhibits
from page.curves import Curves
from page.document import document
from page.exhibits import Exhibits
from page.facts import facts_of_run
from page.index import INDEX, run_data, state_of, tests_of, write_index
from page.live import PAGE, earlier
from progress import warn
from run_folder import Run, cause, rows_of, write_whole
from trained import WEIGHTS, Trained

from minigrad.checkpoint import Checkpoints
from minigrad.data import open_images
from minigrad.errors import ArgumentError, DataError, MinigradError, printable


def main(arguments: list[str] | None = None) -> int:
    return run_job("report.py", make, parse(arguments))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="report.py", description="Make the page of a run, or of all runs, anew.")
    parser.add_argument("folder", type=any_path, metavar="FOLDER", help="a run's folder, or the one where runs are")
    parser.add_argument(
        "--devices", type=device_list, default="cpu:0,cpu:1", metavar="A[,B]",
        help="where the net answers for the pictures (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=any_path, metavar="PATH",
        help="where the run's pictures are now, or a store of them (default: where they were)",
    )  # fmt: skip
    return parser.parse(arguments)


def make(options: argparse.Namespace) -> None:
    folder = options.folder.resolve()
    if not folder.is_dir():
        raise ArgumentError(f"{printable(options.folder)}: there is no such folder: give runs/NAME, or runs")
    if (folder / CONFIG).is_file():
        with Run(folder, new=False):  # which refuses a run that is trained: that writes its page itself
            write_whole(
                folder / PAGE,
                document("report", f"{folder.name} · minigrad", page_data(folder, options.devices, options.data)),
            )
            print(f"written: {printable(options.folder / PAGE)}")
        folder = folder.parent
    elif options.data is not None:
        raise ArgumentError(f"--data: goes with a run, and {printable(options.folder)} is none: there is no {CONFIG}")
    elif not any(run_data(each) for each in folder.iterdir()):
        raise ArgumentError(f"{printable(options.folder)}: no run is there, nor is it one: there is no {CONFIG}")
    if write_index(folder):
        print(f"written: {printable(folder / INDEX)}")


def page_data(folder: Path, devices: tuple[str, ...], data: Path | None = None) -> dict[str, Any]:
    """All that can be said of a run from its files; what they do not allow is a warning, and left out.

    data: where the pictures are now, if not where they were.
    DataError where they are no run's.
    """
    config, metrics = json_of(folder / CONFIG), {}
    if (folder / "metrics.json").is_file():
        metrics = json_of(folder / "metrics.json")
    curves = Curves()
    try:
        if (folder / "log.csv").is_file():
            curves.add(rows_of(folder / "log.csv"))
        tests = tests_of(folder / "log.csv")
        epochs = (config.get("recipe") or {}).get("epochs")
        state = state_of(folder, metrics, tests, epochs, training=False, alive=False)
        page = earlier(folder / PAGE, curves.steps)
        train_set, pictures = pictures_of(folder, config, devices, data)
        facts = facts_of_run(folder.name, config, metrics, curves, getattr(train_set, "words", {}))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{printable(folder)}: its log.csv, metrics.json and {CONFIG} are not those of a run "
            f"({type(error).__name__}: {cause(error)}): give a folder as the examples write it"
        ) from error
    if facts["answers"] is not None:
        page.pop("answers", None)
    known = {"state": state, "why": "", "written": time.time(), "every": 0, "patience": 0, "progress": None}
    steps = {name: {**picture, "step": curves.steps} for name, picture in pictures.items()}
    return facts | page | steps | known


def pictures_of(
    folder: Path, config: Mapping[str, Any], devices: tuple[str, ...], data: Path | None
) -> tuple[Any, dict[str, Any]]:
    """(the training pictures, kernels and predictions and neighbours by name), as far as there are any."""
    pictures: dict[str, Any] = {}
    if not (folder / WEIGHTS).is_file() or "preset" not in config:
        warn(f"no {WEIGHTS} of AlexNet in {printable(folder)}: no kernels, predictions and neighbours")
        return None, pictures
    net = attempt("the weights", lambda: Trained.restore(folder / WEIGHTS, config["preset"], devices))
    if net is None:
        return None, pictures
    kept = Checkpoints(folder / CHECKPOINTS)
    first = None
    if kept.latest() is not None:
        first = attempt("the first weights of conv1", lambda: kept.values(None)["first_kernels"])
    pictures["kernels"] = exhibits.kernels_data(net.model.kernels(), first, net.model.preset.columns)

    def both_sets() -> tuple[Any, Any]:
        root = Path(config["data"]) if data is None else data
        limit = (config.get("options") or {}).get("val_limit")
        found = open_images(root, "train"), open_images(root, "val", limit=limit)
        begun_with = {**config, "classes": list(net.classes)}
        other = difference(begun_with, *found, known=tuple(begun_with))
        if other:
            raise DataError(
                f"{printable(root)} has other pictures now ({other}): give those of the run with --data PATH"
            )
        return found

    sets = attempt("the pictures that the net was trained on", both_sets)
    if sets is None:
        return None, pictures  # and a page that is there keeps what it shows
    shown = Exhibits(net, *sets, config.get("seed", 0))
    pictures["predictions"] = exhibits.predictions_data(shown, views=10)
    pictures["neighbours"] = exhibits.neighbours_data(shown)
    return sets[0], pictures


def attempt(what: str, work: Callable[[], Any]) -> Any:
    """What work gives, or None after a warning."""
    try:
        return work()
    except (MinigradError, OSError, LookupError) as error:
        warn(f"{what} cannot be used: {cause(error)}")
        return None


def json_of(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(path)} cannot be read ({cause(error)}): it is no run's") from None
    if not isinstance(found, dict):
        raise DataError(f"{printable(path)} must hold an object, it holds {type(found).__name__}: it is no run's")
    return found


if __name__ == "__main__":
    interruption.finish(main)
