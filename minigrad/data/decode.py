"""From a file's bytes to an opaque RGB picture, by Pillow's decoders, with transparency laid on white.

Pillow keeps a PNG's transparent colour as the file writes it, at the file's own depth, but pixels of 2, 4 and
(in colour) 16 bits as bytes: its own conversion then compares what cannot be equal.  Here they are compared at
the file's depth.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

# What web crawls hold under the name .jpg or .png, by the bytes a file begins with.  The decoders are called
# directly because Image.open would warn of large pictures without naming the file; and the list is closed
# because nobody has looked at the files (for EPS, Pillow runs Ghostscript).
_DECODERS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"GIF8", GifImageFile),
    (b"BM", BmpImageFile),
    (b"RIFF", WebPImageFile),
)
# The endings of their names, in any case.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp")

MOST_BYTES = 1 << 29  # of a file: some decoders read all of it before they look
_STRIP = 1 << 20  # pixels that are laid on white at a time


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Read the header; the pixels follow when they are asked for.  Raises whatever Pillow raises."""
    begin = file.read(8)
    length = file.seek(0, 2)
    file.seek(0)
    if length > MOST_BYTES:
        raise OSError(f"a file of {length >> 20:,} MiB, more than the {MOST_BYTES >> 20} that are read")
    for magic, decoder in _DECODERS:
        if begin.startswith(magic):
            return decoder(file)  # type: ignore[arg-type]
    what = f"it begins with '{begin.hex(' ')}'" if begin else "it is empty"
    raise UnidentifiedImageError(f"no JPEG, PNG, GIF, BMP or WebP image: {what}")


def check_size(image: ImageFile.ImageFile, original: tuple[int, int]) -> None:
    """Raise DecompressionBombError where decoding would cost too much memory: see prepare_image.

    `original` is the size before `draft`, which makes the picture smaller than its file says.
    """
    most = Image.MAX_IMAGE_PIXELS  # Pillow's bound, None for none.  Pillow itself only warns up to twice of it
    # libjpeg keeps all coefficients of a progressive JPEG, however small the picture is that comes out.
    if most is not None and image.size != original and not image.info.get("progressive"):
        most *= 2
    width, height = original
    if most is not None and width * height > most:
        raise Image.DecompressionBombError(
            f"{width * height} pixels ({width} x {height}) are more than the {most} that are decoded "
            "(PIL.Image.MAX_IMAGE_PIXELS)"
        )


def to_rgb(image: ImageFile.ImageFile, file: BinaryIO) -> Image.Image:
    """The opened `image` of `file` as RGB, on white: in strips, because a conversion takes up to 16 bytes a pixel."""
    key: Any = image.info.get("transparency")
    depth: Any = image.tile[0][3] if image.tile else None  # how the pixels are stored, in Pillow's words
    image.load()
    if not isinstance(key, int | tuple | bytes):  # a PNG may hold a text of that name
        key = None
    if key is None or image.mode != "P":
        image.info.pop("transparency", None)  # what follows is not for Pillow's conversions to look at
    if image.mode == "RGB" and key is None:
        return image
    low = None
    if isinstance(key, tuple) and depth == "RGB;16B":
        low = _low_bytes(file)
    elif isinstance(key, int) and image.mode != "P":
        # Pillow repeats the 2 or 4 bits of a grey pixel: 01 becomes 01010101.  A key's higher bits do not count.
        mask, scale = {"L;2": (0x3, 0x55), "L;4": (0xF, 0x11), "I;16B": (0xFFFF, 1)}.get(depth, (0xFF, 1))
        key = (key & mask) * scale
    rgb = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        rgb.paste(_on_white(image.crop(box), key, None if low is None else low.crop(box)), box)
    return rgb


def _on_white(strip: Image.Image, key: Any, low: Image.Image | None) -> Image.Image:
    """One strip as RGB on white, where `key` is the value of its transparent pixels.

    `low`: the low bytes of a strip of 16 bits per channel, of which Pillow has kept the high ones.
    """
    if strip.mode in ("RGBA", "LA", "PA") or (strip.mode == "P" and key is not None):
        rgba = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if strip.mode.startswith("I"):  # 16-bit grey ("I;16", in older Pillows "I"): convert() may clip it at 255
        rgb = Image.fromarray((np.asarray(strip) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    else:
        rgb = strip.convert("RGB")
    if key is None:
        return rgb
    if low is not None:
        hidden = _equal(strip, [k >> 8 for k in key]) & _equal(low, [k & 0xFF for k in key])
    elif strip.mode == "RGB":
        hidden = _equal(strip, [k & 0xFF for k in key])
    else:
        hidden = _equal(strip.convert("L") if strip.mode == "1" else strip, [key])
    rgb.paste("white", mask=Image.fromarray(hidden))
    return rgb


def _equal(strip: Image.Image, key: list[int]) -> NDArray[np.bool_]:
    """Where all channels have the values of `key`: bool (H, W)."""
    pixels = np.asarray(strip)
    channels = pixels.reshape(*pixels.shape[:2], -1)
    equal = np.ones(pixels.shape[:2], dtype=bool)
    for k, value in enumerate(key):
        equal &= channels[:, :, k] == value
    return equal


def _low_bytes(file: BinaryIO) -> Image.Image:
    """The low bytes of a PNG with 16 bits per colour, by telling Pillow that they stand first."""
    file.seek(0)
    image = PngImageFile(file)
    image.tile = [(*image.tile[0][:3], "RGB;16L")]  # type: ignore[list-item]
    return image
