"""Transforms against explicit slicing, colorsys pixel by pixel, Pillow, and torchvision where installed."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from minigrad.data import (
    ColorJitter,
    Compose,
    ImageArray,
    Loader,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from minigrad.errors import ArgumentError


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def colours() -> np.ndarray:
    """Many colours, uint8 (1, N, 3): corners, greys, channels that are equal in pairs, and random ones."""
    corners = [(r, g, b) for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)]
    return np.concatenate([np.array(corners), rng(2).integers(0, 256, (300, 3))]).astype(np.uint8)[None]


# ---------------------------------------------------------------- places


def test_random_crop_is_every_window_of_the_padded_image(image):
    padded = np.full((5 + 4, 7 + 2, 3), 9, np.uint8)
    padded[2:7, 1:8] = image
    windows = {padded[t : t + 4, l : l + 6].tobytes() for t in range(6) for l in range(4)}
    crop, random = RandomCrop((4, 6), padding=(2, 1), fill=9), rng()
    seen = {}
    for _ in range(1200):
        view = crop(image, random)
        assert view.shape == (4, 6, 3) and view.dtype == np.uint8
        seen[view.tobytes()] = seen.get(view.tobytes(), 0) + 1
    assert seen.keys() == windows and len(windows) == 24
    assert 15 < min(seen.values()) and max(seen.values()) < 90  # 50 expected, standard deviation 7


def test_random_crop_beside_the_image_and_with_a_fill_per_channel(image):
    crop = RandomCrop(2, padding=3, fill=(1, 2, 3))
    views = [crop(image, rng(seed)) for seed in range(400)]
    assert any((view == (1, 2, 3)).all() for view in views)  # the corners hold nothing of the image
    padded = np.tile(np.uint8([1, 2, 3]), (11, 13, 1))
    padded[3:8, 3:10] = image
    windows = {padded[t : t + 2, l : l + 2].tobytes() for t in range(10) for l in range(12)}
    assert {view.tobytes() for view in views} <= windows
    floats = RandomCrop(5, padding=1)(image.astype(np.float32), rng(0))
    assert floats.dtype == np.float32


def test_crops_and_flips_leave_their_input_alone(image):
    before = image.copy()
    crop = RandomCrop((5, 7))(image, rng())
    assert np.array_equal(crop, image) and not np.shares_memory(crop, image)
    crop[:] = 0
    RandomHorizontalFlip(1)(image, rng())[:] = 0
    ColorJitter(1, 1, 1, 0.5)(image, rng())
    assert np.array_equal(image, before)


def test_random_horizontal_flip(image):
    assert np.array_equal(RandomHorizontalFlip(1)(image, rng()), image[:, ::-1])
    assert np.array_equal(RandomHorizontalFlip(0)(image, rng()), image)
    flip, random = RandomHorizontalFlip(0.25), rng()
    count = sum(np.array_equal(flip(image, random), image[:, ::-1]) for _ in range(1000))
    assert 180 < count < 320  # 250 expected, standard deviation 14
    grey = image[..., :1]
    assert np.array_equal(RandomHorizontalFlip(1)(np.asfortranarray(grey), rng()), grey[:, ::-1])


# ---------------------------------------------------------------- colours


def test_adjustments_are_pillows():
    """Pillow rounds its grey picture first and cuts off fractions in the end: two levels are its tolerance."""
    image = rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    for ours, theirs in (
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ):
        for factor in (0, 0.3, 1, 1.7):
            expected = np.asarray(theirs(Image.fromarray(image)).enhance(factor)).astype(int)
            assert np.abs(ours(image, factor).astype(int) - expected).max() <= 2, (ours, factor)
        assert np.array_equal(ours(image, 1), image) and ours(image, 0.5).dtype == np.uint8


def test_adjust_hue_is_that_of_colorsys():
    image = colours()
    for turn in (-0.5, -0.31, 0.0, 0.1, 0.25, 0.5):
        expected = []
        for pixel in image[0] / 255:
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            expected.append(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
        expected = 255 * np.array(expected)[None]
        assert np.abs(adjust_hue(image.astype(np.float32), turn) - expected).max() < 2e-3
        assert np.abs(adjust_hue(image, turn) - expected).max() <= 0.502
    assert np.array_equal(adjust_hue(image, 0), image)


def test_adjustments_are_torchvisions():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = np.concatenate([colours().reshape(-1, 3), rng(4).integers(0, 256, (81, 3))]).astype(np.float32)
    image = image.reshape(24, -1, 3)
    theirs = torch.from_numpy(image.transpose(2, 0, 1) / 255)
    for ours, name, values in (
        (adjust_brightness, "adjust_brightness", (0, 0.4, 1.6)),
        (adjust_contrast, "adjust_contrast", (0, 0.4, 1.6)),
        (adjust_saturation, "adjust_saturation", (0, 0.4, 1.6)),
        (adjust_hue, "adjust_hue", (-0.5, -0.2, 0.07, 0.5)),
    ):
        for value in values:
            expected = 255 * getattr(functional, name)(theirs, value).numpy().transpose(1, 2, 0)
            assert np.abs(ours(image, value) - expected).max() < 5e-3, (name, value)


def test_color_jitter_draws_from_its_ranges_in_any_order():
    image = np.full((1, 1, 3), 100, np.float32)
    dark = ColorJitter(brightness=(0.5, 0.9))
    levels = np.array([dark(image, rng(seed))[0, 0, 0] for seed in range(300)])
    assert 50 <= levels.min() < 52 and 88 < levels.max() <= 90
    plain = np.array([ColorJitter(brightness=0.2)(image, rng(seed))[0, 0, 0] for seed in range(300)])
    assert 80 <= plain.min() < 82 and 118 < plain.max() <= 120
    # Brightness 2 cuts off at 255, and saturation 0 makes grey: the order shows in the result.
    red = np.array([[[200, 100, 0]]], np.float32)
    both = ColorJitter(brightness=(2, 2), saturation=(0, 0))
    first_grey, first_bright = (
        adjust_brightness(adjust_saturation(red, 0), 2),
        adjust_saturation(adjust_brightness(red, 2), 0),
    )
    results = [both(red, rng(seed)) for seed in range(60)]
    counts = [sum(np.array_equal(one, other) for one in results) for other in (first_grey, first_bright)]
    assert sum(counts) == 60 and min(counts) > 12
    byte = colours()
    assert np.array_equal(ColorJitter(hue=(0.3, 0.3))(byte, rng()), adjust_hue(byte, 0.3))
    assert np.array_equal(ColorJitter(contrast=(0.3, 0.3))(byte, rng()), adjust_contrast(byte, 0.3))
    assert ColorJitter()(byte, rng()) is byte
    grey = byte[..., :1]
    with pytest.raises(ArgumentError, match=r"ColorJitter: an image must be uint8 or float32 \(H, W, 3\)"):
        ColorJitter(0.1)(grey, rng())


def test_color_jitter_rounds_once():
    """Half of 101 twice is 101: rounded in between it would be 100 or 102."""
    image = np.full((1, 2, 3), 101, np.uint8)
    jitter = ColorJitter()
    jitter.adjustments = [(adjust_brightness, (0.5, 0.5)), (adjust_brightness, (2.0, 2.0))]
    assert (jitter(image, rng()) == 101).all()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"brightness": -0.1}, "brightness must be a number >= 0, or"),
        ({"contrast": (2, 1)}, "contrast must be"),
        ({"contrast": (-1, 1)}, "contrast must be"),
        ({"saturation": "much"}, "saturation must be .* got 'much'"),
        ({"hue": 0.6}, r"hue must be 0\.\.0\.5, or \(low, high\) within -0\.5\.\.0\.5"),
        ({"hue": (-0.6, 0)}, "hue must be"),
        ({"brightness": float("nan")}, "brightness must be"),
        ({"brightness": (1, 2, 3)}, "brightness must be"),
    ],
)
def test_color_jitter_refuses(settings, message):
    with pytest.raises(ArgumentError, match=f"ColorJitter: {message}"):
        ColorJitter(**settings)


# ---------------------------------------------------------------- numbers


def test_normalize(image):
    mean, std = [1.5, 2.5, 3.5], [2, 4, 8]
    for given in (image, image.astype(np.float32), np.asfortranarray(image)):
        result = Normalize(mean, std)(given)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, (image - np.array(mean)) / std, rtol=1e-6)
    np.testing.assert_allclose(Normalize(0, 255)(image[..., :1]), image[..., :1] / 255, rtol=1e-6)
    with pytest.raises(ArgumentError, match=r"std \[0.2.*\] looks like that of 0\.\.1; multiply mean and std by 255"):
        Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(image)
    for mean, std in ((0, 0), (0, -1), (np.nan, 1), (0, np.inf), ([[0]], 1)):
        with pytest.raises(ArgumentError, match="Normalize: need finite numbers"):
            Normalize(mean, std)
    with pytest.raises(ArgumentError, match="mean must be one number or one per channel, got 2"):
        Normalize([1, 2], 1)(image)


@pytest.mark.parametrize("transform", [RandomCrop(2), RandomHorizontalFlip(1), Normalize(0, 1)])
@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((3, 8, 9), np.uint8), [[[1]]], np.zeros((0, 4, 3))],
)
def test_transforms_refuse_what_is_no_image(transform, image):
    with pytest.raises(ArgumentError, match=f"{type(transform).__name__}: an image must be uint8 or float32"):
        transform(image, rng())


def test_settings_out_of_range(image):
    for size, padding, fill in ((0, 0, 0), (2, -1, 0), ("2", 0, 0), (2, 0, 256), (2, 0, [[1]]), (2, 0, "1")):
        with pytest.raises(ArgumentError, match="RandomCrop: (size|padding|fill) must be"):
            RandomCrop(size, padding, fill)
    with pytest.raises(ArgumentError, match=r"a window of 8 x 8 with padding \(1, 1\) .* does not fit .*\(5, 7, 3\)"):
        RandomCrop(8, 1)(image, rng())
    with pytest.raises(ArgumentError, match=r"fill \[1, 2\] does not fit"):
        RandomCrop(4, 1, (1, 2))(image, rng())
    for p in (-0.1, 1.1, "0.5"):
        with pytest.raises(ArgumentError, match="RandomHorizontalFlip: p must be"):
            RandomHorizontalFlip(p)
    for adjust in (adjust_brightness, adjust_contrast, adjust_saturation):
        with pytest.raises(ArgumentError, match="factor must be a finite number >= 0"):
            adjust(image, -0.1)
    for turn in (-0.6, 0.51, np.nan):
        with pytest.raises(ArgumentError, match="adjust_hue: turn must be"):
            adjust_hue(image, turn)


def test_compose_runs_them_in_order_with_one_generator(image):
    crop, flip, normal = RandomCrop(4, padding=1), RandomHorizontalFlip(), Normalize(100, 50)
    for each in (Compose(crop, flip, normal), Compose([crop, flip, normal])):
        for seed in range(8):
            random = rng(seed)
            assert np.array_equal(each(image, rng(seed)), normal(flip(crop(image, random), random)))
    with pytest.raises(ArgumentError, match="Compose: transforms must be callable .* got 3"):
        Compose(crop, 3)


def test_a_loader_takes_them():
    data = ImageArray(rng(5).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), np.arange(12))
    transform = Compose(
        RandomCrop(8, padding=2), RandomHorizontalFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1), Normalize(128, 64)
    )
    runs = [list(Loader(data, 5, transform, shuffle=True, seed=3, workers=workers)) for workers in (0, 3)]
    for one, other in zip(*runs):
        assert np.array_equal(one.images, other.images) and one.images.shape[1:] == (3, 8, 8)
    assert np.concatenate([batch.images for batch in runs[0]]).std() > 0.3
