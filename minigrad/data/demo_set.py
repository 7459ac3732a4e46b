"""The embedded demo set: ten classes of rendered pictures in the layout of ILSVRC.

Nobody has ImageNet at hand when they first try a framework, so `make_demo_set` paints a small stand-in: textures
(bricks, marble, ...) and shapes (balls, stars, ...), as JPEG files

    ROOT/train/<class>/<class>_00000.JPEG
    ROOT/val/<class>/<class>_00000.JPEG

that go through the same decoding, resizing and cropping as the real thing. Pictures of one class share a
structure and nothing else: size, aspect, position, scale, rotation, perspective, colours, light and grain are drawn
at random for each, and light on dark is as likely as dark on light. A linear classifier on pixels therefore gets
almost nowhere (`benchmarks/linear_baseline.py` measures it), while a convolutional network learns the set.

Every picture has its own random generator, seeded by (seed, split, class, index): picture i is the same however many
others are rendered, in whatever order. The same seed gives the same bytes under the same NumPy and Pillow.

How it is organised: a `Scene` holds the helpers that all classes share (coordinates, noise, colours); each class is
one small function from a scene to an RGB array; `render` picks the size, calls it and adds light and grain.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from minigrad.base import files
from minigrad.errors import DataError, printable

__all__ = ["CLASSES", "make_demo_set", "render"]

VERSION = 1  # raise it whenever the pictures change: sets made by an older version are then rendered anew
RECORD = "demo_set.json"  # marks a folder as ours, and says with which parameters it was made
MAKER = "minigrad.data.demo_set"
SPLITS = ("train", "val")
PICTURE = re.compile(r"(train|val)/([a-z]+)/\2_\d{5,}\.JPEG")  # how the path of a picture below the root looks


# ---- Helpers shared by the classes -------------------------------------------------------------------------


def cover(distance: np.ndarray, pixel: float) -> np.ndarray:
    """Antialiased coverage of the region distance > 0: 0 outside, 1 inside, a ramp one `pixel` wide between."""
    return np.clip(distance / pixel + 0.5, 0, 1)


def zigzag(t: np.ndarray) -> np.ndarray:
    """Triangle wave of period 1 between 0 (at integers) and 0.5 (halfway): the distance to the nearest integer."""
    return np.abs(t - np.rint(t))


def mix(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Paint colour (or picture) `above` over `below` with opacity `mask` (height, width)."""
    return below + (above - below) * mask[..., None]


def luminance(colour: np.ndarray) -> float:
    """Perceived brightness of an RGB colour."""
    return float(colour @ np.array([0.3, 0.59, 0.11], np.float32))


