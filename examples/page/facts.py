"""All that a page says, as JSON can hold it: from the log, the metrics and the configuration of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scoring import interval

from minigrad.data.words import shown_names

from .curves import Curves, rounded

ROWS = 1000  # classes in the table, at most
SQUARE = 20  # classes in the square of confusions, at most
PAIRS = 20  # confusions in the list, at most
NAMED = 200  # skipped files, at most
VERSIONS = ("minigrad", "numpy", "python")
LEFT_OUT = ("classes", "recipe", "options", "resumed", "command", "train_files", "val_files", *VERSIONS)


def facts_of_run(
    name: str, config: Mapping[str, Any], metrics: Mapping[str, Any], curves: Curves, words: Mapping[str, str]
) -> dict[str, Any]:
    """What a run's files say, but for its pictures.  words: what classes are called, where their names are codes."""
    classes = list(config.get("classes", []))
    tests = {key: metrics[key] for key in ("one_view", "ten_views") if key in metrics}
    return {
        "name": name,
        "classes": len(classes),
        "curves": curves.data(),
        "tests": rounded(curves.tests),
        "chance": {"loss": math.log(len(classes)), "top1": 1 / len(classes)} if classes else None,
        "scores": rounded({key: scores_of(test) for key, test in tests.items()}),
        "speed": rounded(speed_of(curves)),
        "answers": rounded(answers_of(metrics, classes, words)),
        "settings": settings_of(config),
        "versions": {key: config[key] for key in VERSIONS if key in config},
    }


def scores_of(test: Mapping[str, Any]) -> dict[str, Any]:
    """A test of metrics.json without its classes; runs of before have no intervals, and get them here."""
    found = {key: test.get(key) for key in ("loss", "top1", "top5", "images", "views", "epoch", "step")}
    for share in ("top1", "top5"):
        if found[share] is not None and found["images"]:
            found[f"{share}_interval"] = test.get(f"{share}_interval") or interval(found[share], found["images"])
    return found


def speed_of(curves: Curves) -> dict[str, Any]:
    seconds = curves.data_s + curves.compute_s
    return {
        "images": curves.images, "seconds": seconds, "images_per_s": curves.images / seconds if seconds else None,
        "waiting_for_data": curves.data_s / seconds if seconds else None,
    }  # fmt: skip


# ---------------------------------------------------------------- class by class


def answers_of(metrics: Mapping[str, Any], classes: Sequence[str], words: Mapping[str, str]) -> dict[str, Any] | None:
    """What metrics.json says class by class: of its newest test that has it."""
    tests = [test for test in metrics.values() if isinstance(test, Mapping) and test.get("confusion")]
    if not tests or not classes:
        return None
    test = max(tests, key=lambda test: (test["step"], test["views"]))
    number = {name: k for k, name in enumerate(classes)}
    right = {number[name]: found for name, found in test["classes"].items() if name in number}
    seen = {number[name]: {number[as_]: n for as_, n in row.items()} for name, row in test["confusion"].items()}
    return classes_data(
        shown_names(classes, words),
        {k: (found["images"], found["top1"]) for k, found in right.items()}, seen, test["views"], test["step"],
    )  # fmt: skip


def answers_of_scores(scores: Any, names: Sequence[str], views: int, step: int) -> dict[str, Any] | None:
    """The same of scoring.Scores."""
    if scores.confusion is None or scores.right is None:
        return None
    counts = scores.confusion.sum(1)
    seen = {k: {int(j): int(row[j]) for j in np.flatnonzero(row)} for k, row in enumerate(scores.confusion)}
    right = {k: (int(n), int(r) / int(n) if n else None) for k, (n, r) in enumerate(zip(counts, scores.right))}
    return rounded(classes_data(names, right, seen, views, step))


def classes_data(
    names: Sequence[str], right: Mapping[int, tuple[int, float | None]], seen: Mapping[int, Mapping[int, int]],
    views: int, step: int,
) -> dict[str, Any]:  # fmt: skip
    """Each class's share of right answers, the commonest confusions, and the square of the most confused classes.

    right: of each class its images, and the share of them answered right; seen: as which class they were seen, and how
    often.  Of more classes than ROWS the best are left out, and `left_out` says how many.
    """
    tested = {k: (n, share) for k, (n, share) in right.items() if n and share is not None}
    order = sorted(tested, key=lambda k: (tested[k][1], names[k]))
    wrong = {k: sum(n for j, n in seen.get(k, {}).items() if j != k) for k in tested}
    pairs = sorted(((n, k, j) for k, row in seen.items() for j, n in row.items() if j != k), key=lambda p: -p[0])
    kept = sorted(sorted(tested, key=lambda k: -wrong[k])[:SQUARE])
    rows = []
    for k in order[:ROWS]:
        n, share = tested[k]
        most = max(((m, j) for j, m in seen.get(k, {}).items() if j != k), default=None)
        other = {"other": names[most[1]], "times": most[0]} if most else {}
        rows.append({"name": names[k], "images": n, "top1": share, "interval": interval(share, n), **other})
    return {
        "views": views, "step": step, "rows": rows, "left_out": len(order) - len(rows),
        "untested": len(right) - len(tested), "of_classes": len(tested),
        "wrong": sum(wrong.values()), "images": sum(n for n, _ in tested.values()),
        "pairs": [{"class": names[k], "taken_for": names[j], "times": n} for n, k, j in pairs[:PAIRS]],
        "square": {
            "names": [names[k] for k in kept], "images": [tested[k][0] for k in kept],
            "counts": [[seen.get(k, {}).get(j, 0) for j in kept] for k in kept],
        },
    }  # fmt: skip


# ---------------------------------------------------------------- configuration


def settings_of(config: Mapping[str, Any]) -> list[list[str]]:
    """config.json as lines of (name, value), the recipe first; options that the recipe has are not said twice."""
    recipe = dict(config.get("recipe") or {})
    plain = {key: value for key, value in config.items() if key not in LEFT_OUT}
    options = {
        key: value for key, value in (config.get("options") or {}).items()
        if key != "given" and key not in recipe and key not in plain and value not in (None, False, [], ())
    }  # fmt: skip
    lines = [[key.replace("_", " "), said(value)] for part in (recipe, plain, options) for key, value in part.items()]
    if config.get("classes"):
        lines.append(["classes", f"{len(config['classes']):,}"])
    lines.append(["command", " ".join(map(str, config.get("command") or [])) or "(no options)"])
    for again in config.get("resumed", []):
        lines.append(["resumed", f"{again.get('started', '')}  {' '.join(map(str, again.get('command', [])))}"])
    return lines


def said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def skipped_data(skipped: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"count": len(skipped), "files": [list(each) for each in skipped[:NAMED]]}
