"""Decoding against a decoder written here, byte by byte; what is too large, broken, or no file at all is refused."""

import io
import itertools
import os
import random
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from minigrad.data import ImageFolder, Loader, UnreadableImageError, decode, prepare_image, read_idx
from minigrad.errors import DataError

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's colour types: grey, RGB, palette, grey + alpha, RGBA
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]
KINDS += [(4, 8), (4, 16), (6, 8), (6, 16)]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: np.ndarray, colour: int, depth: int, trns: bytes | None = None, palette: np.ndarray | None = None):
    """A PNG file of integer samples (H, W, C), from the specification."""
    rows = []
    for row in samples.reshape(len(samples), -1):
        bits = "".join(format(int(value), f"0{depth}b") for value in row)
        bits += "0" * (-len(bits) % 8)
        rows.append(b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big"))
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    if palette is not None:
        parts.append(chunk(b"PLTE", bytes(palette.ravel().tolist())))
    if trns is not None:
        parts.append(chunk(b"tRNS", trns))
    parts += [chunk(b"IDAT", zlib.compress(b"".join(rows))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def on_white(samples: np.ndarray, colour: int, depth: int, trns: bytes | None, palette: np.ndarray | None):
    """The same samples as RGB on white, pixel by pixel: float (H, W, 3)."""

    def to_8(value: int) -> int:
        return value >> 8 if depth == 16 else value * 255 // (2**depth - 1)

    out = np.zeros((*samples.shape[:2], 3))
    for y, x in itertools.product(*map(range, samples.shape[:2])):
        pixel, alpha = [int(value) for value in samples[y, x]], 255
        if colour in (0, 2):
            rgb = [to_8(value) for value in pixel] * (3 // len(pixel))
            if trns is not None and list(struct.unpack(f">{len(pixel)}H", trns)) == pixel:
                alpha = 0
        elif colour == 3:
            rgb = palette[pixel[0]].tolist()
            alpha = trns[pixel[0]] if trns is not None and pixel[0] < len(trns) else 255
        else:
            *rgb, alpha = [to_8(value) for value in pixel]
            rgb = rgb * (3 // len(rgb))
        out[y, x] = [(value * alpha + 255 * (255 - alpha)) / 255 for value in rgb]
    return out


def keyed(colour: int, depth: int, seed: int):
    """Samples around one value, so that many pixels differ from the transparent one in a few bits only."""
    rng = np.random.default_rng([colour, depth, seed])
    top = 2**depth - 1
    center = rng.integers(0, top + 1, CHANNELS[colour])
    samples = np.where(
        rng.random((7, 9, CHANNELS[colour])) < 0.6,
        center,
        (center + rng.choice([0, 1, -1, 256, 257, -256], (7, 9, CHANNELS[colour]))) % (top + 1),
    )
    trns = palette = None
    if colour in (0, 2):
        trns = struct.pack(f">{CHANNELS[colour]}H", *center.tolist())
    elif colour == 3:
        palette = rng.integers(0, 256, (top + 1, 3))
        trns = bytes(rng.integers(0, 256, rng.integers(1, top + 2)).tolist())
    return samples, trns, palette


@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_every_kind_of_png_on_white(tmp_path, colour, depth):
    for seed in range(6):
        samples, trns, palette = keyed(colour, depth, seed)
        for transparent in (trns, None):
            (tmp_path / "x.png").write_bytes(png(samples, colour, depth, transparent, palette))
            expected = on_white(samples, colour, depth, transparent, palette)[:, 1:8]  # the central square
            assert np.abs(prepare_image(tmp_path / "x.png", 7) - expected).max() <= 1


@pytest.mark.parametrize(("colour", "depth"), [(0, 2), (0, 4), (0, 8), (2, 8)])
def test_of_a_transparent_value_the_low_bits_count(tmp_path, colour, depth):
    """So the specification has it: writers may leave anything in the bits above the depth."""
    for seed in range(4):
        samples, trns, _ = keyed(colour, depth, seed)
        high = bytes(b if k % 2 else 0xA5 for k, b in enumerate(trns))
        if depth < 8:
            high = bytes([high[0], high[1] | (0xFF << depth) & 0xFF])
        (tmp_path / "x.png").write_bytes(png(samples, colour, depth, high))
        expected = on_white(samples, colour, depth, trns, None)[:, 1:8]
        assert np.array_equal(prepare_image(tmp_path / "x.png", 7), expected)


def test_other_formats_on_white(tmp_path):
    """The first frame of a GIF, and a WebP, with transparency."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = (200, 10, 30, 255)
    red, blue = Image.fromarray(pixels), Image.new("RGBA", (8, 8), (0, 0, 255, 255))
    red.save(tmp_path / "x.gif", save_all=True, append_images=[blue])
    red.save(tmp_path / "x.webp", lossless=True)
    for name in ("x.gif", "x.webp"):
        image = prepare_image(tmp_path / name, 8)
        assert (image[:4] == (200, 10, 30)).all() and (image[4:] == 255).all()


def test_a_text_named_transparency_is_no_transparency(tmp_path):
    samples, _, palette = keyed(3, 4, 1)
    whole = png(samples, 3, 4, None, palette)
    text = chunk(b"tEXt", b"transparency\0none")
    (tmp_path / "x.png").write_bytes(whole[:33] + text + whole[33:])
    assert np.array_equal(prepare_image(tmp_path / "x.png", 7), on_white(samples, 3, 4, None, palette)[:, 1:8])


@pytest.mark.parametrize(("colour", "depth"), [(6, 8), (3, 4), (2, 16), (0, 16)])
def test_strips_make_no_difference(tmp_path, monkeypatch, colour, depth):
    samples, trns, palette = keyed(colour, depth, 3)
    (tmp_path / "x.png").write_bytes(png(samples, colour, depth, trns, palette))
    whole = prepare_image(tmp_path / "x.png", 7)
    monkeypatch.setattr(decode, "_STRIP", 2 * 9)  # two rows, and one at the end
    assert np.array_equal(prepare_image(tmp_path / "x.png", 7), whole)


def test_a_picture_too_large_is_refused_before_it_is_decoded(tmp_path):
    """By its header alone: what follows is no picture, and would be found out."""
    header = struct.pack(">IIBBBBB", 13300, 13300, 8, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"nothing")
    (tmp_path / "large.png").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own warning would name no file
        with pytest.raises(UnreadableImageError, match=r"large\.png': .*: 176890000 pixels \(13300 x 13300\) are more"):
            prepare_image(tmp_path / "large.png")


def test_jpegs_that_shrink_while_they_are_decoded_may_be_twice_as_large(tmp_path, monkeypatch):
    picture = Image.new("RGB", (64, 64), (9, 8, 7))
    picture.save(tmp_path / "x.jpg")
    picture.save(tmp_path / "p.jpg", progressive=True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    assert prepare_image(tmp_path / "x.jpg", 8).shape == (8, 8, 3)
    for path, options in (("x.jpg", {"draft": False}), ("p.jpg", {})):
        with pytest.raises(UnreadableImageError, match="4096 pixels"):
            prepare_image(tmp_path / path, 8, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    with pytest.raises(UnreadableImageError, match="4096 pixels"):
        prepare_image(tmp_path / "x.jpg", 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's word for no bound
    assert prepare_image(tmp_path / "p.jpg", 8).shape == (8, 8, 3)


def test_a_file_too_large_is_not_read(tmp_path):
    with open(tmp_path / "huge.webp", "wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(1 << 30)  # a hole: it takes no room on the disk
    with pytest.raises(UnreadableImageError, match=r"huge\.webp': OSError: a file of 1,024 MiB, more than the 512"):
        prepare_image(tmp_path / "huge.webp")


def within_seconds(action) -> None:
    """Run it on a thread, because a read from a pipe that nobody writes into never ends."""
    errors = []

    def work():
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_pipes_are_not_opened(tmp_path):
    folder = tmp_path / "set" / "train" / "a"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "0.jpg")
    os.symlink("0.jpg", folder / "1.jpg")
    Image.new("RGB", (8, 8), (5, 5, 5)).save(folder / "2.png")
    os.symlink("2.png", folder / "3.png")
    for name in ("0.jpg", "1.jpg"):
        with pytest.raises(UnreadableImageError, match=f"{name}': OSError: it is a pipe or a device"):
            within_seconds(lambda name=name: prepare_image(folder / name))
    with pytest.raises(DataError, match="it is a pipe or a device"):
        within_seconds(lambda: read_idx(folder / "0.jpg"))
    with pytest.raises(UnreadableImageError, match="it is a pipe or a device"):
        within_seconds(lambda: prepare_image(os.devnull))
    batches = []
    with pytest.warns(UserWarning, match="skipped image .*[01].jpg': OSError: it is a pipe"):
        within_seconds(lambda: batches.extend(Loader(ImageFolder(tmp_path / "set", size=8), 4)))
    assert batches[0].indices.tolist() == [2, 3]


def test_what_the_system_refuses_is_said_without_blaming_the_file(tmp_path, monkeypatch):
    for path, message in (
        (tmp_path / "gone.jpg", r"gone\.jpg': FileNotFoundError: No such file or directory\. Check the path"),
        (tmp_path, "IsADirectoryError: Is a directory. Check the path"),
        (tmp_path / ("x" * 300), "OSError: File name too long. Check the path"),
        ("a\0b.jpg", r"'a\\x00b\.jpg': ValueError: embedded null byte\. Replace"),
    ):
        with pytest.raises(UnreadableImageError, match=message) as caught:
            prepare_image(path)
        assert caught.value.path == os.fspath(path) and "\n" not in str(caught.value)
    (tmp_path / "x.jpg").write_bytes(b"")

    def failing(path, flags, *rest, **options):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(UnreadableImageError, match=r"x\.jpg': OSError: Input/output error\. Check the path"):
        prepare_image(tmp_path / "x.jpg")


def originals() -> dict[str, bytes]:
    """A small file of each kind."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x010F] = "maker"
    kinds = {
        "jpg": (picture, "JPEG", {"exif": exif}),
        "progressive": (picture, "JPEG", {"progressive": True}),
        "cmyk": (picture.convert("CMYK"), "JPEG", {}),
        "png": (picture, "PNG", {}),
        "palette": (picture.quantize(16), "PNG", {"transparency": 3}),
        "grey16": (Image.fromarray(np.arange(120, dtype=np.uint16).reshape(12, 10) * 500), "PNG", {}),
        "gif": (picture.quantize(16), "GIF", {"transparency": 3}),
        "bmp": (picture.quantize(16), "BMP", {}),
        "webp": (picture.convert("RGBA"), "WEBP", {"lossless": True}),
    }
    files = {}
    for name, (image, form, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        files[name] = buffer.getvalue()
    return files


@pytest.mark.filterwarnings("ignore")  # Pillow's, of broken EXIF data
@pytest.mark.parametrize("name", list(originals()))
def test_damaged_files_are_read_or_refused(tmp_path, name):
    """Never another exception, and never a picture of another shape."""
    original, rng = originals()[name], random.Random(name)
    refused = 0
    for _ in range(60):
        data = bytearray(original)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.randint(1, 5)):
                data[rng.randrange(min(len(data), rng.choice([40, 10**6])))] = rng.randrange(256)
        (tmp_path / "x").write_bytes(data)
        try:
            image = prepare_image(tmp_path / "x", 8)
        except UnreadableImageError as error:
            refused += 1
            assert str(error).isprintable()
        else:
            assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert refused > 5
