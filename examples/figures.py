"""The pictures of a run: learning curves, conv1's kernels (Figure 3), predictions, neighbours (Figure 4), confusion."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from interruption import raise_again
from progress import warn
from run_folder import cause, write_whole

from minigrad.errors import MissingDependencyError, printable

BLUE, RED, GREY = "#2b6cb0", "#c53030", "#a0aec0"
MOVED = 0.01  # below, what training added to conv1 is mostly rounding, and drawn at full scale would look like much


def pyplot() -> Any:
    """matplotlib, imported when the first picture is drawn."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError(
            f"the pictures need matplotlib ({error}): pip install 'minigrad[plot]', or run with --no-figures"
        ) from None
    matplotlib.use("Agg")  # files only: works without a screen
    matplotlib.rcParams.update({"text.parse_math": False, "text.usetex": False})  # a class may be called $x$
    import matplotlib.pyplot as plt

    return plt


def draw_each(folder: Path, pictures: dict[str, Callable[[Path], None]]) -> tuple[list[str], dict[str, str]]:
    """Draw what can be drawn: (names of the pictures, names of those that could not be drawn -> why).

    Scores and weights are on disk by now: no fault of a font, a name or a disk may end the program with a traceback.
    """
    drawn, failed = [], {}
    for name, draw in pictures.items():
        try:
            draw(folder / name)
            drawn.append(name)
        except Exception as error:
            raise_again()
            failed[name] = cause(error)
            warn(f"{name} could not be drawn: {type(error).__name__}: {failed[name]}")
    return drawn, failed


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over the last `width` values, or as many as there are."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    last = np.arange(1, len(values) + 1)
    start = np.maximum(0, last - width)
    return (total[last] - total[start]) / (last - start)


def learning_curves(log: Any, num_classes: int, path: Path, title: str, tested_on: str = "held-out images") -> None:
    """Loss and top-1 over the images seen: every step, their running mean, and the tests."""
    plt = pyplot()
    seen = np.cumsum(log.column("train", "images"))
    tested = np.array([seen[min(int(step), len(seen)) - 1] for step in log.column("val", "step")])
    width, few = len(seen) // 20, len(seen) < 40  # of a few steps, a mean says less than they do
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    chance = {"loss": np.log(num_classes), "top1": 1 / num_classes}
    for axis, name, label in zip(axes, ("loss", "top1"), ("cross-entropy", "top-1")):
        values = log.column("train", name)
        if few:
            axis.plot(seen, values, ".-", color=BLUE, lw=1, label="each batch")
        else:
            axis.plot(seen, values, color=BLUE, alpha=0.25, lw=0.8, label="each batch")
            axis.plot(seen, smooth(values, width), color=BLUE, lw=2, label=f"mean of {width} batches")
        if len(tested):
            axis.plot(tested, log.column("val", name), "o-", color=RED, ms=5, label=tested_on)
        axis.axhline(chance[name], color=GREY, ls="--", lw=1, label="chance")
        axis.set(xlabel="training images seen", ylabel=label)
        axis.grid(alpha=0.2)
        axis.legend(fontsize=8)
    losses = smooth(log.column("train", "loss"), max(1, width))
    axes[0].set_ylim(bottom=0, top=max(2 * chance["loss"], 1.1 * float(losses.max(initial=0.0))))
    axes[1].set_ylim(0, 1)
    axes[1].yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    figure.suptitle(title)
    save(figure, path)


def conv1_kernels(weight: np.ndarray, before: np.ndarray, path: Path, columns: int = 2) -> None:
    """The kernels of conv1 (O, 3, 11, 11), one sheet per column of the network (Figure 3), and their change.

    Random weights are noise, and what a short training adds to them is hard to see under it: so what was added to
    `before`, the first weights, is drawn beside, unless there is next to none (see MOVED).
    """
    plt = pyplot()
    moved, learned = moved_by(weight, before), added(weight, before)
    drawn = [("kernels", weight)] + ([] if learned is None else [("what training added to them", learned)])
    figure, axes = plt.subplots(columns, len(drawn), figsize=(6.5 * len(drawn), 3.1 * columns), squeeze=False)
    for j, (what, all_of_them) in enumerate(drawn):
        for i, kernels in enumerate(np.split(all_of_them, columns)):
            axes[i, j].imshow(sheet(kernels), interpolation="nearest")
            axes[i, j].set_title(f"column {i + 1}: {what}", fontsize=10, loc="left")
            axes[i, j].axis("off")
    said = f"training moved the weights by {moved:.0%}"
    if moved < MOVED:
        said = "training moved the weights by less than 1 %" if moved else "training has not moved them"
    figure.suptitle(f"conv1, each kernel scaled to its range; {said}", fontsize=11)
    save(figure, path)


def moved_by(weight: np.ndarray, before: np.ndarray) -> float:
    """How far training has moved weights, as a share of the length of the first ones."""
    return float(np.linalg.norm(weight - before)) / max(float(np.linalg.norm(before)), 1e-12)


