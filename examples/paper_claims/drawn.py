"""The figures of docs/claims.md, as SVG files: the same results give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import BLUE, GREY, RED, pyplot
from run_folder import write_whole

from .rows import CLAIMS, Comparison
from .verdicts import judge

TITLES = {"train_error": "training error", "seen_error": "training pictures", "val_error": "held-out pictures"}


def draw(folder: Path, found: Any) -> dict[str, str]:
    """Draw what there are results for: claim -> name of its picture."""
    pictures: dict[str, Callable[[Any], Any]] = {
        "relu": lambda found: figure1("", found),
        "relu-original": lambda found: figure1("original-", found),
        "dropout": pairs("alexnet-no-dropout", "without dropout"),
        "weight-decay": pairs("alexnet-no-decay", "without weight decay"),
        "augmentation": pairs("alexnet-centre", "centre alone"),
        "overlapping-pooling": pairs("alexnet-pool-2-2", "2 x 2, 2 apart"),
        "lrn": pairs("alexnet-no-lrn", "without LRN"),
        "lrn-cifar": lambda found: intervals("lrn-cifar", found),
        "lrn-original": lambda found: intervals("lrn-original", found),
        "two-columns": pairs("alexnet-half", "half the net"),
        "colour": colours,
        "biases": first_steps,
        "middle-layers": lambda found: intervals("middle-layers", found),
        "neighbours": neighbours,
    }
    drawn = {}
    for claim, picture in pictures.items():
        figure = picture(found)
        if figure is not None:
            name = f"claims_{claim.replace('-', '_')}.svg"
            folder.mkdir(parents=True, exist_ok=True)
            save(figure, folder / name)
            drawn[claim] = name
    return drawn


def save(figure: Any, path: Path) -> None:
    plt, content = pyplot(), io.BytesIO()
    settings = {"svg.hashsalt": path.name, "svg.fonttype": "none", "path.simplify": True}
    try:
        with plt.rc_context(settings):
            figure.savefig(content, format="svg", metadata={"Date": None})
    finally:
        plt.close(figure)
    write_whole(path, content.getvalue())


def lines(axis: Any, runs: Sequence[Any], kind: str, colour: str, style: str, label: str, shift: float = 0.0) -> None:
    """Each seed's curve, thin, and the mean of those that last as long."""
    curves = [[(p["epoch"] + shift, 100 * p[kind]) for p in run["curve"] if kind in p] for run in runs]
    for points in curves:
        axis.plot(*zip(*points), style, color=colour, linewidth=0.7, alpha=0.5)
    length = min(map(len, curves))
    mean = np.mean([points[:length] for points in curves], axis=0)
    axis.plot(mean[:, 0], mean[:, 1], style, color=colour, linewidth=2, label=label)


def figure1(kind: str, found: Any) -> Any:
    """Figure 1 of the paper: training error over epochs, ReLU solid, tanh dashed."""
    runs = {name: found.of_arm(f"figure1-{kind}{name}") for name in ("relu", "tanh")}
    if not all(runs.values()):
        return None
    figure, axis = pyplot().subplots(figsize=(5.5, 4), layout="constrained")
    for of, style, label in zip(runs.values(), ("-", "--"), ("ReLU", "tanh")):
        lines(axis, of, "train_error", "black", style, label, shift=-0.5)
    axis.axhline(25, color=GREY, linewidth=0.8)
    axis.set(xlabel="epochs", ylabel="training error, %", xlim=(0, None), ylim=(0, 80))
    axis.legend(frameon=False)
    return figure


def pairs(other: str, label: str, base: str = "alexnet") -> Callable[[Any], Any]:
    """Error over epochs of the net as the paper has it and of another, on training pictures and on those held out."""

    def picture(found: Any) -> Any:
        runs = found.of_arm(base), found.of_arm(other)
        if not all(runs):
            return None
        figure, axes = pyplot().subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
        for axis, kind in zip(axes, ("seen_error", "val_error")):
            for of, colour, style, name in zip(runs, (BLUE, RED), ("-", "--"), ("as in the paper", label)):
                lines(axis, of, kind, colour, style, name)
            axis.set(xlabel="epochs", title=TITLES[kind])
        axes[0].set(ylabel="error, %")
        axes[0].legend(frameon=False)
        return figure

    return picture


