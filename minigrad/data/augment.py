"""Training and test views of an image (paper sections 4.1 and 5).

An image comes in as uint8 (H, W, C) in 0..255 and goes out as float32 minus the mean.  The mean image is
cropped with the same window and flipped with the image, so each pixel loses the mean of its own place.

Memory layout.  Views are computed channels-last, the order of decoded pixels, and *shown* channels-first by
`channels_first`, a transposed view without a copy: shape (N, C, H, W), strides of an (N, H, W, C) array.  The
convolution gathers its windows faster from that layout; call np.ascontiguousarray where plain NCHW is needed.

Every random choice takes a numpy.random.Generator: nothing here has hidden state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError

from .prepare import RgbPCA

Image = NDArray[np.uint8]
View = NDArray[np.float32]
Mean = NDArray[np.float32] | None  # a mean image (H, W, C), a mean colour (C,), or nothing to subtract


class Window(NamedTuple):
    """A square cut out of an image: rows top..top+size-1, columns left..left+size-1, mirrored if flip."""

    top: int
    left: int
    size: int
    flip: bool = False


def cut(image: Image, window: Window, mean: Mean = None) -> View:
    """image[window] - mean[window] as a new float32 array (size, size, C).

    Raises ArgumentError where the window leaves the image or the mean does not fit it.
    """
    top, left, size, flip = window
    if image.ndim != 3:
        raise ArgumentError(
            f"cut: an image must have the shape (H, W, C), got {image.shape}; a grey one is image[..., None]"
        )
    if size < 1 or top < 0 or left < 0 or top + size > image.shape[0] or left + size > image.shape[1]:
        raise ArgumentError(
            f"cut: a window of {size} x {size} at ({top}, {left}) leaves the image of shape "
            f"{image.shape}; take a smaller crop or prepare larger images"
        )
    rows, columns = slice(top, top + size), slice(left, left + size)
    view = np.array(image[rows, columns], dtype=np.float32, order="C")  # fresh and dense: it is written into below
    if mean is not None:
        if mean.shape not in (image.shape, image.shape[-1:]):
            raise ArgumentError(
                f"cut: the mean must have the image's shape {image.shape} or one value per "
                f"channel, got shape {mean.shape}; compute it from images of the same size"
            )
        if mean.ndim == 3:
            np.subtract(view, mean[rows, columns], out=view)
        else:
            _add_colour(view, -mean, out=view)
    return mirrored(view) if flip else view


def channels_first(views: View) -> View:
    """(..., H, W, C) -> (..., C, H, W), a transposed view that shares the memory."""
    return np.moveaxis(views, -1, -3)


def random_crop_flip(image: Image, size: int, rng: np.random.Generator, mean: Mean = None) -> View:
    """A random crop, mirrored half of the time: float32 (size, size, C) minus the mean (paper 4.1).

    All positions are equally likely: 33 x 33 for 224 in 256, as in the original code (2178 views with the
    flips; the paper's 2048 counts 32 x 32).  Raises ArgumentError where size exceeds the image.
    """
    return cut(image, random_window(image, size, rng), mean)


def random_window(image: Image, size: int, rng: np.random.Generator) -> Window:
    """The window of a random crop, mirrored half of the time: three draws, top, left and flip."""
    _check_size(image, size)
    top = int(rng.integers(image.shape[0] - size + 1))
    left = int(rng.integers(image.shape[1] - size + 1))
    return Window(top, left, size, bool(rng.integers(2)))


def center_window(image: Image, size: int) -> Window:
    """The central window; odd margins are rounded down at the top and the left."""
    _check_size(image, size)
    return Window((image.shape[0] - size) // 2, (image.shape[1] - size) // 2, size)


def center_crop(image: Image, size: int, mean: Mean = None) -> View:
    """The central crop: float32 (size, size, C) minus the mean.  Raises ArgumentError if too large."""
    return cut(image, center_window(image, size), mean)


def ten_views(image: Image, size: int, mean: Mean = None) -> View:
    """The ten test views of paper section 4.1: float32 (10, C, size, size), channels-last in memory.

    Order: top left, top right, bottom left, bottom right, centre, and the same five mirrored.
    The network's softmax outputs are to be averaged over axis 0.
    """
    return channels_first(_ten_views(image, size, mean))


def _ten_views(image: Image, size: int, mean: Mean) -> View:
    return np.stack([cut(image, window, mean) for window in ten_windows(image, size)])


def ten_windows(image: Image, size: int) -> list[Window]:
    """The windows of the ten test views, in their order."""
    center = center_window(image, size)
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (center.top, center.left)]
    return [Window(top, left, size, flip) for flip in (False, True) for top, left in corners]


def pca_noise(view: View, pca: RgbPCA, rng: np.random.Generator, std: float = 0.1) -> View:
    """Shift the colours of a whole view by eigenvectors @ (N(0, std) * sd), drawn once (paper 4.1).

    Args: view float32 (H, W, 3), left unchanged; std, the paper's 0.1 (0 turns the noise off).
    Returns a new float32 (H, W, 3).  Raises ArgumentError for a negative std or another number of channels.
    """
    return _add_colour(view, random_colour(view, pca, rng, std))


def random_colour(image: Image | View, pca: RgbPCA, rng: np.random.Generator, std: float) -> NDArray[np.float32]:
    """The shift of pca_noise, float32 (3,): three draws."""
    if std < 0 or image.shape[-1] != len(pca.sd):
        raise ArgumentError(
            f"pca_noise: need std >= 0 and a view (H, W, {len(pca.sd)}) like the components, "
            f"got std {std} and {image.shape}; leave pca out for images without colour"
        )
    shift: NDArray[np.float64] = pca.eigenvectors @ (rng.normal(0.0, std, len(pca.sd)) * pca.sd)
    return shift.astype(np.float32)


def _add_colour(view: View, colour: View, out: View | None = None) -> View:
    """view (H, W, C) + colour (C,).  Row by row, as NumPy is six times slower on an inner axis of three."""
    height, width, channels = view.shape
    rows = (height, width * channels)
    into = None if out is None else out.reshape(rows)
    return np.add(view.reshape(rows), np.tile(colour, width), out=into).reshape(view.shape)


def mirrored(image: NDArray[Any]) -> NDArray[Any]:
    """image[:, ::-1] in memory of its own, channel by channel: six times faster than on an inner axis of three."""
    result = np.empty_like(image, order="C")
    for channel in range(image.shape[-1]):
        result[..., channel] = image[:, ::-1, channel]
    return result


def _check_size(image: Image, size: int) -> None:
    if image.ndim != 3 or not 1 <= size <= min(image.shape[:2]):
        raise ArgumentError(
            f"crop: the image must be (H, W, C) and size between 1 and min(H, W), got image "
            f"{image.shape} and size {size}; take a smaller crop or prepare larger images"
        )


# What a Loader applies to each image: called with (image, rng), they return float32 (..., H, W, C), scaled.
# `scale` multiplies after the subtraction: 1 in the paper; the original code divided by 1.1 (scale=1/1.1).  It is one
# number, or, on the processor alone, one for each colour: torchvision divides by three standard deviations.
#
# Where a card is to do that (the op `prepare`), `draw` only says what, by the same random numbers: (top, left, flip) of
# the window, or of several, and what is added to the colours.
Drawn = tuple[Any, NDArray[np.float32]]
Scale = float | tuple[float, ...]


@dataclass(frozen=True)
class TrainViews:
    """Random crop and flip, then colour noise where `pca` is given (pca_std: the paper's 0.1)."""

    size: int
    mean: Mean = None
    pca: RgbPCA | None = None
    pca_std: float = 0.1
    scale: Scale = 1.0

    def __call__(self, image: Image, rng: np.random.Generator) -> View:
        view = random_crop_flip(image, self.size, rng, self.mean)
        if self.pca is not None:
            _add_colour(view, random_colour(view, self.pca, rng, self.pca_std), out=view)
        return _scaled(view, self.scale)

    def draw(self, image: Image, rng: np.random.Generator) -> Drawn:
        window = random_window(image, self.size, rng)
        if self.pca is None:
            return _place(window), _no_colour(image)
        return _place(window), random_colour(image, self.pca, rng, self.pca_std)


@dataclass(frozen=True)
class CenterView:
    """The central crop; size None takes the whole image, which then need not be square."""

    size: int | None = None
    mean: Mean = None
    scale: Scale = 1.0

    def __call__(self, image: Image, rng: Any = None) -> View:
        if self.size is None:
            whole = image.astype(np.float32)
            return _scaled(whole if self.mean is None else whole - self.mean, self.scale)
        return _scaled(center_crop(image, self.size, self.mean), self.scale)

    def draw(self, image: Image, rng: Any = None) -> Drawn:
        if self.size is None:
            raise ArgumentError("CenterView.draw: only squares can be cut on a card: give a size")
        return _place(center_window(image, self.size)), _no_colour(image)


@dataclass(frozen=True)
class TenViews:
    """The ten views of `ten_views`, channels-last: a Loader's batches become (N, 10, C, size, size)."""

    size: int
    mean: Mean = None
    scale: Scale = 1.0

    def __call__(self, image: Image, rng: Any = None) -> View:
        return _scaled(_ten_views(image, self.size, self.mean), self.scale)

    def draw(self, image: Image, rng: Any = None) -> Drawn:
        return [_place(window) for window in ten_windows(image, self.size)], _no_colour(image)


def _scaled(view: View, scale: Scale) -> View:
    """view * scale, written into `view`, which is to be nobody else's.  Row by row, as in _add_colour."""
    if isinstance(scale, (int, float)):
        return view if scale == 1.0 else np.multiply(view, np.float32(scale), out=view)
    if len(scale) != view.shape[-1]:
        raise ArgumentError(f"scale: one number, or one for each of {view.shape[-1]} colours, got {scale!r}")
    rows = view.reshape(*view.shape[:-2], -1)  # a view of the memory, which is dense
    np.multiply(rows, np.tile(np.asarray(scale, np.float32), view.shape[-2]), out=rows)
    return view


def _place(window: Window) -> tuple[int, int, int]:
    return window.top, window.left, int(window.flip)


def _no_colour(image: Image) -> NDArray[np.float32]:
    return np.zeros(image.shape[-1], np.float32)


class Views(NamedTuple):
    """What the op `prepare` is to make of the pictures of a batch: its arguments, in their order."""

    windows: NDArray[np.int32]  # (N, 3), or (N, V, 3) for V views of each: top, left, flip
    size: int
    mean: View  # a mean image (H, W, C)
    colours: NDArray[np.float32]  # (N, C): added to every pixel of a picture
    scale: float


def views_of(transform: Any, drawn: Sequence[Drawn], shape: tuple[int, ...]) -> Views:
    """What `transform` has drawn for the pictures of a batch, all of this shape (H, W, C)."""
    windows, colours = zip(*drawn)
    mean = transform.mean
    if mean is None or mean.ndim == 1:  # nothing or one colour to subtract, everywhere
        mean = np.full(shape, 0 if mean is None else mean, np.float32)
    return Views(np.array(windows, np.int32), transform.size, mean, np.array(colours), transform.scale)
