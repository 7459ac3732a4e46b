"""Views of an image against explicit slicing, and the colour noise against its definition."""

import numpy as np
import pytest

from minigrad.data import (
    IMAGENET_PCA,
    CenterView,
    RgbPCA,
    TenViews,
    TrainViews,
    Window,
    center_crop,
    channels_first,
    cut,
    pca_noise,
    random_crop_flip,
    ten_views,
)
from minigrad.errors import ArgumentError


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (11, 13, 3), dtype=np.uint8)


@pytest.fixture
def mean() -> np.ndarray:
    return np.random.default_rng(2).uniform(0, 255, (11, 13, 3)).astype(np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_cut_subtracts_the_mean_of_the_same_window_and_flips_both(image, mean):
    difference = image.astype(np.float32) - mean
    plain, flipped = cut(image, Window(2, 3, 7), mean), cut(image, Window(2, 3, 7, flip=True), mean)
    assert np.array_equal(plain, difference[2:9, 3:10])
    assert np.array_equal(flipped, difference[2:9, 3:10][:, ::-1])
    assert plain.dtype == np.float32 and plain.shape == (7, 7, 3)
    colour = np.array([1, 2, 3], np.float32)
    assert np.array_equal(cut(image, Window(0, 0, 4), colour), image[:4, :4].astype(np.float32) - colour)


def test_cut_leaves_its_input_alone(image, mean):
    before = image.copy(), mean.copy()
    view = cut(image, Window(0, 0, 11), mean)
    view += 1
    pca_noise(view, IMAGENET_PCA, rng())
    assert np.array_equal(image, before[0]) and np.array_equal(mean, before[1])


@pytest.mark.parametrize("turned", [lambda x: x, np.asfortranarray, lambda x: x[::-1, ::-1][::-1, ::-1]])
def test_views_are_the_same_for_images_of_any_memory_order(image, mean, turned):
    """Views are computed in place: a memory order that reshape would have to copy must not lose what is added."""
    expected = image[2:9, 3:10].astype(np.float32)
    colour = np.array([1, 2, 3], np.float32)
    assert np.array_equal(cut(turned(image), Window(2, 3, 7), colour), expected - colour)
    assert np.array_equal(
        cut(turned(image), Window(2, 3, 7, True), turned(mean)), (expected - mean[2:9, 3:10])[:, ::-1]
    )
    for average in (None, colour, turned(mean)):
        view = TrainViews(7, average, IMAGENET_PCA, 0.1, 0.5)(turned(image), rng(4))
        step = rng(4)
        plain = random_crop_flip(image, 7, step, average)
        assert np.array_equal(view, pca_noise(plain, IMAGENET_PCA, step) * np.float32(0.5))
        assert not np.array_equal(view, plain * np.float32(0.5))


@pytest.mark.parametrize("window", [(-1, 0, 5), (0, -1, 5), (7, 0, 5), (0, 9, 5), (0, 0, 0), (0, 0, 12)])
def test_cut_refuses_windows_outside_the_image(image, window):
    with pytest.raises(ArgumentError, match="leaves the image"):
        cut(image, Window(*window))


def test_cut_refuses_a_mean_of_another_size(image):
    with pytest.raises(ArgumentError, match=r"mean must have the image's shape .* got shape \(11, 12, 3\)"):
        cut(image, Window(0, 0, 5), np.zeros((11, 12, 3), np.float32))
    with pytest.raises(ArgumentError, match="shape"):
        cut(image[..., 0], Window(0, 0, 5))


def test_random_crops_reach_every_window_about_equally_often(image):
    size, draws, generator = 9, 6000, rng(3)
    windows = {
        cut(image, Window(top, left, size, flip)).tobytes(): 0
        for top in range(3)
        for left in range(5)
        for flip in (False, True)
    }
    assert len(windows) == 30
    for _ in range(draws):
        windows[random_crop_flip(image, size, generator).tobytes()] += 1  # KeyError: not one of the windows
    counts = np.array(list(windows.values()))
    assert counts.min() > 140 and counts.max() < 260  # 200 expected, standard deviation 14


def test_random_crop_is_a_function_of_the_generator(image, mean):
    one, again, other = (random_crop_flip(image, 7, rng(seed), mean) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_center_crop(image, mean):
    assert np.array_equal(center_crop(image, 5, mean), image[3:8, 4:9] - mean[3:8, 4:9])
    assert np.array_equal(center_crop(image, 6), image[2:8, 3:9].astype(np.float32))  # odd margins round down
    big = np.zeros((256, 256, 3), np.uint8)
    big[16:240, 16:240] = 1
    assert center_crop(big, 224).min() == 1


def test_ten_views_against_slicing(image, mean):
    x = (image.astype(np.float32) - mean).transpose(2, 0, 1)
    five = [x[:, :7, :7], x[:, :7, 6:], x[:, 4:, :7], x[:, 4:, 6:], x[:, 2:9, 3:10]]
    views = ten_views(image, 7, mean)
    assert views.shape == (10, 3, 7, 7) and views.dtype == np.float32
    assert np.array_equal(views, np.stack(five + [view[:, :, ::-1] for view in five]))


def test_views_are_channels_last_in_memory(image):
    views = ten_views(image, 7)
    assert views.transpose(0, 2, 3, 1).flags.c_contiguous
    batch = np.zeros((2, 4, 5, 3), np.float32)
    assert np.shares_memory(channels_first(batch), batch) and channels_first(batch).shape == (2, 3, 4, 5)
    assert random_crop_flip(image, 7, rng()).flags.c_contiguous


@pytest.mark.parametrize("make", [lambda x, n: random_crop_flip(x, n, rng()), center_crop, ten_views])
@pytest.mark.parametrize("size", [0, -1, 12])
def test_sizes_out_of_range(image, make, size):
    with pytest.raises(ArgumentError, match=rf"got image \(11, 13, 3\) and size {size}"):
        make(image, size)


def test_pca_noise_is_one_shift_along_the_components(image):
    view = image.astype(np.float32)
    shift = pca_noise(view, IMAGENET_PCA, rng(4)) - view
    assert shift.dtype == np.float32
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=1e-4)
    alpha = rng(4).normal(0, 0.1, 3)
    expected = sum(alpha[k] * IMAGENET_PCA.sd[k] * IMAGENET_PCA.eigenvectors[:, k] for k in range(3))
    np.testing.assert_allclose(shift[0, 0], expected, atol=1e-4)


def test_pca_noise_has_a_hundredth_of_the_colours_covariance():
    pca = RgbPCA(IMAGENET_PCA.eigenvectors, np.array([20.0, 50.0, 120.0]))
    generator, black = rng(5), np.zeros((1, 1, 3), np.float32)
    shifts = np.stack([pca_noise(black, pca, generator)[0, 0] for _ in range(20000)])
    expected = 0.01 * pca.eigenvectors @ np.diag(pca.sd**2) @ pca.eigenvectors.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=3.0)  # the largest entry is about 57
    np.testing.assert_allclose(shifts.mean(axis=0), 0, atol=0.3)