def colours(found: Any) -> Any:
    """How coloured each kernel of conv1 is, by column and seed: beside each other for both nets."""
    nets = {"two columns": "alexnet", "one column, in halves": "alexnet-one-column"}
    runs = {title: [run for run in found.of_arm(name) if "colour" in run["measured"]] for title, name in nets.items()}
    if not all(runs.values()):
        return None
    figure, axes = pyplot().subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, (title, of) in zip(axes, runs.items()):
        for run in of:
            halves = np.split(100 * np.array(run["measured"]["colour"]["added"]), 2)
            for shares, colour, offset in zip(halves, (BLUE, RED), (-0.12, 0.12)):
                x = run["seed"] + offset
                axis.plot([x] * len(shares), shares, ".", color=colour, alpha=0.5)
                axis.plot([x - 0.1, x + 0.1], [shares.mean()] * 2, color=colour, linewidth=2)
        axis.set(title=title, xlabel="seed", xticks=[run["seed"] for run in of])
    axes[0].set(ylabel="colour in what training added\nto each kernel, % of its energy")
    return figure


def first_steps(found: Any) -> Any:
    """The loss of the first steps, running means over 20 of them."""
    arms = {"early-bias-1": "biases 1", "early-bias-0.1": "0.1", "early-bias-0": "0",
            "early-fitted": "fitted first weights"}  # fmt: skip
    runs = {label: found.of_arm(name) for name, label in arms.items() if found.of_arm(name)}
    if not runs:
        return None
    figure, axis = pyplot().subplots(figsize=(5.5, 4), layout="constrained")
    for (label, of), colour, style in zip(runs.items(), (BLUE, RED, "black", GREY), ("-", "--", ":", "-.")):
        for i, run in enumerate(of):
            losses = np.convolve(run["measured"]["first losses"], np.full(20, 1 / 20), "valid")
            axis.plot(np.arange(20, 20 + len(losses)), losses, style, color=colour, label=None if i else label)
    guessing = math.log(of[0]["data"]["classes"])
    axis.axhline(guessing, color=GREY, linewidth=0.8)
    axis.set(xlabel="steps", ylabel="loss, mean of 20 steps", ylim=(None, guessing + 0.3))
    axis.legend(frameon=False)
    return figure


def intervals(name: str, found: Any) -> Any:
    """The comparisons of a claim, each with its seeds, its mean and interval, and what the paper reports."""
    shown: list[tuple[Comparison, list[float]]] = []
    for comparison in CLAIMS[name].comparisons:
        _, values = found.values(comparison)
        if len(values) > 1:
            shown.append((comparison, values))
    if not shown:
        return None
    figure, axis = pyplot().subplots(figsize=(8, 0.9 + 0.5 * len(shown)), layout="constrained")
    for y, (comparison, values) in enumerate(shown):
        verdict = judge(values, comparison.null, comparison.paper)
        axis.errorbar(verdict.mean, y, xerr=verdict.half, fmt="o", color=BLUE, capsize=4)
        axis.plot(values, [y] * len(values), "|", color="black", markersize=9)
        if comparison.paper is not None:
            axis.plot(comparison.paper, y, "D", color=RED, markersize=5)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set_yticks(range(len(shown)), [comparison.what for comparison, _ in shown])
    axis.set(ylim=(len(shown) - 0.5, -0.5), xlabel="points (circle: mean and interval; strokes: seeds; diamond: paper)")
    return figure


def neighbours(found: Any) -> Any:
    """The share of the six nearest that are of the right class, for every seed, in both spaces."""
    runs = [run for run in found.of_arm("alexnet") if "neighbours" in run["measured"]]
    if not runs:
        return None
    figure, axis = pyplot().subplots(figsize=(5.5, 3), layout="constrained")
    for space, colour, offset, label in (("pixels", GREY, -0.2, "by pixels"), ("fc7", BLUE, 0.2, "by fc7")):
        shares = [100 * run["measured"]["neighbours"][space] for run in runs]
        axis.bar([run["seed"] + offset for run in runs], shares, 0.38, color=colour, label=label)
    chance = 100 / runs[0]["data"]["classes"]
    axis.axhline(chance, color="black", linewidth=0.8)
    axis.margins(y=0.3)  # room for the legend
    axis.set(xlabel="seed (line: chance)", xticks=[run["seed"] for run in runs],
             ylabel="of the six nearest,\nof the same class, %")  # fmt: skip
    axis.legend(frameon=False, ncols=2)
    return figure