def added(weight: np.ndarray, before: np.ndarray) -> np.ndarray | None:
    """What of kernels (O, 3, h, w) is not their first weights: weight - s before, with each kernel's nearest s.

    Weight decay shrinks what a kernel began with, and s says how much of it is left.  A plain difference would show
    what has gone, as a negative of the first noise.  None where it is next to nothing (see MOVED).
    """
    axes = (1, 2, 3)
    weight, before = weight.astype(np.float64), before.astype(np.float64)  # the rest is small beside what cancels
    left = (weight * before).sum(axes, keepdims=True) / np.maximum((before**2).sum(axes, keepdims=True), 1e-12)
    rest = weight - left * before
    return rest if np.linalg.norm(rest) >= MOVED * np.linalg.norm(before) else None


def sheet(kernels: np.ndarray, gap: int = 2) -> np.ndarray:
    """Kernels (O, 3, h, w) side by side, float (H, W, 4) with nothing (alpha 0) between them.

    Grey is 0, and a channel is 0 or 1 at the kernel's largest weight.  Twelve stand in a row where that comes out even.
    """
    o, _, h, w = kernels.shape
    across = 12 if o % 12 == 0 else o
    peak = np.maximum(np.abs(kernels).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    pictures = (0.5 + 0.5 * kernels / peak).transpose(0, 2, 3, 1)
    rows = -(-o // across)
    whole = np.zeros((rows * (h + gap) + gap, across * (w + gap) + gap, 4))
    for i, picture in enumerate(pictures):
        top, left = gap + i // across * (h + gap), gap + i % across * (w + gap)
        whole[top : top + h, left : left + w, :3] = picture
        whole[top : top + h, left : left + w, 3] = 1
    return whole


def predictions(
    images: Sequence[np.ndarray], p: np.ndarray, labels: Sequence[int] | None, classes: Sequence[str], path: Path
) -> None:
    """Test images (H, W, 3), below each the five likeliest classes; the right one, where known, in red (Figure 4)."""
    plt = pyplot()
    across = min(4, len(images))
    rows = -(-len(images) // across)
    figure, axes = plt.subplots(
        2 * rows, across, figsize=(3 * across, 4.2 * rows), height_ratios=[3, 1.5] * rows, squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for i, image in enumerate(images):
        row, col = 2 * (i // across), i % across
        axes[row, col].imshow(image)
        if labels is not None:
            axes[row, col].set_title(short(classes[labels[i]], 30), fontsize=10)
        best = np.argsort(-p[i], kind="stable")[:5]
        bars = axes[row + 1, col]
        bars.axis("on")
        bars.barh(
            range(len(best)), p[i, best], color=[RED if labels is not None and k == labels[i] else BLUE for k in best]
        )
        for y, k in enumerate(best):
            bars.text(0.02, y, short(classes[k], 26), va="center", fontsize=8)
        bars.set(ylim=(len(best) - 0.4, -0.6), xlim=(0, 1), yticks=[], xticks=[])
    figure.suptitle("Five likeliest classes" + ("" if labels is None else " (red: the right one)"), fontsize=11)
    save(figure, path)


def neighbours(
    queries: Sequence[np.ndarray],
    query_names: Sequence[str],
    found: Sequence[Sequence[tuple[np.ndarray, str]]],
    path: Path,
) -> None:
    """Test images in the first column; beside each the training images whose fc7 activations lie nearest (Figure 4)."""
    plt = pyplot()
    across = 1 + max(len(row) for row in found)
    figure, axes = plt.subplots(
        len(queries), across, figsize=(1.5 * across, 1.75 * len(queries) + 0.7), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, (image, name, near) in enumerate(zip(queries, query_names, found)):
        for col, (picture, label) in enumerate([(image, name), *near]):
            axes[row, col].imshow(picture)
            right = "black" if col == 0 else ("green" if label == name else RED)
            axes[row, col].set_title(short(label, 16), fontsize=8, color=right)
    figure.suptitle(
        "Test images (left) and the training images nearest to them in fc7's feature space (green: same class)",
        fontsize=10,
    )
    save(figure, path)


def confusion(counts: np.ndarray, classes: Sequence[str], path: Path, most: int = 20) -> None:
    """What the images of each class (rows) were taken for (columns), in shares of the row: counts int64 (K, K).

    Of more classes than `most`, those with the most wrong answers are shown.
    """
    plt = pyplot()
    wrong = counts.sum(1) - counts.diagonal()
    kept = np.sort(np.argsort(-wrong, kind="stable")[:most])
    shown = counts[np.ix_(kept, kept)] / np.maximum(counts.sum(1)[kept, None], 1)
    side = 2.6 + 0.42 * len(kept)
    figure, axis = plt.subplots(figsize=(side + 0.8, side))
    axis.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(kept):
        for j, column in enumerate(kept):
            if counts[row, column]:
                colour = "white" if shown[i, j] > 0.6 else "black"
                axis.text(j, i, int(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    names = [short(classes[k], 20) for k in kept]
    axis.set_xticks(range(len(kept)), names, rotation=90, fontsize=8)
    axis.set_yticks(range(len(kept)), names, fontsize=8)
    axis.set(xlabel="taken for", ylabel="class")
    title = f"{int(wrong.sum())} of {int(counts.sum())} images taken for another class"
    if len(kept) < len(classes):
        title += f" (the {len(kept)} of {len(classes)} classes with the most of them)"
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def short(text: str, length: int) -> str:
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all, and close it."""
    content = io.BytesIO()
    try:
        if figure.get_layout_engine() is None:
            figure.tight_layout()
        figure.savefig(content, dpi=110, format="png")
    finally:
        pyplot().close(figure)
    write_whole(path, content.getvalue())
