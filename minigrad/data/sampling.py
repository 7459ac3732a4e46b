"""In which order an epoch takes the items of a dataset, and the seeds of everything random in this package.

A sampler is a pure function of (seed, epoch), so that a Loader can begin anywhere in any epoch: `len(sampler)` indices
in the order `sampler(seed, epoch)`, integers (K,).  An index may come several times, or not at all.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.base.arguments import flag, integer
from minigrad.errors import ArgumentError

# First word of every seed, because SeedSequence takes [s, e] and [s, e, 0] for the same: without it, image 0
# would be augmented by the very numbers that shuffled its epoch.
SHUFFLE, AUGMENT, WEIGHTED, SPLIT = 1, 2, 3, 4


def generator(purpose: int, *numbers: int) -> np.random.Generator:
    """The generator for one of these purposes that belongs to (seed, ...)."""
    return np.random.default_rng([purpose, *numbers])


class Sampler(Protocol):
    """What Loader(sampler=...) takes."""

    def __len__(self) -> int:
        """How many indices an epoch has, the same for every epoch."""
        ...

    def __call__(self, seed: int, epoch: int, /) -> ArrayLike:
        """The epoch's indices in order, integers (len(self),); the same for the same arguments."""
        ...


class SequentialSampler:
    """0, 1, ..., n-1 in every epoch."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return np.arange(self.n)


class RandomSampler(SequentialSampler):
    """All of 0, 1, ..., n-1 in a new order each epoch."""

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return generator(SHUFFLE, seed, epoch).permutation(self.n)


class WeightedRandomSampler:
    """Index i is drawn with a probability in proportion to weights[i]; each epoch draws anew.

    Args:
        weights: numbers >= 0, (N,), one for each item of the dataset; their sum need not be 1.
        num_samples: indices per epoch; None: N.
        replacement: an index may be drawn several times, and then a transform gets other random numbers each time.

    Raises ArgumentError for other weights, and where there is not enough to draw without replacement.
    """

    def __init__(self, weights: ArrayLike, num_samples: int | None = None, replacement: bool = True) -> None:
        raw = np.asarray(weights)
        good = raw.ndim == 1 and raw.dtype.kind in "iuf" and bool((np.isfinite(raw) & (raw >= 0)).all())
        with np.errstate(over="ignore"):
            total = float(raw.sum(dtype=np.float64)) if good else 0.0
        if not 0 < total < np.inf:
            seen = f"{raw.dtype} {raw.shape}" + (f" with the sum {total:g}" if good else "")
            raise ArgumentError(
                f"WeightedRandomSampler: weights must be finite numbers >= 0 (N,), not all of them 0, got {seen}"
            )
        self.probabilities: NDArray[np.float64] = raw.astype(np.float64) / total
        n = len(raw) if num_samples is None else integer("WeightedRandomSampler", "num_samples", num_samples, 1)
        self.num_samples, self.replacement = n, flag("WeightedRandomSampler", "replacement", replacement)
        possible = int(np.count_nonzero(self.probabilities))
        if not self.replacement and n > possible:
            raise ArgumentError(
                f"WeightedRandomSampler: {n} samples cannot be drawn without replacement from {possible} items whose "
                "weight is not 0; take fewer with num_samples, or replacement=True"
            )

    def __len__(self) -> int:
        return self.num_samples

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        random, n = generator(WEIGHTED, seed, epoch), len(self.probabilities)
        return random.choice(n, self.num_samples, replace=self.replacement, p=self.probabilities)


def class_balanced(labels: ArrayLike, num_samples: int | None = None) -> WeightedRandomSampler:
    """A sampler that draws every class equally often on average: an item weighs 1 / (the number of its class).

    Args: labels (N,), one for each item, integers or text; num_samples per epoch, None: N.
    Raises ArgumentError where there are no labels or they have another shape.
    """
    raw = np.asarray(labels)
    if raw.ndim != 1 or not len(raw):
        raise ArgumentError(f"class_balanced: labels must be (N,) with one for each item, got {raw.dtype} {raw.shape}")
    _, place, counts = np.unique(raw, return_inverse=True, return_counts=True)
    return WeightedRandomSampler(1 / counts[place], num_samples)


def occurrences(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each index of `order` has come before in it: [5, 7, 5, 5] -> [0, 0, 1, 2]."""
    by_index = np.argsort(order, kind="stable")
    ascending = order[by_index]
    first = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1])[: len(order)])
    begins = np.repeat(first, np.diff(np.append(first, len(order))))
    result: Any = np.empty(len(order), np.int64)
    result[by_index] = np.arange(len(order)) - begins
    return result
