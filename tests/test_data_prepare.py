"""prepare_image on every kind of file that a web crawl holds, and the statistics against numpy.linalg."""

import errno
import io
import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from minigrad.data import (
    IMAGENET_MEAN_RGB,
    IMAGENET_PCA,
    ImageArray,
    ImageFolder,
    ImageStats,
    Report,
    UnreadableImageError,
    compute_stats,
    prepare_image,
)
from minigrad.errors import ArgumentError, DataError


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth random picture: 6 x 6 random colours, enlarged."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def resize_then_crop(image: Image.Image, size: int) -> np.ndarray:
    """The same preparation spelled out: resize all of it, then slice."""
    width, height = image.size
    if width < height:
        image = image.resize((size, int(size * height / width)), Image.Resampling.BILINEAR)
    else:
        image = image.resize((int(size * width / height), size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    top, left = round((pixels.shape[0] - size) / 2), round((pixels.shape[1] - size) / 2)
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize(
    "shape", [(500, 375), (375, 500), (256, 256), (333, 257), (5, 3), (2000, 30), (30, 2000), (1, 1), (300, 1)]
)
def test_equals_resize_then_crop(tmp_path, shape):
    image = scene(*shape)
    image.save(tmp_path / "x.png")
    ours = prepare_image(tmp_path / "x.png")
    assert ours.shape == (256, 256, 3) and ours.dtype == np.uint8 and ours.flags.c_contiguous
    # One grey level: the box is computed in floating point, a tap weight may round the other way.
    assert np.abs(ours.astype(int) - resize_then_crop(image, 256)).max() <= 1


def test_size_is_the_shorter_side(tmp_path):
    image = scene(32, 32)
    image.save(tmp_path / "x.png")
    assert np.array_equal(prepare_image(str(tmp_path / "x.png"), 32), np.asarray(image))  # untouched
    assert prepare_image(tmp_path / "x.png", 24).shape == (24, 24, 3)
    with pytest.raises(ArgumentError, match="size must be an integer >= 1, got 0"):
        prepare_image(tmp_path / "x.png", 0)
    with pytest.raises(ArgumentError, match="size must be an integer >= 1, got True"):
        prepare_image(tmp_path / "x.png", True)


def test_draft_is_close_and_leaves_small_images_alone(tmp_path):
    for width, height, most in ((2051, 1537, 2), (1500, 1100, 2), (700, 1023, 0)):
        scene(width, height).save(tmp_path / "x.jpg", quality=92)
        fast, exact = prepare_image(tmp_path / "x.jpg"), prepare_image(tmp_path / "x.jpg", draft=False)
        assert np.abs(fast.astype(int) - exact).max() <= most


def test_draft_keeps_the_crop_in_place(tmp_path):
    """A sharp vertical edge in the middle of a wide picture stays on its column."""
    pixels = np.zeros((1200, 2407, 3), np.uint8)
    pixels[:, 1203:] = 255
    Image.fromarray(pixels).save(tmp_path / "x.jpg", quality=95)
    fast, exact = prepare_image(tmp_path / "x.jpg"), prepare_image(tmp_path / "x.jpg", draft=False)
    assert abs(fast[128, :, 0].mean() - exact[128, :, 0].mean()) < 0.25  # a shift of a pixel would be 1


def flat(tmp_path, image: Image.Image, name: str, **options) -> np.ndarray:
    """The colour of a one-coloured picture after a round trip through a file."""
    image.save(tmp_path / name, **options)
    prepared = prepare_image(tmp_path / name, 16)
    assert prepared.shape == (16, 16, 3)
    assert (prepared == prepared[0, 0]).all()
    return prepared[0, 0].astype(int)


def test_grey_jpeg_is_repeated_in_three_channels(tmp_path):
    assert np.abs(flat(tmp_path, Image.new("L", (20, 30), 77), "g.jpg") - 77).max() <= 1


def test_cmyk_jpeg_as_adobe_writes_it(tmp_path):
    # Pillow writes CMYK as Adobe does, inverted and marked as such.  Cyan ink alone takes away red.
    path = tmp_path / "c.jpg"
    colour = flat(tmp_path, Image.new("CMYK", (20, 30), (255, 0, 0, 0)), "c.jpg", quality=95)
    assert Image.open(path).mode == "CMYK" and b"Adobe" in path.read_bytes()
    assert np.abs(colour - (0, 255, 255)).max() <= 3
    colour = flat(tmp_path, Image.new("CMYK", (20, 30), (0, 0, 0, 55)), "c.jpg", quality=95)
    assert np.abs(colour - 200).max() <= 3


def test_palette_and_transparency(tmp_path):
    colours = Image.new("RGB", (9, 9), (10, 200, 30)).quantize(4)
    assert flat(tmp_path, colours, "p.png").tolist() == [10, 200, 30]
    assert flat(tmp_path, Image.new("RGBA", (9, 9), (10, 200, 30, 0)), "t.png").tolist() == [255, 255, 255]
    half = flat(tmp_path, Image.new("RGBA", (9, 9), (0, 0, 200, 128)), "h.png")
    assert np.abs(half - (127, 127, 227)).max() <= 1  # white, half covered
    assert flat(tmp_path, Image.new("LA", (9, 9), (0, 255)), "la.png").tolist() == [0, 0, 0]
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert flat(tmp_path, palette, "q.png", transparency=1).tolist() == [255, 255, 255]
    assert flat(tmp_path, palette, "q.png", transparency=0).tolist() == [9, 8, 7]


def test_sixteen_bit_png_keeps_the_high_byte(tmp_path):
    for value in (0, 255, 256, 40000, 65535):
        grey = Image.fromarray(np.full((9, 9), value, np.uint16))
        assert flat(tmp_path, grey, "s.png").tolist() == [value // 256] * 3


def test_bilevel_png_and_png_under_a_jpeg_name(tmp_path):
    assert flat(tmp_path, Image.new("1", (9, 9), 1), "b.png").tolist() == [255] * 3
    disguised = flat(tmp_path, Image.new("RGB", (9, 9), (1, 2, 3)), "n02105855_2933.JPEG", format="PNG")
    assert disguised.tolist() == [1, 2, 3]


def test_exif_orientation_is_ignored(tmp_path):
    image = scene(64, 64)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate me by 90 degrees"
    image.save(tmp_path / "plain.jpg")
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert np.array_equal(prepare_image(tmp_path / "plain.jpg"), prepare_image(tmp_path / "turned.jpg"))


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    scene(64, 64).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image at all",
        jpeg_bytes()[: len(jpeg_bytes()) // 2],
        jpeg_bytes()[:20],
        b"\x89PNG\r\n\x1a\n" + bytes(40),
    ],
)
def test_broken_files_are_named_with_a_reason(tmp_path, content):
    path = tmp_path / "broken_7.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"broken_7\.jpg': \w+: .+\. Replace or remove") as caught:
        prepare_image(path)
    assert isinstance(caught.value, DataError)
    assert caught.value.path == str(path) and caught.value.reason


def test_missing_file_and_decompression_bomb(tmp_path, monkeypatch):
    with pytest.raises(UnreadableImageError, match="FileNotFoundError"):
        prepare_image(tmp_path / "gone.jpg")
    scene(64, 64).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImageError, match="DecompressionBombError.*4096 pixels"):
        prepare_image(tmp_path / "bomb.png")


def test_report_warns_once_per_file():
    report = Report()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in ("a.jpg", "b.jpg", "a.jpg"):
            report.add(UnreadableImageError(path, "why"))
    assert [str(w.message) for w in caught] == ["skipped image 'a.jpg': why", "skipped image 'b.jpg': why"]
    assert report.skipped == [("a.jpg", "why"), ("b.jpg", "why")] and len(report) == 2
    assert "2 unreadable" in str(report) and "b.jpg: why" in str(report)


# --- statistics --------------------------------------------------------------------------------


def noise(n: int = 40, side: int = 7) -> ImageArray:
    """Images with correlated channels."""
    rng = np.random.default_rng(5)
    values = rng.normal(0, 40, (n, side, side, 3)) @ rng.normal(0, 1, (3, 3)) + (100, 120, 90)
    return ImageArray(values.clip(0, 255).astype(np.uint8), np.zeros(n, int))


def test_statistics_against_numpy_on_all_pixels():
    data = noise()
    stats = compute_stats(data)
    pixels = data.images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(stats.mean_image, data.images.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats.mean_rgb, pixels.mean(axis=0), rtol=1e-6)
    assert stats.mean_image.dtype == stats.mean_rgb.dtype == np.float32
    covariance = np.cov(pixels.T, bias=True)
    vectors, sd = stats.pca
    np.testing.assert_allclose(vectors @ np.diag(sd**2) @ vectors.T, covariance, rtol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    # Along each component the pixels do have that standard deviation: no eigenvalues in its place.
    np.testing.assert_allclose((pixels @ vectors).std(axis=0), sd, rtol=1e-9)
    assert (np.diff(sd) > 0).all()
    assert str(stats) == "statistics of 40 of 40 images"


def test_statistics_of_a_sample_are_seeded_and_say_so():
    data = noise()
    one, again, other = (compute_stats(data, max_images=15, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.mean_image, again.mean_image)
    assert not np.array_equal(one.mean_image, other.mean_image)
    assert (one.count, one.total) == (15, 40) and "15 of 40" in str(one) and "seed 3" in str(one)
    assert compute_stats(data, max_images=None).count == 40


def test_statistics_pass_over_broken_files_and_workers_change_nothing(tmp_path):
    for k in range(70):  # more than one chunk
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        scene(20, 16, seed=k).save(tmp_path / "train" / "a" / f"{k:02}.png")
    (tmp_path / "train" / "a" / "05.png").write_bytes(b"junk")
    folder = ImageFolder(tmp_path, size=12)
    results = []
    for workers in (0, 3):
        report = Report()
        with pytest.warns(UserWarning, match="05.png"):
            results.append(compute_stats(folder, workers=workers, report=report))
        assert [os.path.basename(path) for path, _ in report.skipped] == ["05.png"]
    assert results[0].count == 69
    good = [folder.image(k) for k in range(70) if k != 5]
    np.testing.assert_allclose(results[0].mean_image, np.mean(good, axis=0), rtol=1e-6)
    assert np.array_equal(results[0].mean_image, results[1].mean_image)
    assert np.array_equal(results[0].pca.eigenvectors, results[1].pca.eigenvectors)


def test_statistics_refuse_what_they_cannot_use(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "x.jpg").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="none of 1 images could be read"):
        compute_stats(ImageFolder(tmp_path))
    mixed = noise()
    mixed.image = lambda k: np.zeros((4 + k, 4, 3), np.uint8)
    with pytest.raises(DataError, match=r"one shape, got \(5, 4, 3\) after \(4, 4, 3\)"):
        compute_stats(mixed)
    for bad in ({"workers": -1}, {"seed": -1}, {"max_images": 0}):
        with pytest.raises(ArgumentError):
            compute_stats(noise(), **bad)


def test_grey_statistics_have_no_nan():
    grey = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 1), dtype=np.uint8)
    for images in (grey, np.repeat(grey, 3, axis=-1)):
        sd = compute_stats(ImageArray(images, np.zeros(5, int))).pca.sd
        assert np.isfinite(sd).all()
        np.testing.assert_allclose(sd[-1], grey.std() * np.sqrt(images.shape[-1]), rtol=1e-9)


