"""prepare: the views that data/augment.py makes, to the last bit, and windows, shapes and types that are refused."""

import numpy as np
import pytest
from reference import prepare_reference

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, ShapeError, Tensor
from minigrad.data import IMAGENET_PCA, CenterView, ImageArray, Loader, RgbPCA, TenViews, TrainViews

SIZE = 37  # of views: more than a tile of the kernel, which has 32 x 32, and no multiple of 4
N, H, W = 5, 45, 43


def pictures(channels=3, n=N, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, H, W, channels), dtype=np.uint8)


def mean_image(channels=3):
    return np.random.default_rng(1).uniform(0, 255, (H, W, channels)).astype("f")


def prepared(x, windows, device, size=SIZE, mean=None, colours=None, scale=1.0):
    mean = mean_image(x.shape[-1]) if mean is None else mean
    return F.prepare(Tensor(x, device=device), windows, size, mean, colours, scale).numpy()


def same(y, expected):
    """To the last bit: the sign of a zero too."""
    assert y.dtype == expected.dtype == np.float32 and y.shape == expected.shape
    assert np.array_equal(y.view(np.int32), np.ascontiguousarray(expected).view(np.int32))


TRANSFORMS = {
    "training": TrainViews(SIZE, mean_image(), IMAGENET_PCA, 0.1, 1 / 58),
    "training, no noise": TrainViews(SIZE, mean_image()),
    "training, a mean colour": TrainViews(SIZE, np.float32([120.5, 110.25, 99.3]), IMAGENET_PCA, 0.5, 1 / 1.1),
    "training, no mean": TrainViews(SIZE, None, IMAGENET_PCA),
    "centre": CenterView(SIZE, mean_image(), 1 / 58),
    "centre, all of the height": CenterView(W, mean_image()),
    "ten views": TenViews(SIZE, mean_image(), 1 / 58),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_device_makes_the_bits_that_the_loader_makes(transform, device):
    data = ImageArray(np.concatenate([pictures(), pictures(n=N + 2, seed=2)]), np.arange(2 * N + 2))
    there, here = (
        Loader(data, 5, transform, shuffle=True, seed=3, workers=0, pictures=choice) for choice in (True, False)
    )
    flips = set()
    for sent, expected in zip(there.epoch(1), here.epoch(1), strict=True):
        assert sent.images.dtype == np.uint8 and np.array_equal(sent.labels, expected.labels)
        assert np.array_equal(sent.indices, expected.indices)
        same(F.prepare(Tensor(sent.images, device=device), *sent.views).numpy(), expected.images)
        flips |= set(sent.views.windows[..., 2].flat)
    assert flips == ({0} if isinstance(transform, CenterView) else {0, 1}), "what was compared is mirrored, and is not"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_numbers_of_channels(channels, device):
    x, mean = pictures(channels, 3), mean_image(channels)
    pca = RgbPCA(np.linalg.qr(np.random.default_rng(4).standard_normal((channels,) * 2))[0], np.arange(channels) + 10.0)
    loader = Loader(ImageArray(x, [0, 1, 2]), 3, TrainViews(SIZE, mean, pca), workers=0, pictures=True)
    (batch,) = loader.epoch(0)
    y = F.prepare(Tensor(batch.images, device=device), *batch.views).numpy()
    same(y, prepare_reference(x, batch.views.windows, SIZE, mean, batch.views.colours, 1.0))
    (expected,) = Loader(ImageArray(x, [0, 1, 2]), 3, TrainViews(SIZE, mean, pca), workers=0)
    same(y, expected.images)


@pytest.mark.parametrize("size", [1, 4, 32, 33, 43])
def test_every_corner_and_the_last_row_and_column(size, device):
    """Against loops: all four corners, both ways round, and windows between, different ones in each picture."""
    down, across = H - size, W - size
    corners = [(top, left, flip) for top in (0, down) for left in (0, across) for flip in (0, 1)]
    windows = np.array([corners, [(down // 2, across // 3, i % 2) for i in range(8)]])
    x, mean = pictures(n=2), mean_image()
    colours = np.float32([[1.5, -20.25, 3], [0.1, 0.2, -0.3]])
    y = prepared(x, windows, device, size, mean, colours, 1 / 58)
    assert y.shape == (2, 8, 3, size, size)
    same(y, prepare_reference(x, windows, size, mean, colours, 1 / 58))


def test_the_arithmetic_is_rounded_step_by_step(device):
    """Numbers for which a fused or reordered formula gives other bits."""
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    mean = np.full((16, 16, 1), 0.1, "f")
    colours, scale = np.float32([[1e-4]]), 0.3
    y = prepared(x, [(0, 0, 0)], device, 16, mean, colours, scale)
    wide = x.astype("d") - np.float64(mean) + np.float64(colours[0])
    stepwise = ((x.astype("f") - mean) + colours[0]) * np.float32(scale)
    same(y[0, 0], stepwise[0, ..., 0])
    regrouped = (x.astype("f") + (colours[0] - mean)) * np.float32(scale)
    assert (stepwise != regrouped).any() and (stepwise != (wide * np.float32(scale)).astype("f")).any()


def test_batches_of_one_and_of_none(device):
    y = prepared(pictures(n=1), [(3, 4, 1)], device)
    same(y, prepare_reference(pictures(n=1), np.array([(3, 4, 1)]), SIZE, mean_image(), np.zeros((1, 3)), 1.0))
    assert prepared(pictures(n=0), np.zeros((0, 3), int), device).shape == (0, 3, SIZE, SIZE)
    assert prepared(pictures(n=0), np.zeros((0, 10, 3), int), device).shape == (0, 10, 3, SIZE, SIZE)
    assert prepared(pictures(n=2), np.zeros((2, 0, 3), int), device).shape == (2, 0, 3, SIZE, SIZE)


def test_any_memory_order(device):
    x, mean = pictures(), mean_image()
    windows = [(i, 5 - i, i % 2) for i in range(N)]
    expected = prepared(x, windows, device)
    turned = Tensor(np.ascontiguousarray(x.transpose(2, 3, 0, 1)), device=device).transpose(2, 3, 0, 1)[:, :, :, ::-1]
    turned_mean = Tensor(np.ascontiguousarray(mean.transpose(2, 1, 0)), device=device).transpose(2, 1, 0)[:, :, ::-1]
    assert np.array_equal(turned.numpy(), x[..., ::-1])
    same(F.prepare(turned, windows, SIZE, turned_mean).numpy(), expected[:, ::-1])
    same(prepared(x[::-1, ::-1], [(H - SIZE - t, l, f) for t, l, f in windows[::-1]], device, mean=mean[::-1]),
         expected[::-1, :, ::-1])  # fmt: skip


def test_there_is_no_gradient(device):
    mean = Tensor(mean_image(), requires_grad=True, device=device)
    y = F.prepare(Tensor(pictures(), device=device), np.zeros((N, 3), int), SIZE, mean)
    assert not y.requires_grad and y.node is None and str(y.device) == device


@pytest.mark.parametrize(
    "window", [(H - SIZE + 1, 0, 0), (0, W - SIZE + 1, 0), (-1, 0, 0), (0, -1, 0), (0, 0, 2), (0, 0, -1)]
)
@pytest.mark.parametrize("views", [(), (2,)])
def test_a_window_that_is_a_pixel_too_far(window, views, device):
    windows = np.zeros((N, *views, 3), int)
    windows[-1] = windows[1][..., :] = window
    first = "windows[1, 0]" if views else "windows[1]"
    with pytest.raises(ArgumentError, match=f"prepare: {first} = {window} is not within".replace("[", r"\[")
                       .replace("(", r"\(").replace(")", r"\)")):  # fmt: skip
        prepared(pictures(), windows, device)
    windows[..., :] = (H - SIZE, W - SIZE, 1)  # the last place that there is
    prepared(pictures(), windows, device)


def test_what_is_refused(device):
    x, windows, mean = Tensor(pictures(), device=device), np.zeros((N, 3), int), mean_image()
    F.prepare(x, windows, SIZE, mean)
    with pytest.raises(
        DTypeError, match="prepare: images must be uint8, they are float32: give pictures as they were decoded"
    ):
        F.prepare(x.astype("float32"), windows, SIZE, mean)
    with pytest.raises(DTypeError, match="prepare: images must be a Tensor, got ndarray"):
        F.prepare(pictures(), windows, SIZE, mean)
    with pytest.raises(ShapeError, match=r"must have 4 axes \(N, H, W, C\), it has 3"):
        F.prepare(x[0], windows, SIZE, mean)
    with pytest.raises(ShapeError, match=r"1 to 4 channels last, they are \(5, 3, 45, 43\)"):
        F.prepare(x.transpose(0, 3, 1, 2), windows, SIZE, mean)
    with pytest.raises(DTypeError, match=r"float32 \(45, 43, 3\) as the pictures are, it is float64"):
        F.prepare(x, windows, SIZE, mean.astype("d"))
    with pytest.raises(ShapeError, match=r"it is float32 \(45, 43\)"):
        F.prepare(x, windows, SIZE, mean[..., 0])
    with pytest.raises(ShapeError, match=r"windows must be .* for N = 5 pictures, they are \(4, 3\)"):
        F.prepare(x, windows[1:], SIZE, mean)
    with pytest.raises(ShapeError, match=r"windows must be .* they are \(5, 4\)"):
        F.prepare(x, np.zeros((N, 4), int), SIZE, mean)
    with pytest.raises(DTypeError, match="windows must be integers, they are float64"):
        F.prepare(x, windows * 1.0, SIZE, mean)
    with pytest.raises(ShapeError, match=r"colours must be \(N, C\) = \(5, 3\), they are \(3,\)"):
        F.prepare(x, windows, SIZE, mean, np.zeros(3))
    for ragged in ([(0, 0, 0), (0, 0)], [[(0, 0, 0)], [(0, 0, 0)] * 2]):
        with pytest.raises(
            ShapeError, match=r"windows must be an array, or lists of equal length, got \[.*\(0, 0, 0\)"
        ):
            F.prepare(x, ragged, SIZE, mean)
    with pytest.raises(ArgumentError, match="prepare: size must be an integer >= 1, got 0"):
        F.prepare(x, windows, 0, mean)
    with pytest.raises(ArgumentError, match=r"is not within \(0, 0, 0\) and \(-1, -3, 1\)"):
        F.prepare(x, windows, 46, mean)
    with pytest.raises(ShapeError, match="at most 2147483647 numbers"):
        F.prepare(x, windows, 30_000, mean)
    with pytest.raises(ArgumentError, match="scale must be a finite number"):
        F.prepare(x, windows, SIZE, mean, None, np.nan)
    elsewhere = minigrad.device("cpu:1")
    with pytest.raises(DeviceError, match="prepare: inputs on"):
        F.prepare(x, windows, SIZE, Tensor(mean, device=elsewhere))


def test_the_caller_s_arrays_stay_and_are_copied(device):
    x, windows, colours = pictures(), np.zeros((N, 3), np.int32), np.ones((N, 3), "f")
    before = x.copy(), windows.copy(), colours.copy()
    y = F.prepare(Tensor(x, device=device), windows, SIZE, mean_image(), colours)
    first = y.numpy().copy()
    assert all(map(np.array_equal, (x, windows, colours), before))
    windows[...], colours[...] = 1, 9
    same(y.numpy(), first)
