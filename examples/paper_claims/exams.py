"""What else is measured of a trained net, besides its curve: by the names that an arm has in `measured`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from page.exhibits import colour_shares
from scoring import evaluate

import minigrad

from .pictures import Pictures, test_loader
from .setups import Setup

QUERIES = 500  # pictures held out whose neighbours are looked for
NEAR = 6  # as many are in a row of Figure 4
FIRST_STEPS = 1000  # whose losses are kept


def ten_views(net: Any, setup: Setup, pictures: Pictures, log: Any, first: np.ndarray, device: str) -> dict[str, Any]:
    """Errors with the paper's ten views, four corners, centre and their mirror images, and with the centre alone."""
    one, ten = (
        evaluate(net, test_loader(pictures.held_out, pictures, setup, ten=many), device) for many in (False, True)
    )
    return {"one": [1 - one.top1, 1 - one.top5], "ten": [1 - ten.top1, 1 - ten.top5]}


def colour(net: Any, setup: Setup, pictures: Pictures, log: Any, first: np.ndarray, device: str) -> dict[str, Any]:
    """How coloured each of conv1's kernels is (see colour_shares), in their order, and what training added to each."""
    now = net.kernels()
    return {"kernels": colour_shares(now), "added": colour_shares(now - first), "moved": moved(now, first)}


def moved(now: np.ndarray, first: np.ndarray) -> float:
    """The length of what training has added, relative to that of the first kernels."""
    return float(np.sqrt(((now - first) ** 2).sum() / (first**2).sum()))


def neighbours(net: Any, setup: Setup, pictures: Pictures, log: Any, first: np.ndarray, device: str) -> dict[str, Any]:
    """The share of the six nearest training pictures that are of the class of a picture held out, on average: by the
    activations of the last hidden layer, and by the pixels themselves.  Both are Euclidean distances."""
    count = min(QUERIES, len(pictures.held_out))
    chosen = np.arange(count) * len(pictures.held_out) // count
    shares = {"queries": count, "pool": len(pictures.train)}
    queries, labels = pictures.held_out.images[chosen], pictures.held_out.labels[chosen]
    pool = pictures.train.images
    spaces = {
        "pixels": (queries.reshape(count, -1), pool.reshape(len(pool), -1)),
        "fc7": tuple(features(net, images, pictures, setup, device) for images in (queries, pool)),
    }
    for name, (here, there) in spaces.items():
        near = nearest(here, there)
        shares[name] = float((pictures.train.labels[near] == labels[:, None]).mean())
    return shares


def nearest(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The numbers of the rows of `there` nearest to each row of `here`, int64 (len(here), NEAR)."""
    there = there.astype(np.float32)
    squares = np.einsum("ij,ij->i", there, there, dtype=np.float64)
    found = []
    for part in np.array_split(here, max(1, len(here) // 100)):
        distances = squares - 2 * (part.astype(np.float32) @ there.T)  # + what is the same for all of a row
        found.append(np.argsort(distances, axis=1, kind="stable")[:, :NEAR])
    return np.concatenate(found)


def features(net: Any, images: np.ndarray, pictures: Pictures, setup: Setup, device: str) -> np.ndarray:
    """fc7's activations, of both columns, float32 (N, neurons)."""
    net.eval()
    view = test_loader(pictures.held_out, pictures, setup).transform
    parts = []
    with minigrad.no_grad():
        for part in np.array_split(images, max(1, len(images) // 100)):
            x = np.stack([view(image) for image in part]).transpose(0, 3, 1, 2)
            halves = net.features(minigrad.Tensor(x, device=device))
            parts.append(np.concatenate([half.numpy() for half in halves], axis=1))
    return np.concatenate(parts)


def first_losses(net: Any, setup: Setup, pictures: Pictures, log: Any, first: np.ndarray, device: str) -> list[float]:
    """The loss of every one of the first steps."""
    return [float(loss) for loss in log.column("train", "loss")[:FIRST_STEPS]]


EXAMS: dict[str, Callable[..., Any]] = {
    "ten views": ten_views, "colour": colour, "neighbours": neighbours, "first losses": first_losses,
}  # fmt: skip