def test_save_and_load(tmp_path):
    stats = compute_stats(noise(), max_images=11, seed=2)
    stats.save(tmp_path / "stats.npz")
    stats.save(tmp_path / "stats.npz")  # over an older one
    assert os.listdir(tmp_path) == ["stats.npz"]
    back = ImageStats.load(tmp_path / "stats.npz")
    assert np.array_equal(back.mean_image, stats.mean_image) and back.mean_image.dtype == np.float32
    assert np.array_equal(back.mean_rgb, stats.mean_rgb)
    assert all(np.array_equal(a, b) for a, b in zip(back.pca, stats.pca, strict=True))
    assert (back.count, back.total, back.seed, back.fit) == (11, 40, 2, "scale")
    replace(stats, fit="place").save(tmp_path / "stats.npz")
    assert ImageStats.load(tmp_path / "stats.npz").fit == "place"


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    stats = compute_stats(noise())
    stats.save(tmp_path / "stats.npz")
    before = (tmp_path / "stats.npz").read_bytes()

    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError, match="^ImageStats.save: cannot write .*stats.npz: No space left on device: free"):
        stats.save(tmp_path / "stats.npz")
    assert os.listdir(tmp_path) == ["stats.npz"]
    assert (tmp_path / "stats.npz").read_bytes() == before


