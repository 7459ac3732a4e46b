"""From an image file to 256 x 256 RGB, and the statistics of a training set (paper sections 2 and 4.1).

The paper rescales each image so that its shorter side is 256 and cuts out the central 256 x 256.  It names
no interpolation; we use Pillow's antialiased bilinear filter and torchvision's rounding (Resize, CenterCrop).
EXIF orientation is ignored, as the original did: a photograph stored on its side stays on its side.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minigrad.base import files
from minigrad.base.arguments import integer
from minigrad.errors import DataError, one_line, printable

from . import decode
from .threads import Threads


class RgbPCA(NamedTuple):
    """Principal components of RGB values: eigenvectors (3, 3) in *columns* (rows R, G, B), sd (3,) in 0..255.

    sd are square roots of the covariance's eigenvalues, ascending.  The paper's text says eigenvalues, but
    those would give a noise of over a thousand grey levels; the original code uses the roots.
    """

    eigenvectors: NDArray[np.float64]
    sd: NDArray[np.float64]


# Measured over ImageNet by the original code (released by the Computer History Museum), in 0..255 units: for
# those who do not want to measure, or whose training set is too small for it.
IMAGENET_PCA = RgbPCA(
    np.array(
        [
            [0.41795513, -0.71257945, -0.56351045],
            [-0.81698062, -0.02354167, -0.5761844],
            [0.39731118, 0.70119634, -0.59200296],
        ]
    ),
    np.array([19.72083305, 37.09388853, 121.78006099]),
)
IMAGENET_MEAN_RGB: NDArray[np.float32] = np.array([127.305, 119.715, 104.913], dtype=np.float32)
BACKGROUND = (127, 120, 105)  # that colour, of what pictures are placed on that are not enlarged


class ImageSource(Protocol):
    """What compute_stats and Loader need of a dataset: ImageFolder, ImageArray, or your own."""

    labels: NDArray[np.int64]

    def __len__(self) -> int: ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, C), one shape for every index; raises UnreadableImageError for a broken file."""
        ...


class UnreadableImageError(DataError):
    """One image file that cannot be decoded; has .path and .reason (both str)."""

    def __init__(self, path: str | os.PathLike[str], reason: str, cure: str = "Replace or remove the file.") -> None:
        self.path, self.reason = os.fsdecode(path), reason
        super().__init__(f"cannot read image '{printable(path)}': {printable(reason)}. {cure}")


class Report:
    """The image files that were skipped, as (path, reason) in `skipped`; each file is warned about once."""

    def __init__(self) -> None:
        self.skipped: list[tuple[str, str]] = []
        self._seen: set[str] = set()

    def add(self, error: UnreadableImageError) -> None:
        """Note a skipped file and warn, unless it has been noted before (every epoch meets it again)."""
        if error.path not in self._seen:
            self._seen.add(error.path)
            self.skipped.append((error.path, error.reason))
            warnings.warn(f"skipped image '{printable(error.path)}': {printable(error.reason)}", stacklevel=2)

    def __len__(self) -> int:
        return len(self.skipped)

    def __str__(self) -> str:
        lines = [f"  {printable(path)}: {printable(reason)}" for path, reason in self.skipped]
        return "\n".join([f"{len(self)} unreadable images skipped", *lines])

    def summary(self, most: int = 5) -> str:
        """The first `most` of them in one line, for an error message."""
        lines = str(self).split("\n")
        more = f" and {len(self) - most} more" if len(self) > most else ""
        return f"{lines[0]}: {'; '.join(line.strip() for line in lines[1 : 1 + most])}{more}"


def check_channels_last(shape: tuple[int, ...], what: str) -> None:
    """Raise DataError where `shape` cannot be (..., H, W, C) with 1 to 4 channels; `what` says whose shape it is.

    Channels-first pictures would pass through everything and come out with columns for channels.  Where both readings
    are possible, as for (3, 3, 3), the last axis is taken for the channels.
    """
    pixels = shape[-3:]
    first = len(pixels) == 3 and (
        0 < pixels[0] <= 4 < pixels[2] or (pixels[0] in (1, 3) and pixels[2] not in (1, 3))  # not (3, H, 4) either
    )
    if len(pixels) == 3 and 0 not in pixels and pixels[2] <= 4 and not first:
        return
    cure = "check the axes"
    if first:
        axes = (*range(len(shape) - 3), *(len(shape) + k for k in (-2, -1, -3)))
        cure = f"it looks channels-first: turn it with .transpose{axes}"
    raise DataError(f"{what} must have the shape (..., H, W, C), with 1 to 4 channels C, got {shape}; {cure}")


