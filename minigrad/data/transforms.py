"""What may be done to an image on its way into a batch, under torchvision's names.  The paper's own views: augment.py.

A transform is called with an image (H, W, C), channels last, in 0..255, and a generator, and returns an image; Loader
takes one, or several as a Compose.  It draws all its random numbers from the generator, which belongs to (seed, epoch,
index), and leaves its input alone.  uint8 stays uint8 until Normalize makes float32 of it; float32 stays float32.

    Compose(RandomCrop(32, padding=4), RandomHorizontalFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1), Normalize(mean, std))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.base.arguments import is_number, number, pair
from minigrad.errors import ArgumentError

from .augment import mirrored

Pixels = NDArray[Any]  # uint8 or float32 (H, W, C)

# How bright the eye sees red, green and blue: the luma of ITU-R BT.601, by which torchvision and Pillow make grey.
_GREY = np.array([0.2989, 0.587, 0.114], np.float32)


class Compose:
    """One transform after the other, all with the same generator."""

    def __init__(self, *transforms: Callable[[Any, np.random.Generator], Any]) -> None:
        if len(transforms) == 1 and isinstance(transforms[0], (list, tuple)):  # torchvision's way to write it
            transforms = tuple(transforms[0])
        if odd := [each for each in transforms if not callable(each)]:
            raise ArgumentError(f"Compose: transforms must be callable with (image, generator), got {odd[0]!r}")
        self.transforms = transforms

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        for transform in self.transforms:
            image = transform(image, rng)
        return image


class Normalize:
    """(image - mean) / std, float32 (H, W, C), per channel: one number or C of them, in the image's units of 0..255.

    torchvision's means and deviations are of 0..1: times 255 they are right here.  Raises ArgumentError for a std that
    is not > 0, another number of channels, and for uint8 images with a std below 1, which must be of 0..1.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike) -> None:
        self.mean, self.std = (np.atleast_1d(np.asarray(value)).astype(np.float32) for value in (mean, std))
        finite = np.isfinite(self.mean).all() and np.isfinite(self.std).all()
        if self.mean.ndim != 1 or self.std.ndim != 1 or not finite or not (self.std > 0).all():
            raise ArgumentError(
                f"Normalize: need finite numbers, one or one per channel, and std > 0, got mean {mean!r}, std {std!r}"
            )

    def __call__(self, image: Pixels, rng: Any = None) -> NDArray[np.float32]:
        _check("Normalize", image)
        for name, value in (("mean", self.mean), ("std", self.std)):
            if len(value) not in (1, image.shape[-1]):
                raise ArgumentError(
                    f"Normalize: {name} must be one number or one per channel, got {len(value)} for an image "
                    f"{image.shape}"
                )
        if image.dtype == np.uint8 and self.std.min() < 1:
            raise ArgumentError(
                f"Normalize: the image is uint8 in 0..255, and std {self.std.tolist()} looks like that of 0..1; "
                "multiply mean and std by 255"
            )
        height, width, channels = image.shape
        # Row by row, as NumPy is slower on an inner axis of three.
        mean, std = (np.tile(np.broadcast_to(value, channels), width) for value in (self.mean, self.std))
        normal: NDArray[np.float32] = np.subtract(image.reshape(height, width * channels), mean, dtype=np.float32)
        return np.divide(normal, std, out=normal).reshape(image.shape)