def test_load_refuses_other_files(tmp_path):
    np.savez(tmp_path / "other.npz", x=1)
    np.save(tmp_path / "other.npy", np.zeros(3))
    stats = compute_stats(noise())
    stats.save(tmp_path / "whole.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:500])
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("other.npz", "other.npy", "half.npz", "empty.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            ImageStats.load(tmp_path / name)


def small_stats():
    return compute_stats(
        ImageArray(np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8), np.zeros(5, int))
    )


def test_load_refuses_what_does_not_fit(tmp_path):
    stats, path = small_stats(), tmp_path / "x.npz"
    right = {
        "mean_image": stats.mean_image, "mean_rgb": stats.mean_rgb, "eigenvectors": stats.pca.eigenvectors,
        "sd": stats.pca.sd, "counts": np.array([1, 2, 3]),
    }  # fmt: skip
    wrong = {
        "mean_image": [stats.mean_image[0], stats.mean_image[..., :2], stats.mean_image.astype(int),
                       stats.mean_image * np.nan, np.zeros((0, 4, 3), np.float32), np.array([{}])],
        "mean_rgb": [stats.mean_rgb[:2], stats.mean_rgb[:, None], np.float32(3), stats.mean_rgb * np.inf],
        "eigenvectors": [stats.pca.eigenvectors[:2], stats.pca.eigenvectors[0], np.array("text")],
        "sd": [stats.pca.sd[:2], -stats.pca.sd - 1, stats.pca.sd.astype(complex)],
        "counts": [np.array([1, 2]), np.array([1, 2, 3, 0]),
                   np.array([1, 2, -3]), np.array([1.0, 2, 3]), np.array(None)],
    }  # fmt: skip
    np.savez(path, **right)
    assert ImageStats.load(path).total == 2
    for name, values in wrong.items():
        for value in values:
            np.savez(path, **{**right, name: value})
            with pytest.raises(DataError, match="is damaged or not from ImageStats.save") as caught:
                ImageStats.load(path)
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        np.savez(path, **{key: value for key, value in right.items() if key != name})
        with pytest.raises(DataError, match=name):
            ImageStats.load(path)
    np.savez_compressed(path, **{**right, "mean_image": np.zeros((1024, 1024, 3), np.float32)})
    assert path.stat().st_size < 1e5
    with pytest.raises(DataError, match="mean_image is compressed"):  # 12 MB in a small file
        ImageStats.load(path)
    ImageStats(np.ones((64, 64, 3), np.float32), stats.mean_rgb, stats.pca, 1, 2, 3).save(path)
    whole = path.read_bytes()
    assert whole.count(b"(64, 64, 3)") == 1
    path.write_bytes(whole.replace(b"(64, 64, 3)", b"(24, 64, 3)"))  # one bit: part of the image would be read
    with pytest.raises(DataError, match="Bad CRC-32"):
        ImageStats.load(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="there is no file .*pipe"):
        ImageStats.load(tmp_path / "pipe")


def test_one_colour_in_place_of_a_mean_image_is_kept(tmp_path):
    stats = ImageStats(IMAGENET_MEAN_RGB, IMAGENET_MEAN_RGB, IMAGENET_PCA, 0, 0, 0)
    stats.save(tmp_path / "x")
    assert np.array_equal(ImageStats.load(tmp_path / "x").mean_image, IMAGENET_MEAN_RGB)


def test_random_damage(tmp_path):
    """Bytes changed, cut out and put in anywhere: the same comes out, or DataError."""
    random, path = np.random.default_rng(0), tmp_path / "x.npz"
    replace(small_stats(), fit="place").save(path)
    whole, before = path.read_bytes(), ImageStats.load(path)
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        i, n = int(random.integers(len(damaged))), int(random.integers(1, 9))
        if random.random() < 0.5:
            damaged[i] ^= 1 << int(random.integers(8))
        else:
            damaged[i : i + n] = random.integers(0, 256, int(random.integers(0, 9)), np.uint8).tobytes()
        path.write_bytes(damaged)
        try:
            found = ImageStats.load(path)
        except DataError as error:
            refused += 1
            assert len(str(error)) < 600
        else:
            assert (str(found), found.seed, found.fit) == (str(before), before.seed, "place")
            for a, b in zip(
                (found.mean_image, found.mean_rgb, *found.pca), (before.mean_image, before.mean_rgb, *before.pca)
            ):
                assert a.dtype == b.dtype and np.array_equal(a, b)
    assert 250 < refused < 500


def test_the_constants_are_what_they_claim():
    vectors, sd = IMAGENET_PCA
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-6)
    assert (np.diff(sd) > 0).all() and IMAGENET_MEAN_RGB.dtype == np.float32
    # The last component is brightness: all channels move together.
    assert len(set(np.sign(vectors[:, 2]))) == 1
