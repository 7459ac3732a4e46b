"""Loader: the same batches whatever the workers do, errors that surface, threads that end, and the cache."""

import json
import threading
import time
import traceback
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from minigrad import checkpoint
from minigrad.data import (
    IMAGENET_PCA,
    ArrayDataset,
    CachedImages,
    CenterView,
    ImageArray,
    ImageFolder,
    Loader,
    TenViews,
    TrainViews,
    UnreadableImageError,
    WeightedRandomSampler,
    class_balanced,
    compute_stats,
    random_split,
)
from minigrad.errors import ArgumentError, CheckpointError, DataError


def pictures(n: int = 23, side: int = 12, channels: int = 3) -> ImageArray:
    generator = np.random.default_rng(9)
    images = generator.integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    return ImageArray(images, np.arange(n) % 5)


class Jittery:
    """A dataset whose images take a random time, of which some are broken; counts its decodes."""

    def __init__(self, n: int = 23, broken: tuple[int, ...] = ()) -> None:
        self.inner, self.broken, self.decodes = pictures(n), broken, 0
        self.labels = self.inner.labels
        self._timing = np.random.default_rng()  # unseeded on purpose: timing must not matter
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.inner)

    def image(self, index: int) -> np.ndarray:
        with self._lock:
            self.decodes += 1
            delay = self._timing.uniform(0, 0.003)
        time.sleep(delay)
        if index in self.broken:
            raise UnreadableImageError(f"image-{index}.jpg", "broken on purpose")
        return self.inner.image(index).copy()


