"""The page of all runs in a folder, index.html: what they are, how they did, and their curves over one another."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from progress import warn
from run_folder import LOCK, cause, value_of, write_whole

from minigrad.errors import printable

from .curves import rounded
from .document import MADE_BY, document
from .facts import scores_of

INDEX = "index.html"
TESTS = 200  # points of a run's curve, at most


def write_index(folder: Path, training: Path | None = None) -> bool:
    """Write index.html anew, of the runs that are in the folder; whether it is written.

    training: a run that has begun just now.  A file index.html of somebody else's is left alone, which is said.
    Raises OSError where the file cannot be written.
    """
    path = folder / INDEX
    if path.exists() and MADE_BY not in path.read_text(encoding="utf-8", errors="replace"):
        warn(f"{path} is not of this program's making: it is left as it is, and there is no page of all runs")
        return False
    runs = [found for each in sorted(folder.iterdir()) if (found := run_data(each, each == training)) is not None]
    runs.sort(key=lambda run: run["started"], reverse=True)
    data = {"written": time.time(), "runs": rounded(runs)}
    write_whole(path, document("index", f"Runs in {printable(folder.resolve().name)} · minigrad", data))
    return True


def run_data(folder: Path, training: bool = False) -> dict[str, Any] | None:
    """A run's line in the table; None where the folder holds no run, {"name", "why"} where it cannot be read."""
    try:
        if not (folder / "config.json").is_file():
            return None
    except OSError:
        return None  # a folder of somebody else's, who lets nobody in
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        metrics = {}
        if (folder / "metrics.json").is_file():
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return _run_data(folder, config, metrics, training)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return {"name": folder.name, "started": "", "state": "unreadable", "why": cause(error), "tests": []}


def _run_data(folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any], training: bool) -> dict[str, Any]:
    scores = {key: scores_of(metrics[key]) for key in ("one_view", "ten_views") if key in metrics}
    recipe, speed = config.get("recipe") or {}, metrics.get("training") or {}
    tests = tests_of(folder / "log.csv")
    link = f"./{urllib.parse.quote(os.fsencode(folder.name))}/report.html"
    done = max((test["epoch"] for test in tests), default=0)
    return {
        "name": folder.name, "link": link if (folder / "report.html").is_file() else "",
        "state": state_of(folder, metrics, tests, recipe.get("epochs"), training), "why": "",
        "started": str(config.get("started", "")),
        "preset": str(config.get("preset") or f"{config.get('model', '')} {config.get('variant', '')}".strip()),
        "images": config.get("train_images"), "classes": len(config.get("classes") or []),
        "epoch": done, "epochs": recipe.get("epochs"), "scores": scores,
        "speed": speed.get("images_per_s"), "seconds": speed.get("seconds"),
        "tests": tests[:: -(-len(tests) // TESTS) or 1],
    }  # fmt: skip


def tests_of(log: Path) -> list[dict[str, Any]]:
    """The tests in a log, without reading its millions of steps as numbers."""
    if not log.is_file():
        return []
    with open(log, encoding="utf-8", newline="") as file:
        names = next(csv.reader(file), [])
        rows = csv.reader(line for line in file if line.startswith("val,"))
        found = [{name: value_of(text) for name, text in zip(names, row)} for row in rows]
    return [{key: test[key] for key in ("epoch", "step", "loss", "top1")} for test in found]


def state_of(
    folder: Path, metrics: Mapping[str, Any], tests: list[dict[str, Any]], epochs: int | None, training: bool,
    alive: bool | None = None,
) -> str:  # fmt: skip
    """training, finished or stopped.

    A run is finished when its last test, with ten views where there is one, came after its last epoch; it is in
    training where the process that holds its lock is alive, or may be, on another machine.  alive: that it is known.
    """
    if training or (_alive(folder / LOCK) if alive is None else alive):
        return "training"
    last = metrics.get("ten_views") or metrics.get("one_view") or {}
    complete = bool(tests) and last.get("step") == tests[-1]["step"] and last.get("epoch", 0) >= (epochs or 0)
    return "finished" if complete else "stopped"


def _alive(lock: Path) -> bool:
    try:
        about = lock.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    found = re.match(r"process (\d+) on (.*), since ", about, re.DOTALL)
    if not found or found[2] != platform.node():
        return True
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it is another user's
    return True
