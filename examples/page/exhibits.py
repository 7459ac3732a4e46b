"""The pictures of a page: which pictures of the dataset are shown, what the net says of them, and conv1's kernels."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from figures import added, moved_by, sheet
from PIL import Image
from trained import Trained, readable

from .curves import rounded

SHOWN, ASKED, POOL, NEAR = 8, 5, 400, 6  # pictures shown, of them with neighbours, looked through for them, neighbours
LOTS = 10 * POOL  # places drawn by lot


class Exhibits:
    """Pictures of a run, drawn by lot from its seed, so that every page of the run shows the same ones.

    What the net says of them is asked once; forget() is for after the net has learned more.
    """

    def __init__(self, net: Trained, train_set: Any, val_set: Any, seed: int):
        self.net, self.train_set, self.val_set = net, train_set, val_set
        random = np.random.default_rng(seed)
        # more than are shown, because files may be broken; a copy, or all of a million places would be kept
        self._held_out, self._pool = (random.permutation(len(each))[:LOTS].copy() for each in (val_set, train_set))
        self.names = net.names
        self.looked_through = 0  # training pictures among which neighbours were sought
        self._found: dict[str, Any] = {}

    def forget(self) -> None:
        self._found = {name: value for name, value in self._found.items() if name == "held_out"}

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        if name not in self._found:
            self._found[name] = find()
        return self._found[name]

    def held_out(self) -> tuple[list[np.ndarray], list[int]]:
        """(pictures uint8 (256, 256, 3), their classes)"""

        def find() -> tuple[list[np.ndarray], list[int]]:
            found = readable(self.val_set, self._held_out, SHOWN)
            return [image for _, image in found], [int(self.val_set.labels[i]) for i, _ in found]

        return self._once("held_out", find)

    def probabilities(self) -> np.ndarray:
        """Of the pictures held out, with ten views: float64 (N, classes)."""
        return self._once("probabilities", lambda: self.net.probabilities(self.held_out()[0]))

    def neighbours(self) -> dict[str, list[list[tuple[np.ndarray, int]]]]:
        """For each of a few pictures held out, the training pictures nearest to it, and their classes, nearest first.

        "fc7": by the distance of the last hidden layer's activations (Figure 4); "pixels": by that of the pictures
        themselves, as bytes.  Both are Euclidean, among the same training pictures.
        """

        def find() -> dict[str, list[list[tuple[np.ndarray, int]]]]:
            images, pool = self.held_out()[0][:ASKED], readable(self.train_set, self._pool, POOL)
            self.looked_through = len(pool)
            there, here = self.net.features([image for _, image in pool]), self.net.features(images)
            in_fc7 = [((there - feature) ** 2).sum(1) for feature in here]
            in_pixels = [np.array([_distance(image, other) for _, other in pool]) for image in images]
            return {"fc7": [_nearest(d, pool, self.train_set) for d in in_fc7],
                    "pixels": [_nearest(d, pool, self.train_set) for d in in_pixels]}  # fmt: skip

        return self._once("neighbours", find)


def _distance(a: np.ndarray, b: np.ndarray) -> int:
    difference = np.subtract(a, b, dtype=np.int32)
    return int(np.einsum("i,i->", difference.ravel(), difference.ravel(), dtype=np.int64))


def _nearest(distances: np.ndarray, pool: list[tuple[int, np.ndarray]], images: Any) -> list[tuple[np.ndarray, int]]:
    return [(pool[j][1], int(images.labels[pool[j][0]])) for j in np.argsort(distances, kind="stable")[:NEAR]]


# ---------------------------------------------------------------- as a page's data


def predictions_data(exhibits: Exhibits, views: int) -> dict[str, Any]:
    """The five likeliest classes of each picture, with ten views or one of it."""
    (images, labels), names = exhibits.held_out(), exhibits.names
    p = exhibits.probabilities() if views == 10 else exhibits.net.probabilities(images, ten=False)
    entries = []
    for image, label, shares in zip(images, labels, p):
        best = np.argsort(-shares, kind="stable")[:5]
        entries.append(
            {"image": jpeg(image, 200), "class": names[label], "best": [[names[k], float(shares[k])] for k in best]}
        )
    return {"views": views, "pictures": rounded(entries)}


def neighbours_data(exhibits: Exhibits) -> dict[str, Any]:
    (images, labels), names = exhibits.held_out(), exhibits.names
    found = exhibits.neighbours()
    rows = [
        {"image": jpeg(image, 96), "class": names[label]}
        | {space: [{"image": jpeg(near, 96), "class": names[k]} for near, k in found[space][i]] for space in found}
        for i, (image, label) in enumerate(zip(images[:ASKED], labels))
    ]
    # how many of the neighbours are of the picture's own class, in each space
    right = {space: sum(near["class"] == row["class"] for row in rows for near in row[space]) for space in found}
    of = sum(len(row["fc7"]) for row in rows)
    return {"rows": rows, "right": right, "of": of, "pool": exhibits.looked_through}


def kernels_data(weight: np.ndarray, before: np.ndarray | None, columns: int = 2) -> dict[str, Any]:
    """conv1's kernels (O, 3, h, w) by column, what training added to them, and how coloured each kernel is.

    before: the first weights, where they are known.  What training added is left out where it is too little to be told
    from rounding; see figures.MOVED.
    """
    moved, learned = (None, None) if before is None else (moved_by(weight, before), added(weight, before))
    count = columns if len(weight) % columns == 0 else 1
    parts = []
    for i, now in enumerate(np.split(weight, count)):
        shares = colour_shares(now)
        parts.append(
            {"kernels": png(sheet(now)), "shares": np.sort(shares), "colour": shares.mean(), "count": len(now)}
        )
        if learned is not None:
            own = np.split(learned, count)[i]
            shares = colour_shares(own)
            parts[-1] |= {"added": png(sheet(own)), "added_shares": np.sort(shares), "added_colour": shares.mean()}
    data = {"columns": parts, "moved": moved, "first_colour": None if before is None else colour_shares(before).mean()}
    if count == 2:
        for key, apart in (("colour", "apart"), ("added_colour", "added_apart")):
            data[apart] = abs(parts[0][key] - parts[1][key]) if key in parts[0] else None
    return rounded(data)


def colour_shares(kernels: np.ndarray) -> np.ndarray:
    """How coloured each kernel is, float64 (O,), from 0 to 1, of kernels (O, 3, h, w).

    A kernel is the sum of a grey one, which has the mean of the three channels' weights in each of them, and of a rest
    whose channels add up to 0 at every pixel.  The two are orthogonal, so their energies (sums of squares) add up to
    the kernel's.  The share is that of the rest: 0 for a kernel that sees brightness alone, 1 for one that sees
    differences of colour alone.  Independent random weights have 2/3, as the rest has two of three dimensions.

    The measure is ours.  In Figure 3 of the paper the kernels of one GPU are "largely color-agnostic", those of the
    other "largely color-specific": the columns' means then lie far apart.  A kernel of zeros has 0.
    """
    kernels = kernels.astype(np.float64)
    energy = (kernels**2).sum((1, 2, 3))
    grey = kernels.shape[1] * (kernels.mean(1) ** 2).sum((1, 2))
    return np.clip(1 - grey / np.where(energy, energy, 1), 0, 1) * (energy > 0)


def jpeg(image: np.ndarray, side: int) -> str:
    """A picture uint8 (H, W, C) as the address of an image that is written into the page."""
    pixels = image[..., 0] if image.shape[-1] == 1 else image[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side), Image.Resampling.BILINEAR)
    return _address(picture, "jpeg", quality=80)


def png(pixels: np.ndarray) -> str:
    """Pixels float (H, W, 4) from 0 to 1 as the address of an image."""
    return _address(Image.fromarray((pixels * 255 + 0.5).astype(np.uint8), "RGBA"), "png")


def _address(picture: Image.Image, kind: str, **options: Any) -> str:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