def same(one, two) -> bool:
    """Equal to the last bit, batch by batch, layout included."""
    return len(one) == len(two) and all(
        a.strides == b.strides and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for left, right in zip(one, two, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("minigrad-loader")]


def test_batches_hold_the_images_their_labels_and_indices():
    data = pictures(10)
    batches = list(Loader(data, 4, workers=0))
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    images, labels, indices = batches[1]
    assert images.shape == (4, 3, 12, 12) and images.dtype == np.float32
    assert labels.dtype == indices.dtype == np.int64
    assert indices.tolist() == [4, 5, 6, 7]
    assert labels.tolist() == [4, 0, 1, 2]
    assert np.array_equal(images, data.images[4:8].transpose(0, 3, 1, 2))
    assert images.transpose(0, 2, 3, 1).flags.c_contiguous  # channels-last in memory


@pytest.mark.filterwarnings("ignore:skipped image")
@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_bit_identical_for_any_number_of_workers(cache_bytes):
    transform = TrainViews(9, np.float32([1, 2, 3]), IMAGENET_PCA)
    runs = [
        [
            batch
            for epoch in range(2)
            for batch in Loader(
                Jittery(broken=(3, 17)),
                4,
                transform,
                shuffle=True,
                seed=7,
                workers=workers,
                cache_bytes=cache_bytes,
                prefetch=prefetch,
            ).epoch(epoch)
        ]
        for workers, prefetch in ((0, None), (1, None), (3, None), (3, 1), (2, 50))
    ]
    assert len(runs[0]) == 12
    assert all(same(runs[0], run) for run in runs[1:])


@pytest.mark.filterwarnings("ignore:skipped image")
def test_the_report_does_not_depend_on_timing_either():
    reports = []
    for workers in (0, 3):
        loader = Loader(Jittery(broken=(20, 3, 11)), 2, shuffle=True, seed=1, workers=workers)
        list(loader)
        reports.append(loader.report.skipped)
    assert reports[0] == reports[1] and len(reports[0]) == 3


def test_seed_epoch_and_index_decide_the_augmentation():
    data, transform = pictures(), TrainViews(9)

    def by_index(loader, epoch):
        return {
            int(i): image.copy()
            for images, _, indices in loader.epoch(epoch)
            for image, i in zip(images, indices, strict=True)
        }

    base = by_index(Loader(data, 4, transform, shuffle=True, workers=0), 0)
    # Neither the batch size nor the order matters to an image.
    other = by_index(Loader(data, 7, transform, shuffle=False, workers=2), 0)
    assert base.keys() == other.keys() == set(range(23))
    assert all(np.array_equal(base[i], other[i]) for i in base)
    later = by_index(Loader(data, 4, transform, workers=0), 1)
    seeded = by_index(Loader(data, 4, transform, workers=0, seed=1), 0)
    assert sum(not np.array_equal(base[i], later[i]) for i in base) > 15
    assert sum(not np.array_equal(base[i], seeded[i]) for i in base) > 15
    # Two equal images at different indices get different crops.
    twins = ImageArray(np.repeat(data.images[:1], 20, axis=0), np.zeros(20, int))
    assert len({view.tobytes() for view in by_index(Loader(twins, 5, transform), 0).values()}) > 10


def test_generators_of_shuffle_and_images_are_unrelated():
    """SeedSequence takes [seed, epoch] for [seed, epoch, 0]: image 0 must not see the shuffle's numbers."""
    states = []
    loader = Loader(pictures(), 23, lambda image, rng: states.append(rng.bit_generator.state) or image * 1.0)
    list(loader.epoch(0))
    shuffles = [np.random.default_rng(words).bit_generator.state for words in ([0, 0], [1, 0, 0], [0], 0)]
    assert states[0] not in shuffles
    assert len({state["state"]["state"] for state in states}) == 23


def test_shuffle_is_a_permutation_of_seed_and_epoch():
    loader = Loader(pictures(), 4, shuffle=True, seed=3, workers=0)
    first, second = loader.order(0), loader.order(1)
    assert sorted(first) == sorted(second) == list(range(23))
    assert not np.array_equal(first, second) and not np.array_equal(first, np.arange(23))
    assert np.array_equal(first, Loader(pictures(), 9, shuffle=True, seed=3).order(0))
    assert not np.array_equal(first, Loader(pictures(), 4, shuffle=True, seed=4).order(0))
    assert np.concatenate([batch.indices for batch in loader.epoch(0)]).tolist() == first.tolist()
    assert np.array_equal(Loader(pictures(), 4).order(5), np.arange(23))


def test_iterating_counts_epochs():
    loader = Loader(pictures(), 4, TrainViews(9), shuffle=True, workers=0)
    runs = [list(loader), list(loader)]
    assert loader.next_epoch == 2
    assert all(same(runs[k], list(loader.epoch(k))) for k in (0, 1)) and not same(runs[0], runs[1])


@pytest.mark.filterwarnings("ignore:skipped image")
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_the_middle(workers):
    def make():
        return Loader(Jittery(broken=(2,)), 4, TrainViews(9), shuffle=True, seed=1, workers=workers)

    whole = list(make().epoch(6))
    loader = make()
    for count, _ in enumerate(loader.epoch(6), start=1):
        assert loader.position == (6, count)
        if count == 4:
            break
    assert same(whole[4:], list(make().epoch(*loader.position)))
    assert list(make().epoch(6, start_batch=6)) == []


def test_drop_last_and_length():
    assert len(Loader(pictures(), 4)) == 6 == len(list(Loader(pictures(), 4)))
    assert len(Loader(pictures(), 4, drop_last=True)) == 5 == len(list(Loader(pictures(), 4, drop_last=True)))
    assert len(Loader(pictures(20), 4)) == len(Loader(pictures(20), 4, drop_last=True)) == 5


@pytest.mark.filterwarnings("ignore:skipped image")
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_make_their_batch_smaller(workers):
    loader = Loader(Jittery(8, broken=(1, 4, 5, 6, 7)), 4, workers=workers)
    for _ in range(2):
        batches = list(loader)
        assert [batch.indices.tolist() for batch in batches] == [[0, 2, 3]]  # nothing is left of the second
        assert batches[0].labels.tolist() == [0, 2, 3] and batches[0].images.shape == (3, 3, 12, 12)
        assert np.array_equal(batches[0].images, pictures(8).images[[0, 2, 3]].transpose(0, 3, 1, 2))
        assert loader.position[1] == 2
    assert [path for path, _ in loader.report.skipped] == [f"image-{k}.jpg" for k in (1, 4, 5, 6, 7)]
    with pytest.raises(DataError, match=r"not one image of epoch 0 could be read(.|\n)*image-2.jpg: broken"):
        list(Loader(Jittery(3, broken=(0, 1, 2)), 2, workers=workers))


def test_broken_file_in_a_folder_is_named(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for k in range(3):
        Image.new("RGB", (20, 20), (k, 0, 0)).save(tmp_path / "train" / "a" / f"{k}.jpg")
    whole = (tmp_path / "train" / "a" / "1.jpg").read_bytes()
    (tmp_path / "train" / "a" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    loader = Loader(ImageFolder(tmp_path, size=16), 3, workers=1)
    with pytest.warns(UserWarning, match=r"skipped image '.*1\.jpg': OSError: .*[Tt]runcated"):
        (batch,) = loader
    assert batch.indices.tolist() == [0, 2]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_errors_in_a_worker_surface_with_their_traceback(workers):
    def faulty_transform(image, rng):
        raise ZeroDivisionError("from the transform")

    with pytest.raises(ZeroDivisionError, match="from the transform") as caught:
        list(Loader(pictures(), 4, faulty_transform, workers=workers))
    assert "faulty_transform" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert not loader_threads()


def test_leaving_the_loop_frees_the_threads():
    data = Jittery(400)
    for _ in Loader(data, 8, workers=3):
        assert loader_threads()
        break
    assert not loader_threads()
    assert data.decodes < 100  # and what was queued is not worked off
    data = Jittery(600)
    batches = iter(Loader(data, 200, workers=1, prefetch=1))
    next(batches)
    batches.close()
    assert not loader_threads()
    assert data.decodes < 300  # the batch in preparation, of 200, is given up half-way too
    list(Loader(pictures(), 8, workers=3))
    assert not loader_threads()


def test_prefetch_is_bounded_and_runs_ahead():
    data = Jittery(200)
    batches = iter(Loader(data, 2, workers=2, prefetch=3, cache_bytes=0))
    next(batches)
    deadline = time.monotonic() + 60
    while data.decodes < 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.1)
    assert data.decodes == 8  # the batch in hand and three more, of two images each
    batches.close()


@pytest.mark.parametrize("workers, least", [(0, 10), (1, 5)])
def test_wait_seconds_measures_the_wait_and_not_the_work(monkeypatch, workers, least):
    """By a clock of their own: a second for each image, and 1000 for what the caller does with a batch."""
    now, lock, asked = [0.0], threading.Lock(), threading.Event()

    def passes(seconds):
        with lock:
            now[0] += seconds

    def clock():
        asked.set()
        return now[0]

    class Slow(Jittery):
        def image(self, index):
            assert asked.wait(60), "nobody waits for a batch"
            passes(1)
            return self.inner.image(index).copy()

    monkeypatch.setattr("minigrad.data.loader.time", SimpleNamespace(perf_counter=clock))
    loader = Loader(Slow(10), 5, workers=workers)
    for _ in loader:
        passes(1000)
    assert least <= loader.wait_seconds <= 10  # a worker may have made the second batch while the caller was at work


def test_cache_decodes_once_within_its_bound():
    data = Jittery(20)
    loader = Loader(data, 6, workers=2)
    first, second = list(loader.epoch(0)), list(loader.epoch(0))
    assert data.decodes == 20 and same(first, second)
    size = 12 * 12 * 3
    cache = CachedImages(Jittery(20), max_bytes=5 * size + 1)
    for _ in range(2):
        for k in range(20):
            assert np.array_equal(cache.image(k), data.inner.image(k))
    assert cache.used_bytes == 5 * size and cache.source.decodes == 20 + 15
    with pytest.raises(ValueError, match="read-only"):
        cache.image(0)[:] = 0
    uncached = Jittery(20)
    loader = Loader(uncached, 6, workers=0, cache_bytes=0)
    list(loader), list(loader)
    assert uncached.decodes == 40


def test_ten_views_batches_and_grey_images():
    (batch,) = Loader(pictures(4), 4, TenViews(9))
    assert batch.images.shape == (4, 10, 3, 9, 9) and batch.labels.shape == (4,)
    grey = ImageArray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3), [0, 1])
    (batch,) = Loader(grey, 2)
    assert batch.images.shape == (2, 1, 3, 3) and batch.images[1, 0, 2, 2] == 17