class RandomCrop:
    """A window of the image, all places equally likely, after `padding` pixels of `fill` were put around it.

    size: its side, or (height, width).  padding: on each side, or (vertical, horizontal); 4 with a size of 32 is the
    usual one for CIFAR.  fill: a number in 0..255, or one per channel.  Two draws, top and left.
    Raises ArgumentError where the window is larger than the padded image.
    """

    def __init__(
        self, size: int | tuple[int, int], padding: int | tuple[int, int] = 0, fill: float | Sequence[float] = 0
    ) -> None:
        self.size, self.padding = pair("RandomCrop", "size", size, 1), pair("RandomCrop", "padding", padding, 0)
        self.fill = np.asarray(fill)
        if self.fill.ndim > 1 or not all(is_number(v) and 0 <= v <= 255 for v in self.fill.ravel()):
            raise ArgumentError(f"RandomCrop: fill must be in 0..255, one number or one per channel, got {fill!r}")

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        _check("RandomCrop", image)
        (height, width), (down, across), (old_height, old_width, channels) = self.size, self.padding, image.shape
        room = old_height + 2 * down - height, old_width + 2 * across - width
        if min(room) < 0 or self.fill.shape not in ((), (1,), (channels,)):
            raise ArgumentError(
                f"RandomCrop: a window of {height} x {width} with padding {self.padding} and fill {self.fill.tolist()} "
                f"does not fit an image {image.shape}; take a smaller crop, more padding, or one fill per channel"
            )
        # In the image's own rows and columns: above and left of it they are negative.
        top, left = int(rng.integers(room[0] + 1)) - down, int(rng.integers(room[1] + 1)) - across
        inside = image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
        if inside.shape[:2] == self.size:
            return inside.copy()
        crop = np.empty((height, width, channels), image.dtype)
        crop[...] = self.fill
        at = max(-top, 0), max(-left, 0)
        crop[at[0] : at[0] + inside.shape[0], at[1] : at[1] + inside.shape[1]] = inside
        return crop