def prepare_image(
    path: str | os.PathLike[str], size: int = 256, draft: bool = True, background: tuple[int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Decode a file, scale its shorter side to `size`, cut the central square: uint8 RGB (size, size, 3).

    JPEG, PNG, GIF, BMP and WebP are told apart by content, not by name.  Smaller images are enlarged, or placed on a
    `background` as prepare_bytes does.  Grey is repeated in three channels; CMYK (Adobe's inverted CMYK too) goes
    through Pillow's plain conversion without colour profiles; 16-bit samples keep their high byte; the first frame of
    an animation counts; transparency is laid on white, because pictures with transparency are drawn for light pages: on
    black dark line art would vanish, and dropping alpha shows colours nobody ever saw.

    `draft` lets libjpeg shrink a large JPEG by 2, 4 or 8 while it decodes: 4000 x 3000 pixels take 19 ms in
    place of 240.  It is used only while 2 * `size` pixels remain on the shorter side, so that the bilinear
    filter still does the last halving, and changes pixels by 0.4 grey levels on average and 18 at worst
    (measured on 183 ImageNet photographs at size 64); photographs below 4 * `size` are not affected.

    Memory is bounded: a picture of more than PIL.Image.MAX_IMAGE_PIXELS (89 million, 9459 x 9459) is refused, and
    a JPEG that `draft` shrinks beyond twice as many, unless it is progressive: libjpeg keeps all of those.  So
    is a file of more than 512 MiB.  Only regular files, and links to them, are opened.

    Raises UnreadableImageError (file missing, not readable, not a regular file, truncated, not an image, too
    large), ArgumentError for a size below 1 or not an integer.
    """
    size = integer("prepare_image", "size", size, 1)
    with _unreadable(path), files.open_regular(path) as file:
        return _prepared(file, size, draft, background)


def prepare_bytes(
    data: bytes, name: str, size: int = 256, draft: bool = True, background: tuple[int, int, int] | None = None
) -> NDArray[np.uint8]:
    """The same of a file's bytes, by the same rules; `name` is what errors call it.

    background: a colour (R, G, B), 0..255.  Where it is given, a picture whose shorter side is below `size` is not
    enlarged: it stays unscaled, in the centre of a square of this colour; what reaches beyond the square is cut off.
    """
    size = integer("prepare_bytes", "size", size, 1)
    with _unreadable(name), io.BytesIO(data) as file:
        return _prepared(file, size, draft, background)


def _prepared(
    file: BinaryIO, size: int, draft: bool, background: tuple[int, int, int] | None = None
) -> NDArray[np.uint8]:
    image = decode.open_image(file)
    width, height = image.size
    box = (0.0, 0.0, float(width), float(height))
    if draft:
        # box is the picture's extent after the shrink, exact even where a side is no multiple of 8.
        box = (image.draft(None, (2 * size, 2 * size)) or ("", box))[1]
    decode.check_size(image, (width, height))
    rgb = decode.to_rgb(image, file)
    if background is None or min(width, height) >= size:
        return _resize_and_crop(rgb, (width, height), box, size)
    left, top = round((size - width) / 2), round((size - height) / 2)  # negative where the picture is cut
    square = Image.new("RGB", (size, size), background)
    seen = rgb.crop((max(-left, 0), max(-top, 0), min(size - left, width), min(size - top, height)))
    square.paste(seen, (max(left, 0), max(top, 0)))
    return np.array(square)


@contextmanager
def _unreadable(name: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what goes wrong with a picture into an UnreadableImageError."""
    try:
        yield
    except Exception as error:  # on broken files Pillow raises almost anything: OSError, SyntaxError...
        if isinstance(error, OSError) and error.errno:  # the file may be good, but the system does not give it
            raise UnreadableImageError(
                name, one_line(error), "Check the path, its permissions and the disk."
            ) from error
        raise UnreadableImageError(name, one_line(error)) from error


def _resize_and_crop(
    image: Image.Image, original: tuple[int, int], extent: tuple[float, float, float, float], size: int
) -> NDArray[np.uint8]:
    """Resize the shorter side to `size` and crop the centre, in one step.

    Pillow's `box` computes only the pixels we keep, with filter taps that reach beyond the box, so the result
    is that of resizing everything and cropping; and a 60000 x 3 image never becomes 5 million columns wide.
    """
    width, height = original
    new_width, new_height = size * width // min(width, height), size * height // min(width, height)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)  # torchvision's rounding
    step_x, step_y = extent[2] / new_width, extent[3] / new_height
    # min: left + size == new_width must not end a rounding error outside the picture.
    box = (left * step_x, top * step_y, min((left + size) * step_x, extent[2]), min((top + size) * step_y, extent[3]))
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


@dataclass(frozen=True)
class ImageStats:
    """Statistics of a training set, in 0..255 units.

    mean_image: float32 (H, W, C).  mean_rgb: float32 (C,).  pca: of the RGB values of all pixels.
    count: images used, out of total; seed: of the sample where count < total.
    fit: what became of pictures that were too small: "scale", they were enlarged, or "place", see `pack`.
    """

    mean_image: NDArray[np.float32]
    mean_rgb: NDArray[np.float32]
    pca: RgbPCA
    count: int
    total: int
    seed: int
    fit: str = "scale"

    def __str__(self) -> str:
        rest = "" if self.count == self.total else f" (sampling seed {self.seed}; unreadable files left out)"
        return f"statistics of {self.count} of {self.total} images{rest}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file, whole or not at all; DataError where the place cannot be written."""
        content = io.BytesIO()
        np.savez(
            content,
            mean_image=self.mean_image,
            mean_rgb=self.mean_rgb,
            eigenvectors=self.pca.eigenvectors,
            sd=self.pca.sd,
            counts=np.array([self.count, self.total, self.seed, *([1] if self.fit == "place" else [])]),
        )
        with files.writing(path, lambda message: DataError(f"ImageStats.save: {message}")) as file:
            file.write(content.getbuffer())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ImageStats:
        """Read what `save` wrote; raises DataError for a missing, damaged or foreign file."""
        if not os.path.isfile(path):
            raise DataError(f"ImageStats.load: there is no file '{printable(path)}'. Compute it: compute_stats.")
        try:
            with zipfile.ZipFile(path) as archive:
                mean_image = _member(archive, "mean_image", "f4", 3, 1)  # 1: one colour in place of an image
                mean_rgb = _member(archive, "mean_rgb", "f4", 1)
                vectors, sd = _member(archive, "eigenvectors", "f8", 2), _member(archive, "sd", "f8", 1)
                count, total, seed, *placed = _member(archive, "counts", "i8", 1).tolist()
            channels = mean_image.shape[-1]
            if {mean_rgb.shape, sd.shape} != {(channels,)} or vectors.shape != (channels, channels):
                raise ValueError(
                    f"shapes do not fit each other: mean_image {mean_image.shape}, mean_rgb {mean_rgb.shape}, "
                    f"eigenvectors {vectors.shape}, sd {sd.shape}"
                )
            if (sd < 0).any() or min(count, total, seed) < 0:
                raise ValueError("sd and counts must be at least 0")
            if placed not in ([], [1]):
                raise ValueError("counts must be three numbers, and a 1 where small pictures were placed")
            fit = "place" if placed else "scale"
            return cls(mean_image, mean_rgb, RgbPCA(vectors, sd), count, total, seed, fit)
        except Exception as error:  # on broken files zipfile and NumPy raise almost anything
            raise DataError(
                f"ImageStats.load: '{printable(path)}' is damaged or not from ImageStats.save "
                f"({type(error).__name__}: {printable(str(error)[:200])}). Compute it again: compute_stats."
            ) from error


def _member(archive: zipfile.ZipFile, name: str, kind: str, *axes: int) -> NDArray[Any]:
    """An array of an .npz file: of this type, with one of these numbers of axes, all of it finite; or any error.

    The member is read to its end, because only there its checksum is looked at.  `save` compresses nothing: what is
    compressed is from elsewhere, and may be far larger than the file.
    """
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    content = io.BytesIO(archive.read(info))
    array = np.lib.format.read_array(content, allow_pickle=False)
    if array.dtype != np.dtype(kind) or array.ndim not in axes or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be {np.dtype(kind)} with {axes[0]} axes, all of it finite, got {array.dtype} {array.shape}"
        )
    return array


def compute_stats(
    images: ImageSource,
    *,
    max_images: int | None = 50_000,
    seed: int = 0,
    workers: int = 0,
    report: Report | None = None,
) -> ImageStats:
    """Mean image and RGB principal components of a training set, in one pass (paper sections 2 and 4.1).

    All images are used up to `max_images`, beyond that a sample of `max_images` drawn with `seed`; None uses
    all of any number.  `str(stats)` says which it was.  Unreadable files go to `report`.  `workers` threads
    decode (0: the caller).  The result is the same, to the bit, for any number of workers.

    Raises DataError where no image can be read, shapes differ or are no (H, W, C); ArgumentError for a bad argument.
    """
    workers, seed = integer("compute_stats", "workers", workers, 0), integer("compute_stats", "seed", seed, 0)
    if max_images is not None:
        max_images = integer("compute_stats", "max_images", max_images, 1)
    report = Report() if report is None else report
    indices = np.arange(len(images))
    if max_images is not None and len(images) > max_images:
        indices = np.sort(np.random.default_rng(seed).choice(len(images), max_images, replace=False))
    total: NDArray[np.float64] | None = None
    products: NDArray[np.float64] | None = None
    count = 0
    for image in _decoded(images, indices, workers, report):
        if total is None or products is None:
            check_channels_last(image.shape, "compute_stats: an image")
            total, products = np.zeros(image.shape), np.zeros((image.shape[-1],) * 2)
        if image.shape != total.shape:
            raise DataError(
                f"compute_stats: images must share one shape, got {image.shape} after "
                f"{total.shape}; prepare them to one size"
            )
        # Sums of integers below 2**53 = 9e15 are exact in float64, and over ImageNet they stay below 5.5e15:
        # no rounding to be magnified by the subtraction in the covariance, no dependence on the order.
        pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
        total += image
        products += pixels.T @ pixels
        count += 1
    if total is None or products is None:
        raise DataError(f"compute_stats: none of {len(indices)} images could be read. {report.summary()}")
    return stats_of_sums(total, products, count, len(images), seed)


def stats_of_sums(total: NDArray[Any], products: NDArray[Any], count: int, of: int, seed: int = 0) -> ImageStats:
    """Statistics of `count` out of `of` images, from sums of integers that have not been rounded.

    total: (H, W, C), the sum of the images; products: (C, C), the sum of colour times colour over all their pixels.
    """
    mean_image = total / count
    mean = mean_image.mean(axis=(0, 1))
    covariance = products / (count * mean_image[..., 0].size) - np.outer(mean, mean)
    eigenvalues, vectors = np.linalg.eigh(covariance)  # ascending
    # The sign of an eigenvector is free; a positive largest entry makes files from different machines agree.
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(vectors))])
    pca = RgbPCA(vectors, np.sqrt(eigenvalues.clip(min=0)))  # rounding can leave -1e-12 for a grey set
    return ImageStats(mean_image.astype(np.float32), mean.astype(np.float32), pca, count, of, seed)


def _decoded(
    images: ImageSource, indices: NDArray[np.int64], workers: int, report: Report
) -> Iterator[NDArray[np.uint8]]:
    """The readable images in order, decoded on `workers` threads."""

    def attempt(index: int) -> NDArray[np.uint8] | UnreadableImageError:
        try:
            return images.image(index)
        except UnreadableImageError as error:
            return error

    def attempts() -> Iterator[NDArray[np.uint8] | UnreadableImageError]:
        if not workers:
            yield from map(attempt, indices.tolist())
            return
        with Threads(workers, "minigrad-stats") as threads:
            for index in indices.tolist():
                threads.submit(attempt, index)
                if len(threads) > 4 * workers:  # a few at a time, or decoded images would pile up
                    yield threads.take()
            while len(threads):
                yield threads.take()

    for result in attempts():
        if isinstance(result, UnreadableImageError):
            report.add(result)
        else:
            yield result
