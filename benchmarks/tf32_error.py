"""How wrong are TF32 products?  Sums as deep as AlexNet's, by matrix units and in float32, beside float64.

    python benchmarks/tf32_error.py [--save]

No card is needed: the emulator multiplies (kernels/gemm.cu, with and without TF32=1).  Of each layer's products it
makes 32 x 128 numbers, from factors of the layer's full depth.  The emulator rounds the factors as a card does, and
adds in float32, each time to the nearest; a card's sums may differ in their last bits.
"""

from __future__ import annotations

import argparse

import numpy as np
from peers import environment, header, report, row

import minigrad
import minigrad.functional as F
from minigrad import Tensor

BATCH, ROWS, COLUMNS = 128, 32, 128
BOUND = 2 * 2.0**-11  # of a product, relative: half of the last of 10 bits for each factor

CONVOLUTIONS = {  # channels of a group in and out, kernel, pixels of y in one image
    "conv1": (3, 96, 11, 55 * 55),
    "conv2": (48, 128, 5, 27 * 27),
    "conv3": (256, 384, 3, 13 * 13),
    "conv4": (192, 192, 3, 13 * 13),
    "conv5": (192, 128, 3, 13 * 13),
}
LINEAR = {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}  # numbers in and out
STRIDES = {"conv1": 4}


def depths() -> dict[tuple[str, int], list[str]]:
    """How many products a sum of y, dx or dw has, and the layers where it has as many."""
    found: dict[tuple[str, int], list[str]] = {}
    for name, (into, out, kernel, pixels) in CONVOLUTIONS.items():
        taps_back = -(-kernel // STRIDES.get(name, 1))  # along one axis, of the most that a pixel of dx takes
        for sums in (("y", into * kernel**2), ("dx", out * taps_back**2), ("dw", BATCH * pixels)):
            found.setdefault(sums, []).append(name)
    for name, (into, out) in LINEAR.items():
        for sums in (("y", into), ("dx", out), ("dw", BATCH)):
            found.setdefault(sums, []).append(name)
    return found


def factors(random: np.random.Generator, result: str, depth: int, after_relu: bool) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal numbers.  After a ReLU, x is never negative, and half of it and of dy are zeros."""
    a, b = (random.standard_normal(shape, np.float32) for shape in ((ROWS, depth), (depth, COLUMNS)))
    if after_relu:
        if result in ("y", "dw"):
            b = np.maximum(b, 0)  # x
        if result in ("dx", "dw"):
            a *= random.random(a.shape, np.float32) < 0.5  # dy
    return a, b


def errors(a: np.ndarray, b: np.ndarray, tf32: bool) -> tuple[float, float, float]:
    """Of the emulator's product: rms error / rms, largest error / largest number, largest error / its bound."""
    exact = a.astype(np.float64) @ b
    minigrad.allow_tf32(tf32)
    try:
        result = F.matmul(Tensor(a, device="cudasim:0"), Tensor(b, device="cudasim:0")).numpy()
    finally:
        minigrad.allow_tf32(False)
    wrong, bound = np.abs(result - exact), BOUND * (np.abs(a).astype(np.float64) @ np.abs(b))
    rms = np.sqrt((wrong**2).mean() / (exact**2).mean())
    return float(rms), float(wrong.max() / np.abs(exact).max()), float((wrong / bound).max())


def lines() -> list[str]:
    rows = []
    for (result, depth), layers in depths().items():
        for after_relu in (False, True):
            a, b = factors(np.random.default_rng([depth, after_relu]), result, depth, after_relu)
            cells = [f"{part:.1e}" for tf32 in (True, False) for part in errors(a, b, tf32)]
            name, kind = f"{result} of {', '.join(layers)}", "after ReLU" if after_relu else "normal"
            rows.append(row(name, f"{depth:,}", kind, *cells))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--save", action="store_true", help="write what is printed to benchmarks/results/")
    asked = parser.parse_args()
    minigrad.device("cudasim:0").runtime  # noqa: B018  (or an error that says what is missing)
    text = [
        "# How wrong TF32 products are",
        "",
        environment("numpy"),
        "",
        "Executed on the CPU emulator, not yet run on hardware.  Sums of as many products as AlexNet's layers have at",
        f"batch {BATCH}, {ROWS} x {COLUMNS} of them each, beside the same in float64.  Factors: standard normal",
        "numbers; or, after ReLU, with half of x and of dy zero and no x negative.  TF32: factors rounded to 10 bits",
        "of mantissa, sums in float32.  RMS: the root mean square error as a part of the numbers' own; largest: the",
        "largest error as a part of the largest number; of the bound: the error as a part of what it can be, which is",
        "each factor wrong by 2^-11 of itself, and all to the same side.",
        "",
        *header(
            "",
            "depth",
            "factors",
            "TF32: RMS",
            "largest",
            "of the bound",
            "float32: RMS",
            "largest",
            "of TF32's bound",
        ),
        *lines(),
    ]
    report("tf32_error", text, asked.save)


if __name__ == "__main__":
    main()
