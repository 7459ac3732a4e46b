"""Ten digits drawn with a shaky pen: a set in the form of MNIST for machines where none is installed.

A digit is a few strokes, each a smooth curve through points of the unit square.  For every picture the points
are shaken, the whole is turned, sheared, scaled and shifted, drawn with a pen of random width, and grain is
added.  Picture i is drawn from random numbers of its own: the same seed gives the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from minigrad.data import Mnist

# Points (x, y), y downwards, through which each stroke runs.
STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [[(0.50, 0.05), (0.20, 0.25), (0.15, 0.55), (0.30, 0.90),
         (0.60, 0.95), (0.82, 0.65), (0.80, 0.30), (0.50, 0.05)]],
    1: [[(0.30, 0.25), (0.45, 0.15), (0.55, 0.03), (0.54, 0.50), (0.52, 0.97)]],
    2: [[(0.20, 0.28), (0.35, 0.07), (0.65, 0.07), (0.78, 0.30), (0.55, 0.60), (0.20, 0.93)],
        [(0.20, 0.93), (0.85, 0.92)]],
    3: [[(0.20, 0.12), (0.50, 0.03), (0.75, 0.20), (0.65, 0.42), (0.42, 0.47)],
        [(0.42, 0.47), (0.75, 0.55), (0.80, 0.78), (0.55, 0.96), (0.18, 0.88)]],
    4: [[(0.50, 0.03), (0.35, 0.35), (0.12, 0.65)],
        [(0.12, 0.65), (0.88, 0.62)],
        [(0.68, 0.35), (0.65, 0.97)]],
    5: [[(0.80, 0.06), (0.28, 0.07)],
        [(0.28, 0.07), (0.24, 0.43)],
        [(0.24, 0.43), (0.60, 0.40), (0.80, 0.65), (0.60, 0.92), (0.18, 0.90)]],
    6: [[(0.68, 0.04), (0.35, 0.30), (0.20, 0.65), (0.40, 0.95),
         (0.72, 0.85), (0.75, 0.60), (0.50, 0.50), (0.24, 0.68)]],
    7: [[(0.15, 0.08), (0.85, 0.07)],
        [(0.85, 0.07), (0.58, 0.45), (0.42, 0.97)]],
    8: [[(0.50, 0.47), (0.25, 0.28), (0.50, 0.04), (0.75, 0.25), (0.50, 0.47),
         (0.20, 0.72), (0.50, 0.96), (0.80, 0.72), (0.50, 0.47)]],
    9: [[(0.75, 0.28), (0.50, 0.05), (0.25, 0.22), (0.30, 0.45), (0.58, 0.48), (0.75, 0.28)],
        [(0.75, 0.28), (0.72, 0.60), (0.55, 0.97)]],
}  # fmt: skip
FINE = 4  # drawn that many times larger, then averaged down: smooth edges


def drawn_digits(
    train: int = 5000, test: int = 1000, seed: int = 0, progress: Callable[[], object] | None = None
) -> Mnist:
    """Training and test images uint8 (N, 28, 28), labels (N,): ten classes in turn, white on black.

    progress: called after each picture.
    """
    parts = []
    for split, count in enumerate((train, test)):
        images = []
        for i in range(count):
            images.append(draw(i % 10, np.random.default_rng([seed, split, i])))
            if progress is not None:
                progress()
        parts += [np.stack(images), np.arange(count) % 10]
    return Mnist(*parts)


def draw(digit: int, random: np.random.Generator) -> np.ndarray:
    """One picture, uint8 (28, 28)."""
    angle, shear = random.normal(0, 0.15), random.normal(0, 0.2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    size = random.uniform(14, 20, 2) * (0.8, 1.0)  # pixels across and down
    transform = turn @ np.array([[1, shear], [0, 1]]) @ np.diag(size)
    centre = 14 + random.uniform(-2, 2, 2)
    width = round(FINE * random.uniform(1.5, 3.5))

    sheet = Image.new("L", (28 * FINE, 28 * FINE))
    pen = ImageDraw.Draw(sheet)
    for stroke in STROKES[digit]:
        points = np.array(stroke) + random.normal(0, 0.045, (len(stroke), 2))
        curve = FINE * ((smooth(points) - 0.5) @ transform.T + centre)
        pen.line([(x, y) for x, y in curve], fill=255, width=width, joint="curve")
    picture = np.asarray(sheet.resize((28, 28), Image.Resampling.BOX), dtype=np.float32)
    ink = random.uniform(0.6, 1.0)
    return np.clip(ink * picture + random.normal(0, 20, picture.shape), 0, 255).astype(np.uint8)


def smooth(points: np.ndarray, steps: int = 6) -> np.ndarray:
    """A curve through the points (n, 2): Catmull and Rom's cubics, tangent to the chord of the neighbours."""
    p = np.concatenate([points[:1], points, points[-1:]])
    before, start, stop, after = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    t = np.linspace(0, 1, steps)[:, None]
    curve = start + t * (stop - before) / 2
    curve = curve + t**2 * (before - 2.5 * start + 2 * stop - after / 2)
    curve = curve + t**3 * (after - before + 3 * (start - stop)) / 2
    return curve.reshape(-1, 2)