class Scene:
    """One picture in the making: its size, its random generator, and the tools to draw with.

    Lengths are fractions of the shorter side, so a picture looks the same at any size.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int):
        self.rng = rng
        self.height, self.width = height, width
        self.short = min(height, width)
        # Coordinates of the pixels: the shorter side runs from -0.5 to 0.5.
        x = (np.arange(width, dtype=np.float32) - width / 2) / self.short
        y = (np.arange(height, dtype=np.float32) - height / 2) / self.short
        self.x, self.y = np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def plane(
        self, period: tuple[float, float], tilt: float = 0.5, bend: float = 0.0, centred: bool = False
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Coordinates on a randomly turned, shifted, tilted (perspective) and bent sheet.

        Returns (x, y, pixel), where a length of 1 is one period of the pattern, drawn log-uniformly from the range
        `period`, and `pixel` is the size of a pixel in those units. `centred`: the origin is inside the picture.
        """
        size = math.exp(self.uniform(math.log(period[0]), math.log(period[1])))
        angle = self.uniform(0, 2 * math.pi)
        shift = self.rng.uniform(-0.25, 0.25, 2) if centred else self.rng.uniform(-20, 20, 2)
        x, y = self.x, self.y
        if centred:
            x, y = x + float(shift[0]), y + float(shift[1])
        if bend:
            x = x + bend * size * self.noise(2.5)
            y = y + bend * size * self.noise(2.5)
        depth = 1 + self.uniform(-tilt, tilt) * x + self.uniform(-tilt, tilt) * y  # perspective: far parts shrink
        cos, sin = math.cos(angle) / size, math.sin(angle) / size
        across, along = (cos * x + sin * y) / depth, (cos * y - sin * x) / depth
        if not centred:
            across, along = across + float(shift[0]), along + float(shift[1])
        return across, along, 1.4 / (self.short * size)

    def noise(self, cells: float, octaves: int = 1) -> np.ndarray:
        """Smooth random field, about -1..1, with blobs 1/`cells` of the shorter side wide; octaves add finer ones."""
        total = np.zeros((self.height, self.width), np.float32)
        for octave in range(octaves):
            rows = math.ceil(cells * 2**octave * self.height / self.short) + 1
            columns = math.ceil(cells * 2**octave * self.width / self.short) + 1
            knots = self.rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
            smooth = Image.fromarray(knots).resize((self.width, self.height), Image.Resampling.BICUBIC)
            total += np.asarray(smooth) * 0.55**octave
        return total

    def colour(self) -> np.ndarray:
        """A random colour, any hue, seldom garish."""
        hue, saturation, value = self.uniform(0, 6), self.uniform(0.1, 0.8), self.uniform(0.2, 1)
        wheel = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)  # the pure hue, as in HSV
        return (value * (1 - saturation + saturation * wheel)).astype(np.float32)

    def colours(self, count: int = 2, contrast: float = 0.3) -> list[np.ndarray]:
        """Random colours; the others differ from the first in luminance by `contrast` or more, either way."""
        while True:
            first, *others = colours = [self.colour() for _ in range(count)]
            if all(abs(luminance(other) - luminance(first)) >= contrast for other in others):
                return colours

    def shades(self, colour: np.ndarray, cells: tuple[np.ndarray, np.ndarray], amount: float) -> np.ndarray:
        """A picture in `colour` in which every cell (given by arrays of its row and column) has its own brightness."""
        table = self.rng.uniform(1 - amount, 1 + amount, (32, 32)).astype(np.float32)
        rows, columns = (cell.astype(np.int32) % 32 for cell in cells)
        return colour * table[rows, columns][..., None]

    def backdrop(self, colour: np.ndarray) -> np.ndarray:
        """A softly varying background about `colour`."""
        return colour * (1 + self.uniform(0.05, 0.35) * self.noise(1.5))[..., None]

    def patches(self, spacing: float, radius: tuple[float, float]) -> Iterator[tuple]:
        """Random places for a shape, one in each cell of a grid `spacing` wide, in random order.

        Yields the slices of a bounding box, x and y inside it in units of the shape's radius (which is drawn from the
        range `radius`), and the size of a pixel in those units.
        """
        rows, columns = (max(round(side / self.short / spacing), 1) for side in (self.height, self.width))
        for cell in self.rng.permutation(rows * columns):
            size = self.uniform(*radius) * self.short
            centre_y = (cell // columns + self.uniform(0, 1)) * self.height / rows
            centre_x = (cell % columns + self.uniform(0, 1)) * self.width / columns
            top, left = max(int(centre_y - size) - 1, 0), max(int(centre_x - size) - 1, 0)
            bottom, right = (
                min(int(centre_y + size) + 2, self.height),
                min(int(centre_x + size) + 2, self.width),
            )
            y, x = np.ogrid[top:bottom, left:right]
            x, y = ((x - centre_x) / size).astype(np.float32), ((y - centre_y) / size).astype(np.float32)
            yield (slice(top, bottom), slice(left, right)), x, y, 1.4 / size


# ---- The ten classes ---------------------------------------------------------------------------------------


def balls(scene: Scene) -> np.ndarray:
    """Shaded spheres with a highlight, lit from one direction, in front of a plain background."""
    picture = scene.backdrop(scene.colour())
    light = np.array([scene.uniform(-0.7, 0.7), scene.uniform(-0.8, 0.1), 0.8])
    light /= np.linalg.norm(light)
    for box, x, y, pixel in scene.patches(scene.uniform(0.25, 0.45), (0.1, 0.2)):
        distance = np.sqrt(x * x + y * y)
        facing = light[0] * x + light[1] * y + light[2] * np.sqrt(np.maximum(1 - distance * distance, 0))
        facing = np.maximum(facing, 0).astype(np.float32)
        ball = scene.colour() * (0.25 + 0.85 * facing)[..., None] + 0.7 * (facing**40)[..., None]
        picture[box] = mix(picture[box], ball, cover(1 - distance, pixel))
    return picture


def bricks(scene: Scene) -> np.ndarray:
    """A wall in running bond: every second course is shifted by half a brick."""
    x, y, pixel = scene.plane((0.09, 0.17), bend=0.1)
    course = np.floor(y)
    x = x / scene.uniform(1.9, 2.5) + 0.5 * (course % 2)
    edge = np.minimum(2 * zigzag(x), zigzag(y))
    mortar, brick = scene.colours()
    face = scene.shades(brick, (course, np.floor(x)), 0.2)
    return mix(mortar, face, cover(edge - scene.uniform(0.06, 0.1), pixel))


def checkers(scene: Scene) -> np.ndarray:
    """A chessboard."""
    x, y, pixel = scene.plane((0.16, 0.4), bend=0.1)
    column, row = (np.clip((zigzag(t) - 0.25) / pixel, -0.5, 0.5) for t in (x, y))  # change sign between squares
    dark, light = scene.colours()
    return mix(dark, light, 0.5 + 2 * column * row)


def clouds(scene: Scene) -> np.ndarray:
    """Soft billows without any edge."""
    sky, cloud = scene.colours()
    billows = scene.noise(scene.uniform(2, 4), octaves=5)
    return mix(scene.backdrop(sky), cloud, np.clip(0.5 + scene.uniform(0.6, 1.0) * billows, 0, 1))


def honeycomb(scene: Scene) -> np.ndarray:
    """Hexagonal cells with walls between them."""
    x, y, pixel = scene.plane((0.12, 0.25), bend=0.1)
    tall = math.sqrt(3)
    edge, row, column = np.full_like(x, -1), np.zeros_like(x), np.zeros_like(x)
    for shift in (0.0, 0.5):  # the centres form two rectangular lattices: the nearer centre wins
        i, j = np.rint(y / tall - shift), np.rint(x - shift)
        dx, dy = np.abs(x - shift - j), np.abs(y - tall * (shift + i))
        inside = 0.5 - np.maximum(dx, 0.5 * (dx + tall * dy))  # distance to the nearest of the six sides
        nearer = inside > edge
        edge[nearer], row[nearer], column[nearer] = inside[nearer], 2 * i[nearer] + 2 * shift, j[nearer]
    wall, wax = scene.colours()
    return mix(wall, scene.shades(wax, (row, column), 0.15), cover(edge - scene.uniform(0.05, 0.1), pixel))


def marble(scene: Scene) -> np.ndarray:
    """Polished stone with thin, turbulent veins."""
    x, _, _ = scene.plane((0.25, 0.5))
    turbulence = scene.noise(2.5, octaves=5)
    veins = 1 - 2 * zigzag(x + scene.uniform(0.7, 1.1) * turbulence)
    stone, vein = scene.colours()
    return mix(scene.backdrop(stone), vein, np.clip(veins, 0, 1) ** scene.uniform(4, 8))


def rings(scene: Scene) -> np.ndarray:
    """Concentric circles about a point inside the picture."""
    x, y, pixel = scene.plane((0.09, 0.2), bend=0.1, centred=True)
    radius = np.sqrt(x * x + y * y)
    first, second = scene.colours()
    return mix(first, second, cover(zigzag(radius) - scene.uniform(0.18, 0.32), pixel))


def stars(scene: Scene) -> np.ndarray:
    """Five-pointed stars in front of a plain background."""
    background, *paints = scene.colours(4)
    picture = scene.backdrop(background)
    for box, x, y, pixel in scene.patches(scene.uniform(0.25, 0.4), (0.1, 0.2)):
        sector = 2 * math.pi / 5
        angle = np.arctan2(y, x) + scene.uniform(0, sector)
        angle = np.abs(angle - sector * np.rint(angle / sector))  # fold the star onto half of one of its points
        radius = np.sqrt(x * x + y * y)
        along, across = radius * np.cos(angle), radius * np.sin(angle)
        # The side of a point runs from the tip (1, 0) to the notch at 0.42 of the radius and half a sector away.
        notch_x, notch_y = 0.42 * math.cos(sector / 2), 0.42 * math.sin(sector / 2)
        inside = ((1 - along) * notch_y - across * (1 - notch_x)) / math.hypot(notch_y, 1 - notch_x)
        paint = paints[scene.rng.integers(len(paints))]
        picture[box] = mix(picture[box], paint, cover(inside, pixel))
    return picture


def stripes(scene: Scene) -> np.ndarray:
    """Straight parallel bands."""
    x, _, pixel = scene.plane((0.08, 0.22), bend=0.15)
    first, second = scene.colours()
    return mix(first, second, cover(zigzag(x) - scene.uniform(0.15, 0.35), pixel))


def tartan(scene: Scene) -> np.ndarray:
    """Woven cloth: the same sequence of coloured bands lengthwise and crosswise."""
    x, y, _ = scene.plane((0.3, 0.6), bend=0.05)
    ground, *bands = scene.colours(4)
    sett = np.tile(ground, (256, 1))  # the colours along one period
    for band in bands:
        start, width = scene.rng.integers(0, 200), scene.rng.integers(12, 50)
        sett[start : start + width] = band
    warp, weft = (sett[(t * 256).astype(np.int32) % 256] for t in (x, y))
    return mix(warp, weft, 0.5 + 0.15 * np.sin(2 * math.pi * 14 * (x + y)))  # with the diagonal lines of twill


PAINTERS: dict[str, Callable[[Scene], np.ndarray]] = {
    painter.__name__: painter
    for painter in (balls, bricks, checkers, clouds, honeycomb, marble, rings, stars, stripes, tartan)
}
CLASSES: tuple[str, ...] = tuple(PAINTERS)


# ---- Pictures and files ------------------------------------------------------------------------------------


def render(name: str, rng: np.random.Generator) -> Image.Image:
    """Paint one picture of class `name`: shorter side 180 to 320 pixels, longer side up to 1.5 times that."""
    short = int(rng.integers(180, 321))
    long = int(short * rng.uniform(1, 1.5))
    height, width = (short, long) if rng.random() < 0.5 else (long, short)
    scene = Scene(rng, height, width)
    picture = PAINTERS[name](scene)
    slope = scene.uniform(-0.4, 0.4) * scene.x + scene.uniform(-0.4, 0.4) * scene.y  # light from one side
    vignette = scene.uniform(0, 0.4) * (scene.x**2 + scene.y**2)
    light = scene.uniform(0.75, 1.15) * (1 + slope - vignette)
    grain = scene.uniform(0, 0.04) * rng.standard_normal((height, width), dtype=np.float32)
    picture = picture * light[..., None] + grain[..., None]
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def make_demo_set(
    root: str | os.PathLike,
    train_per_class: int = 200,
    val_per_class: int = 30,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render the demo set into the folder `root`, unless it is there already, and return its path.

    progress: called as progress(done, total) after each picture.

    The pictures are rendered into a temporary folder beside `root` that takes its name at the very end, so an
    interrupted run leaves no half-made set behind, and what a killed run has left is removed by the next that renders.
    A set made earlier with the same parameters is used as it is, one made with others is replaced. Any other folder
    with something in it raises DataError and stays untouched; so does a place that cannot be written.
    """
    if train_per_class < 1 or val_per_class < 1:
        raise DataError(
            f"make_demo_set: each split needs at least one picture per class, got train_per_class={train_per_class}, "
            f"val_per_class={val_per_class}"
        )
    root = Path(root)
    counts = {"train": train_per_class, "val": val_per_class}
    record = {"made_by": MAKER, "version": VERSION, "seed": seed, "per_class": counts}
    try:
        if _check_ours(root) == record and _is_complete(root, counts):
            return root
        root.parent.mkdir(parents=True, exist_ok=True)
        with files.scratch_folder(root, rf"\.{re.escape(root.name)}-[a-z0-9_]{{8}}") as scratch:
            fresh = scratch / "new"
            _render_all(fresh, counts, seed, progress)
            (fresh / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            _check_ours(root)  # again: somebody may have put something there in the meantime
            if root.exists():
                os.replace(root, scratch / "old")
            os.replace(fresh, root)
    except OSError as error:
        raise DataError(f"make_demo_set: cannot write {printable(root)}: {files.reason(error)}") from error
    return root


def _check_ours(root: Path) -> dict | None:
    """The record of the set in `root`; None if there is nothing yet; DataError if it holds anything not made here."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
        names = (path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
        if record["made_by"] == MAKER and all(name == RECORD or PICTURE.fullmatch(name) for name in names):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no record, or not one that we wrote
    raise DataError(
        f"make_demo_set: {printable(root)} exists and is not a demo set, or holds other files too, so it is left as it "
        f"is. Choose another folder, or empty this one yourself."
    )


def _is_complete(root: Path, counts: dict[str, int]) -> bool:
    """Whether every class folder holds as many files as it should; empty ones, as a power cut leaves, do not count."""
    folders = ((root / split / name, count) for split, count in counts.items() for name in CLASSES)
    return all(
        folder.is_dir() and sum(1 for path in folder.iterdir() if path.stat().st_size) == count
        for folder, count in folders
    )


def _render_all(root: Path, counts: dict[str, int], seed: int, progress: Callable[[int, int], None] | None) -> None:
    """Render all pictures, in a pool of threads: NumPy and Pillow release the interpreter lock while they work."""
    jobs = [
        (split, label, index)
        for split, count in counts.items()
        for label in range(len(CLASSES))
        for index in range(count)
    ]
    for split in counts:
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)

    def work(job: tuple[str, int, int]) -> None:
        split, label, index = job
        name = CLASSES[label]
        rng = np.random.default_rng([seed, SPLITS.index(split), label, index])
        render(name, rng).save(root / split / name / f"{name}_{index:05d}.JPEG", quality=90)

    pool = ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8))
    try:
        for done, _ in enumerate(pool.map(work, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)