def test_image_array_and_loader_refuse_bad_input():
    images = np.zeros((3, 4, 4, 3), np.uint8)
    for bad in (
        (images.astype(float), [0, 1, 2]),
        (images[0, 0], [0] * 4),
        (images, [0.5, 1, 2]),
        (images, [0, 1]),
        (images, [[0], [1], [2]]),
    ):
        with pytest.raises(DataError, match="ImageArray"):
            ImageArray(*bad)
    data = pictures()
    for name, value in (("batch_size", 0), ("seed", -1), ("workers", -1), ("prefetch", 0), ("cache_bytes", -1),
                        ("batch_size", 2.5), ("workers", "2"), ("prefetch", True)):  # fmt: skip
        with pytest.raises(ArgumentError, match=f"Loader: {name} must be an integer >= [01], got {value!r}"):
            Loader(data, **{"batch_size": 4, name: value})
    with pytest.raises(DataError, match="no batch to make from 0 images"):
        Loader(ImageArray(images[:0], np.zeros(0, int)), 4)
    with pytest.raises(DataError, match="no batch to make from 3 images"):
        Loader(ImageArray(images, [0, 1, 2]), 4, drop_last=True)
    for epoch, start in ((-1, 0), (0, -1), (0, 7)):
        with pytest.raises(ArgumentError, match="start_batch in 0..6"):
            Loader(data, 4).epoch(epoch, start)
    odd = pictures()
    odd.image = lambda k: np.zeros((4 + k, 4, 3), np.uint8)
    with pytest.raises(DataError, match=r"image 1 gave \(5, 4, 3\) after \(4, 4, 3\)"):
        list(Loader(odd, 4))


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (2, 1, 8, 9), (2, 3, 8, 4), (2, 8, 9, 5), (2, 0, 9, 3), (2, 8, 0)])
def test_image_array_refuses_other_axes(shape):
    with pytest.raises(DataError, match=r"ImageArray: images must have the shape \(..., H, W, C\)"):
        ImageArray(np.zeros(shape, np.uint8), [0, 1])