def test_pca_noise_refuses_what_it_cannot_do(image):
    view = image.astype(np.float32)
    assert np.array_equal(pca_noise(view, IMAGENET_PCA, rng(), std=0), view)
    with pytest.raises(ArgumentError, match="std"):
        pca_noise(view, IMAGENET_PCA, rng(), std=-0.1)
    with pytest.raises(ArgumentError, match=r"\(11, 13, 1\)"):
        pca_noise(view[..., :1], IMAGENET_PCA, rng())


def test_transforms_are_the_functions(image, mean):
    generator = rng(6)
    expected = pca_noise(random_crop_flip(image, 7, generator, mean), IMAGENET_PCA, generator)
    assert np.array_equal(TrainViews(7, mean, IMAGENET_PCA)(image, rng(6)), expected)
    assert np.array_equal(TrainViews(7, mean)(image, rng(6)), random_crop_flip(image, 7, rng(6), mean))
    assert np.array_equal(CenterView(7, mean)(image), center_crop(image, 7, mean))
    assert np.array_equal(CenterView(None, mean)(image), image - mean)
    assert np.array_equal(CenterView()(image), image.astype(np.float32))
    assert np.array_equal(channels_first(TenViews(7, mean)(image)), ten_views(image, 7, mean))


def test_scale_multiplies_after_the_mean(image, mean):
    for transform in (TrainViews, CenterView, TenViews):
        plain, scaled = transform(7, mean)(image, rng()), transform(7, mean, scale=1 / 1.1)(image, rng())
        np.testing.assert_allclose(scaled, plain / 1.1, rtol=1e-6)
        assert scaled.dtype == np.float32
    assert np.array_equal(CenterView(scale=0.5)(image), image / 2)