class RandomHorizontalFlip:
    """The image mirrored, with probability p; one draw."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("RandomHorizontalFlip", "p", p, 0)
        if self.p > 1:
            raise ArgumentError(f"RandomHorizontalFlip: p must be in 0..1, got {p}")

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        _check("RandomHorizontalFlip", image)
        return mirrored(image) if rng.random() < self.p else image


class ColorJitter:
    """Brightness, contrast, saturation and hue, each changed by a random amount, in random order.

    brightness, contrast, saturation: v >= 0 draws the factor from max(0, 1 - v)..1 + v; (low, high) from low..high.
    hue: v in 0..0.5 draws the turn from -v..v; (low, high), within -0.5..0.5, from low..high.  Five draws at most: the
    order, and one for each that is not 0.  The formulas: adjust_brightness, adjust_contrast, adjust_saturation,
    adjust_hue, with torchvision's names and meaning.  Between them nothing is rounded: for uint8, once in the end.
    Raises ArgumentError for other ranges, and for images that have not three channels.
    """

    def __init__(
        self,
        brightness: float | tuple[float, float] = 0,
        contrast: float | tuple[float, float] = 0,
        saturation: float | tuple[float, float] = 0,
        hue: float | tuple[float, float] = 0,
    ) -> None:
        wanted = (
            (adjust_brightness, _range("brightness", brightness)),
            (adjust_contrast, _range("contrast", contrast)),
            (adjust_saturation, _range("saturation", saturation)),
            (adjust_hue, _range("hue", hue, 0.0, (-0.5, 0.5))),
        )
        self.adjustments = [(adjust, limits) for adjust, limits in wanted if limits is not None]

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        _check("ColorJitter", image, 3)
        if not self.adjustments:
            return image
        pixels = image.astype(np.float32)
        for place in rng.permutation(len(self.adjustments)):
            adjust, (low, high) = self.adjustments[place]
            pixels = adjust(pixels, rng.uniform(low, high))
        return _as(image, pixels)


def adjust_brightness(image: Pixels, factor: float) -> Pixels:
    """factor * image, cut off at 0 and 255: 0 is black, 1 the image."""
    return _blend(image, np.float32(0), factor)


def adjust_contrast(image: Pixels, factor: float) -> Pixels:
    """factor * image + (1 - factor) * m, cut off at 0 and 255, m the mean of the grey image: 0 is that grey.

    Grey is 0.2989 R + 0.587 G + 0.114 B.
    """
    return _blend(image, (_colour(image) @ _GREY).mean(dtype=np.float64).astype(np.float32), factor)


def adjust_saturation(image: Pixels, factor: float) -> Pixels:
    """factor * image + (1 - factor) * grey image, cut off at 0 and 255: 0 is grey, 1 the image."""
    return _blend(image, (_colour(image) @ _GREY)[..., None], factor)


def adjust_hue(image: Pixels, turn: float) -> Pixels:
    """The hue turned by `turn` of the colour circle, -0.5..0.5; value and saturation as they are.

    In HSV, with V = max(R, G, B) and D = V - min(R, G, B), each channel is V - D * k for some k in 0..1 that the hue
    decides: for n = 5, 3, 1 (red, green, blue) and h in 0..6, k = min(t, 4 - t) cut off at 0 and 1, t = (n + h) mod 6.
    (The formula of HSV to RGB, without the tables of cases; h is the usual angle over 60 degrees.)
    """
    pixels, turn = _colour(image), number("adjust_hue", "turn", turn, -0.5)
    if turn > 0.5:
        raise ArgumentError(f"adjust_hue: turn must be in -0.5..0.5, got {turn}")
    value, least = pixels.max(axis=-1), pixels.min(axis=-1)
    spread = value - least
    red, green, blue = np.moveaxis(pixels, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):  # grey pixels have no hue, and need none: D is 0
        sixths = np.select(
            [spread == 0, value == red, value == green],
            [np.float32(0), (green - blue) / spread, 2 + (blue - red) / spread],
            4 + (red - green) / spread,
        )
    t = np.mod((sixths + np.float32(6 * turn))[..., None] + np.array([5, 3, 1], np.float32), np.float32(6))
    return _as(image, value[..., None] - spread[..., None] * np.minimum(t, 4 - t).clip(0, 1))


def _blend(image: Pixels, other: Any, factor: float) -> Pixels:
    factor = number("adjust", "factor", factor, 0)
    pixels = image.astype(np.float32) * np.float32(factor) + np.float32(1 - factor) * other
    return _as(image, pixels.clip(0, 255))


def _as(image: Pixels, pixels: NDArray[np.float32]) -> Pixels:
    """pixels in the type of `image`: rounded for uint8."""
    return np.rint(pixels).astype(np.uint8) if image.dtype == np.uint8 else pixels


def _colour(image: Pixels) -> NDArray[np.float32]:
    _check("adjust", image, 3)
    return image.astype(np.float32)


def _check(what: str, image: Any, channels: int | None = None) -> None:
    shape, dtype = np.shape(image), getattr(image, "dtype", None)
    good = len(shape) == 3 and (shape[-1] <= 4 if channels is None else shape[-1] == channels)
    if not good or 0 in shape or dtype not in (np.uint8, np.float32):
        raise ArgumentError(
            f"{what}: an image must be uint8 or float32 (H, W, {'C' if channels is None else channels}) in 0..255, got "
            f"{type(image).__name__ if dtype is None else dtype} {shape}"
        )


def _range(
    name: str, value: Any, centre: float = 1.0, bounds: tuple[float, float] = (0.0, np.inf)
) -> tuple[float, float] | None:
    """(low, high) of what a setting of ColorJitter draws from; None where that is nothing but `centre`."""
    limits = value
    if is_number(value) and value >= 0:
        limits = (max(centre - value, 0.0) if centre else -value, centre + value)
    good = isinstance(limits, (tuple, list)) and len(limits) == 2 and all(map(is_number, limits))
    if not good or not bounds[0] <= limits[0] <= limits[1] <= bounds[1]:
        rule = (
            "0..0.5, or (low, high) within -0.5..0.5" if not centre else "a number >= 0, or (low, high) with 0 <= low"
        )
        raise ArgumentError(f"ColorJitter: {name} must be {rule} and low <= high, got {value!r}")
    low, high = map(float, limits)
    return None if low == high == centre else (low, high)
