"""How far a linear classifier on pixels gets on the demo set: the bar that shows the set needs a convolutional network.

    python benchmarks/linear_baseline.py [--root FOLDER] [--seed 0]

Each picture is prepared as for AlexNet (shorter side scaled, centre cropped) but at 32 x 32 and 64 x 64 pixels. Softmax
regression with L2 regularisation is trained to convergence on the standardised RGB pixels of the training pictures and
their mirror images, at several strengths of regularisation. The best of them is picked **on the validation pictures**,
which flatters the baseline. NumPy and Pillow only.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from minigrad.data.demo_set import CLASSES, make_demo_set

STRENGTHS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)  # of the L2 penalty, from strong to weak


def load_split(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """All pictures of one split as a float32 array (count, size * size * 3), and their labels."""
    files = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / name).iterdir())]

    def load(path: Path) -> np.ndarray:
        with Image.open(path) as picture:
            picture = picture.convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        return np.asarray(square.resize((size, size), Image.Resampling.BOX), np.float32)

    with ThreadPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(load, [path for path, _ in files])))
    return pixels, np.array([label for _, label in files])


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fit(gram: np.ndarray, targets: np.ndarray, strength: float, start: np.ndarray) -> tuple[np.ndarray, int, float]:
    """Train softmax regression with L2 penalty `strength` / 2 |W|^2 by accelerated gradient descent.

    There are more pixels than pictures, so the weights are kept as W = X^T A (the optimum has that form): `gram` is
    X X^T, the logits are gram @ A, and the gradient with respect to W is X^T ((softmax - targets) / n + strength A).
    Returns A, the number of steps, and n times the largest entry of the last bracket, which is 0 at the optimum.
    """
    count = len(gram)
    vector = np.ones(count, np.float32)
    for _ in range(10):  # power iteration: the largest eigenvalue bounds the curvature
        vector = gram @ vector
        vector /= np.linalg.norm(vector)
    rate = 1 / (0.5 * float(vector @ gram @ vector) / count + strength)
    weights, ahead, momentum = start, start, 1.0
    steps = 0
    while steps < 500:
        steps += 1
        residual = (softmax(gram @ ahead) - targets) / count + strength * ahead
        error = count * float(np.abs(residual).max())
        if error < 0.01:
            break
        moved = ahead - rate * residual
        if np.vdot(residual, moved - weights) > 0:  # going uphill: restart the acceleration
            momentum = 1.0
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = moved + np.float32((momentum - 1) / faster) * (moved - weights)
        weights, momentum = moved, faster
    return weights, steps, error


def measure(root: Path, size: int) -> float:
    """Print the accuracies at every strength for pictures of size x size pixels; return the best validation figure."""
    train, train_labels = load_split(root / "train", size)
    val, val_labels = load_split(root / "val", size)
    train, train_labels = np.concatenate([train, train[:, :, ::-1]]), np.tile(train_labels, 2)
    train, val = train.reshape(len(train), -1), val.reshape(len(val), -1)
    mean, spread = train.mean(axis=0), train.std(axis=0)
    # Scaled so that a picture's features have a mean square of 1; the constant feature is the bias.
    train, val = ((pixels - mean) / spread / np.sqrt(train.shape[1]) for pixels in (train, val))
    gram, val_gram = train @ train.T + 1, val @ train.T + 1
    targets = np.eye(len(CLASSES), dtype=np.float32)[train_labels]

    print(f"{size} x {size} pixels, {len(train)} training pictures (half of them mirrored), {len(val)} held out")
    best, weights = 0.0, np.zeros_like(targets)
    for strength in STRENGTHS:
        start = time.perf_counter()
        weights, steps, error = fit(gram, targets, strength, weights)  # from the solution before: a short way
        if not np.isfinite(weights).all():  # argmax would take NaN for an answer
            raise SystemExit(f"L2 {strength:g}: the weights are not finite after {steps} steps")
        right = np.mean((gram @ weights).argmax(axis=1) == train_labels)
        held_out = float(np.mean((val_gram @ weights).argmax(axis=1) == val_labels))
        best = max(best, held_out)
        print(
            f"  L2 {strength:<6g}: training {right:6.1%}, held out {held_out:6.1%} top-1"
            f"   ({steps} steps, residual {error:.3f}, {time.perf_counter() - start:.1f} s)",
            flush=True,
        )
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of the demo set; default: a temporary one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo set (default 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = make_demo_set(options.root or Path(scratch) / "demo", seed=options.seed)
        best = {size: measure(root, size) for size in (32, 64)}
    for size, accuracy in best.items():
        print(f"linear classifier on {size} x {size} RGB pixels: {accuracy:.1%} top-1 at best (chance 10.0%)")


if __name__ == "__main__":
    main()