@pytest.mark.parametrize("shape", [(2, 8, 9, 1), (2, 8, 9, 3), (2, 8, 9, 4), (2, 3, 3, 3), (2, 3, 9, 1), (2, 3, 9)])
def test_image_array_takes_all_that_may_be_channels_last(shape):
    images = np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)
    (batch,) = Loader(ImageArray(images, [0, 1]), 2, workers=0)
    last = images if images.ndim == 4 else images[..., None]
    assert np.array_equal(batch.images, last.transpose(0, 3, 1, 2))


def test_channels_first_is_told_with_the_cure():
    images = np.zeros((2, 3, 8, 9), np.uint8)
    for channels in (images, images[:, :1], np.zeros((2, 4, 8, 9), np.uint8)):
        with pytest.raises(DataError, match=r"looks channels-first: turn it with \.transpose\(0, 2, 3, 1\)$"):
            ImageArray(channels, [0, 1])
    assert ImageArray(images.transpose(0, 2, 3, 1), [0, 1]).image(0).shape == (8, 9, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_channels_first_from_a_dataset_or_a_transform(workers):
    class Own:
        labels = np.zeros(4, np.int64)

        def __len__(self):
            return 4

        def image(self, index):
            return np.zeros((3, 12, 12), np.uint8)

    def to_tensor(image, rng):
        return np.moveaxis(image, -1, 0).astype(np.float32) / 255

    with pytest.raises(DataError, match=r"Loader: an image of Own must .* got \(3, 12, 12\); .*transpose\(1, 2, 0\)"):
        list(Loader(Own(), 2, TrainViews(9), workers=workers))
    with pytest.raises(DataError, match=r"compute_stats: an image must .* got \(3, 12, 12\)"):
        compute_stats(Own(), workers=workers)
    with pytest.raises(
        DataError, match=r"what the transform to_tensor returns must .* got \(3, 12, 12\); .*\(1, 2, 0\)"
    ):
        list(Loader(pictures(), 2, to_tensor, workers=workers))
    for transform, shape in (
        (lambda image, rng: np.float32(image[None].transpose(0, 3, 1, 2)), r"\(1, 3, 12, 12\); .*\(0, 2, 3, 1\)"),
        (lambda image, rng: image[..., 0] * 1.0, r"\(12, 12\); check the axes"),
        (lambda image, rng: None, r"\(\); check the axes"),
    ):
        with pytest.raises(DataError, match=f"transform <lambda> returns must .* got {shape}"):
            list(Loader(pictures(), 2, transform, workers=workers))
    (batch,) = Loader(pictures(2), 2, lambda image, rng: image.tolist(), workers=workers)
    assert np.array_equal(batch.images, pictures(2).images.transpose(0, 3, 1, 2))


def test_an_epoch_without_images_names_a_few_in_one_line():
    with pytest.warns(UserWarning), pytest.raises(DataError) as caught:
        list(Loader(Jittery(9, broken=tuple(range(9))), 2))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("image-3.jpg: broken on purpose; image-4.jpg: broken on purpose and 4 more")


def test_pictures_are_handed_over_as_they_are_with_what_was_drawn_for_them():
    """The draws are those of the views: tests/test_prepare.py makes these of them, to the last bit."""
    data, transform = pictures(10), TrainViews(9, np.float32([1, 2, 3]), IMAGENET_PCA, 0.2, 0.5)
    runs = [
        list(Loader(data, 4, transform, shuffle=True, seed=2, workers=workers, pictures=True)) for workers in (0, 3)
    ]
    for one, again in zip(*runs, strict=True):
        assert np.array_equal(one.images, again.images) and np.array_equal(one.indices, again.indices)
        assert all(np.array_equal(a, b) for a, b in zip(one.views, again.views, strict=True))
        assert one.images.dtype == np.uint8 and one.images.flags.c_contiguous
        assert np.array_equal(one.images, data.images[one.indices]) and np.array_equal(one.labels, one.indices % 5)
        windows, size, mean, colours, scale = one.views
        assert windows.dtype == np.int32 and windows.shape == (len(one.indices), 3)
        assert (size, scale) == (9, 0.5) and colours.dtype == np.float32 and colours.shape == windows.shape
        assert mean.shape == (12, 12, 3) and (mean == [1, 2, 3]).all() and mean.dtype == np.float32
    windows, colours = (np.concatenate([getattr(b.views, name) for b in runs[0]]) for name in ("windows", "colours"))
    assert (windows.min(0) == 0).all() and (windows.max(0) == (3, 3, 1)).all()
    assert len(np.unique(colours, axis=0)) == 10
    (ten,) = Loader(data, 10, TenViews(9), workers=0, pictures=True)
    assert (ten.views.windows == ten.views.windows[0]).all() and not ten.views.colours.any()
    corners = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
    assert ten.views.windows[0].tolist() == [[*corner, flip] for flip in (0, 1) for corner in corners]
    assert not ten.views.mean.any() and ten.views.mean.shape == (12, 12, 3)


@pytest.mark.filterwarnings("ignore:skipped image")
def test_pictures_of_files_that_cannot_be_read():
    (batch,) = Loader(Jittery(5, broken=(0, 3)), 5, TrainViews(9), workers=2, pictures=True)
    assert batch.indices.tolist() == [1, 2, 4] and len(batch.images) == len(batch.views.windows) == 3
    assert np.array_equal(batch.images, pictures(23).images[[1, 2, 4]])


def test_pictures_need_a_transform_that_can_draw_and_bytes():
    for transform in (None, CenterView(), lambda image, rng: image):
        with pytest.raises(ArgumentError, match="pictures=True needs a transform with a method draw and a size"):
            Loader(pictures(), 4, transform, pictures=True)
    with pytest.raises(ArgumentError, match="CenterView.draw: only squares can be cut on a card: give a size"):
        CenterView().draw(pictures().images[0])

    class Floats(Jittery):
        def image(self, index):
            return super().image(index) / 255

    with pytest.raises(DataError, match="images must be uint8, but image 0 is float64"):
        list(Loader(Floats(), 4, CenterView(9), workers=0, pictures=True))


@pytest.mark.parametrize("as_pictures", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_threads_send_what_they_have_made(as_pictures, workers):
    seen = []

    def send(images):
        seen.append(threading.current_thread())
        return "sent", images

    options = {"transform": TrainViews(9), "workers": workers, "pictures": as_pictures}
    sent, plain = Loader(pictures(10), 4, send=send, **options), Loader(pictures(10), 4, **options)
    for batch, expected in zip(sent, plain, strict=True):
        assert type(batch) is type(expected) and batch.images[0] == "sent"
        assert same([batch.images[1:]], [expected[:1]]) and np.array_equal(batch.indices, expected.indices)
    assert len(seen) == 3 and all((one is threading.current_thread()) is (workers == 0) for one in seen)

    def full(images):
        raise MemoryError("the card is full")

    with pytest.raises(MemoryError, match="the card is full"):
        list(Loader(pictures(10), 4, send=full, **options))


def test_a_loader_goes_on_where_its_state_was_taken(tmp_path):
    images = ImageArray(np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8), np.arange(10))

    def loader(**changes):
        return Loader(images, **{"batch_size": 3, "shuffle": True, "seed": 4, "workers": 0, **changes})

    one, seen, states = loader(), [], [loader().state_dict()]
    for _ in range(3):
        for batch in one:
            seen.append(batch.indices.tolist())
            states.append(json.loads(json.dumps(one.state_dict())))
    assert states[4]["position"] == [1, 0] and states[5]["position"] == [1, 1]
    for done, state in enumerate(states[:-1]):
        other, rest = loader(workers=2), []
        for _ in other:  # somewhere else
            break
        other.load_state_dict(state)
        assert other.state_dict() == state
        while len(rest) + done < len(seen):
            rest += [batch.indices.tolist() for batch in other]
        assert rest == seen[done:], done
    for changes in ({"seed": 5}, {"batch_size": 2}, {"shuffle": False}):
        with pytest.raises(CheckpointError, match="Loader.load_state_dict: the state is of .*: make it as it was"):
            loader(**changes).load_state_dict(states[3])
    with pytest.raises(CheckpointError, match="the state is of shuffle False, this loader has True: make it as it was"):
        loader().load_state_dict(loader(shuffle=False).state_dict())
    loader().load_state_dict({name: value for name, value in states[3].items() if name != "shuffle"})  # as it once was
    with pytest.raises(CheckpointError, match="expected what state_dict"):
        loader().load_state_dict({"position": [0, 0]})
    checkpoint.save_training(tmp_path / "t", loader=one)
    checkpoint.load_training(tmp_path / "t", loader=other)
    assert other.state_dict() == one.state_dict()


# ---------------------------------------------------------------- data of any kind


class Sentences:
    """Texts of numbers, of differing length, which take a random time to fetch; some cannot be read."""

    def __init__(self, n: int = 17, broken: tuple[int, ...] = ()) -> None:
        self.n, self.broken, self._timing = n, broken, np.random.default_rng()  # unseeded on purpose

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> list[int]:
        time.sleep(self._timing.uniform(0, 0.002))
        if index in self.broken:
            raise UnreadableImageError(f"sentence-{index}.txt", "broken on purpose")
        return [index] * (index % 4 + 1)


def padded(items: list[list[int]]) -> tuple[np.ndarray, list[int]]:
    batch = np.full((len(items), max(map(len, items))), -1)
    for row, item in zip(batch, items):
        row[: len(item)] = item
    return batch, [len(item) for item in items]


def plain(batches):
    """Batches as lists, to be compared."""
    return [[part.tolist() if isinstance(part, np.ndarray) else part for part in batch] for batch in batches]


def test_arrays_pairs_and_dicts():
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 3
    first, second, third = Loader(ArrayDataset(x, y), 4)
    assert type(first) is tuple and first[0].dtype == np.float64 and first[1].dtype == np.int64
    assert np.array_equal(second[0], x[4:8]) and np.array_equal(second[1], y[4:8]) and len(third[0]) == 2
    assert [batch.tolist() for batch in Loader(x, 8, workers=0)] == [x[:8].tolist(), x[8:].tolist()]
    (batch,) = Loader([{"text": t, "length": len(t)} for t in ("one", "three")], 2)
    assert batch["text"] == ["one", "three"] and batch["length"].tolist() == [3, 5]
    assert [len(batch) for batch in Loader(range(10), 4, drop_last=True)] == [4, 4]


@pytest.mark.filterwarnings("ignore:skipped image")
def test_batches_of_items_depend_on_their_number_alone():
    def jittered(item, rng):
        return [value + rng.normal() for value in item]

    def run(workers, start=0, epoch=2, **options):
        data = Sentences(broken=(3, 8))
        loader = Loader(data, 4, jittered, collate=padded, shuffle=True, seed=5, workers=workers, **options)
        batches = plain(loader.epoch(epoch, start))
        assert sorted(loader.report.skipped) == [(f"sentence-{k}.txt", "broken on purpose") for k in (3, 8)] or start
        return batches

    whole = run(0)
    assert run(1) == run(3) == run(3, prefetch=1) == run(2, prefetch=50) == whole
    assert run(2, start=3) == run(0, start=3) == whole[3:]
    assert run(0, epoch=3) != whole
    assert sum(len(lengths) for _, lengths in whole) == 15


@pytest.mark.parametrize("workers", [0, 2])
def test_an_items_random_numbers_are_its_own(workers):
    def draw(item, rng):
        return int(item), rng.random()

    def drawn(**options):
        loader = Loader(range(30), workers=workers, transform=draw, **{"batch_size": 7, **options})
        return {int(i): value for items, values in loader.epoch(1) for i, value in zip(items, values)}

    base = drawn()
    assert len(set(base.values())) == 30
    assert drawn(batch_size=4, shuffle=True) == base
    assert all(drawn(seed=1)[i] != base[i] for i in base)
    # An image of this number sees the same: datasets of any kind share one rule.
    seen = {}
    images = pictures()
    list(Loader(images, 7, lambda image, rng: seen.setdefault(len(seen), rng.random()) * image, workers=0).epoch(1))
    assert all(np.float32(seen[i]) == np.float32(base[i]) for i in range(23))


class Twice:
    """Every index twice, backwards: a sampler of one's own."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return 2 * self.n

    def __call__(self, seed: int, epoch: int) -> list[int]:
        return [*range(self.n)][::-1] * 2


def test_an_item_drawn_again_gets_other_random_numbers():
    """A rare class that is drawn ten times an epoch is to be seen in ten ways."""
    loader = Loader(range(5), 4, lambda item, rng: (item, rng.random()), sampler=Twice(5), workers=2)
    items, values = map(np.concatenate, zip(*loader.epoch(0)))
    assert items.tolist() == [4, 3, 2, 1, 0] * 2 and len(set(values.tolist())) == 10 and len(loader) == 3
    once = Loader(range(5), 5, lambda item, rng: rng.random(), workers=0)
    assert next(once.epoch(0)).tolist() == values[4::-1].tolist()
    views = Loader(pictures(5), 10, TrainViews(5), sampler=Twice(5), workers=0)
    (batch,) = views
    assert not np.array_equal(batch.images[:5], batch.images[5:]) and np.array_equal(
        batch.indices[:5], batch.indices[5:]
    )
    assert same([batch], [next(views.epoch(0))])


@pytest.mark.parametrize("workers", [0, 2])
def test_class_balanced_batches_go_on_in_the_middle_of_an_epoch(workers):
    labels = np.array([0] * 90 + [1] * 9 + [2])
    data = ImageArray(np.arange(100 * 12, dtype=np.uint8).reshape(100, 2, 2, 3), labels)

    def make(weights=labels, **changes):
        sampler = class_balanced(weights, num_samples=120)
        return Loader(data, **{"batch_size": 16, "sampler": sampler, "seed": 3, "workers": workers, **changes})

    loader = make()
    assert len(loader) == 8 and np.array_equal(loader.order(4), class_balanced(labels, 120)(3, 4))
    whole = [batch.indices.tolist() for _ in range(2) for batch in loader]
    counts = np.bincount(labels[np.concatenate(whole)])
    assert counts.sum() == 240 and counts.min() > 45
    loader, done = make(), 0
    for _ in loader:
        done += 1
        if done == 5:
            break
    state = json.loads(json.dumps(loader.state_dict()))
    other = make()
    other.load_state_dict(state)
    assert [batch.indices.tolist() for _ in range(2) for batch in other] == whole[5:]
    for different in (make(weights=labels[::-1]), make(sampler=None), make(sampler=None, shuffle=True)):
        with pytest.raises(CheckpointError, match="the state is of another order of the items .*: make it as it was"):
            different.load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"another order .*\(another sampler, other weights, or none\): make"):
        make().load_state_dict(make(sampler=None).state_dict())


def test_parts_of_images_load_as_images():
    train, test = random_split(pictures(20), (0.75, 0.25), seed=1)
    assert sorted([*train.indices, *test.indices]) == list(range(20))
    for part in (train, test):
        (batch,) = Loader(part, 20, workers=0)
        assert np.array_equal(batch.images, pictures(20).images[part.indices].transpose(0, 3, 1, 2))
        assert np.array_equal(batch.labels, part.indices % 5) and batch.indices.tolist() == list(range(len(part)))
    assert np.array_equal(compute_stats(train).mean_rgb, compute_stats(pictures_of(train.indices)).mean_rgb)


def pictures_of(indices: np.ndarray) -> ImageArray:
    whole = pictures(20)
    return ImageArray(whole.images[indices], whole.labels[indices])


def test_what_a_loader_refuses_of_data_and_order():
    class Bare:
        def __len__(self):
            return 4

    for options, message in (
        ({"shuffle": True, "sampler": Twice(4)}, "a sampler decides the order itself"),
        ({"sampler": [3, 2, 1, 0]}, r"called with \(seed, epoch\), got a list"),
        ({"sampler": lambda seed, epoch: [0]}, "a sampler must have a length"),
        ({"sampler": WeightedRandomSampler([1, 1])}, "weights for 2 items, and the dataset has 4: give one for each"),
        ({"sampler": class_balanced(range(5))}, "weights for 5 items, and the dataset has 4: give one for each"),
        ({"pictures": True}, "pictures=True is for datasets of images, .* got a range"),
    ):
        with pytest.raises(ArgumentError, match=f"Loader: .*{message}"):
            Loader(range(4), 2, **options)
    with pytest.raises(ArgumentError, match=r"must have dataset\[index\], or for images .* got a Bare"):
        Loader(Bare(), 2)
    with pytest.raises(ArgumentError, match="collate is for other data"):
        Loader(pictures(), 2, collate=list)
    for data, options in (([], {}), (range(4), {"sampler": Twice(2), "batch_size": 5, "drop_last": True})):
        with pytest.raises(DataError, match="no batch to make from . items"):
            Loader(data, **{"batch_size": 2, **options})
    with pytest.raises(DataError, match=r"a sampler: indices must be in 0\.\.1, as there are 2 items, got 2"):
        list(Loader(range(2), 2, sampler=Twice(3)))
    loader = Loader(range(4), 2, sampler=type("Short", (Twice,), {"__len__": lambda self: 6})(2))
    with pytest.raises(DataError, match="has the length 6, but gave 4 indices for epoch 0"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_items_that_do_not_fit_are_named_by_their_index(workers):
    data = [np.zeros(3)] * 6 + [np.zeros(4)] + [np.zeros(3)] * 3
    batches = iter(Loader(data, 4, workers=workers))
    next(batches)
    with pytest.raises(DataError, match=r"item 6 has \(4,\) and item 4 the shape \(3,\); .* give Loader a collate"):
        next(batches)
    with pytest.raises(DataError, match="the collate <lambda> returned None"):
        list(Loader(data, 4, collate=lambda items: None, workers=workers))
    with pytest.raises(DataError, match="not one item of epoch 0 could be read"), pytest.warns(UserWarning):
        list(Loader(Sentences(3, broken=(0, 1, 2)), 2, collate=padded, workers=workers))


@pytest.mark.parametrize("error", [MemoryError, SystemExit, KeyboardInterrupt, RecursionError, StopIteration])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_fails_ends_the_epoch_with_its_error(error, workers):
    """Whatever it raises, no caller waits for a batch that never comes."""

    class Failing(Sentences):
        def __getitem__(self, index):
            if index == 9:
                raise error("on purpose")
            return super().__getitem__(index)

    ended = []

    def run():
        try:
            list(Loader(Failing(40), 2, collate=padded, workers=workers, prefetch=4))
        except BaseException as raised:
            ended.append(raised)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive() and len(ended) == 1
    cause = ended[0] if error is not StopIteration else ended[0].__cause__  # a generator may not pass that one on
    assert type(cause) is error and "on purpose" in str(cause)
    assert not loader_threads()
