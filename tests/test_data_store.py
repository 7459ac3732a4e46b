"""Packed stores: what is in them, how they are packed in spite of kills and odd files, and what is wrong with them."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import stat
import struct
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from folder_source import FolderSource
from PIL import Image

from minigrad import ArgumentError, DataError
from minigrad.base import files
from minigrad.data import (
    CachedImages,
    CenterView,
    ImageFolder,
    Loader,
    PackedImages,
    TrainViews,
    UnreadableImageError,
    check_store,
    compute_stats,
    open_images,
    pack,
    packing,
    prepare_bytes,
    prepare_image,
    random_split,
    shards,
    store,
)
from minigrad.data.packing import LOCK
from minigrad.data.shards import PackingError

SIZE = 12


def save(path, shape, rng, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path, **options)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes, 75 pictures of many shapes to train on and 9 held out: three shards and one."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 25), ("val", 3)):
        for name in ("ape", "bee", "cat"):
            for i in range(count):
                save(root / split / name / f"{i:02d}.png", (9 + i, 40 - i, 3), rng)
    (root / "words.txt").write_text("ape\tape, great ape\ncat\ta cat\n")
    return root


@pytest.fixture(scope="module")
def packed(pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("packed") / "store"
    pack(FolderSource(pictures), root, size=SIZE)
    return root


@pytest.fixture
def copy(packed, tmp_path):
    """A store that may be spoilt."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def tree(root):
    """Every file below a folder, with a digest: of the bytes themselves pytest would show all differences."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def rewrite(root, change):
    """Change a manifest on purpose, with a checksum that fits."""
    manifest = json.loads((root / store.MANIFEST).read_text())
    del manifest["checksum"]
    change(manifest)
    manifest["checksum"] = store.manifest_checksum(manifest)
    (root / store.MANIFEST).write_text(json.dumps(manifest))


def flip(path, place=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


class Changed(FolderSource):
    """A source that does something when a picture of train is read."""

    def __init__(self, root, on_read):
        super().__init__(root)
        listing = self.splits["train"]
        read = listing.read
        listing.read = lambda index: (on_read(index), read(index))[1]


# ---------------------------------------------------------------- what is in a store


def test_a_store_holds_what_the_folder_holds(pictures, packed):
    for split, count in (("train", 3), ("val", 1)):
        folder, images = ImageFolder(pictures, split, size=SIZE), PackedImages(packed, split)
        assert len(list((packed / split).glob("*.pixels"))) == count
        assert len(images) == len(folder) and images.classes == folder.classes == ("ape", "bee", "cat")
        assert images.labels.dtype == np.int64 and images.labels.tolist() == folder.labels.tolist()
        assert [str(pictures / path) for path in images.paths] == folder.paths
        for i in range(len(folder)):
            assert np.array_equal(images.image(i), folder.image(i)), i
        assert images.folder == packed / split and images.size == SIZE and images.kind == "raw"
    assert images.words == {"ape": "ape, great ape", "cat": "a cat"}
    assert sorted(path.name for path in packed.iterdir()) == [
        store.MANIFEST, store.REPORT, store.STATS, "train", "val"
    ]  # fmt: skip
    assert json.loads((packed / store.REPORT).read_text()) == {"left_out": [], "pictures": {"train": 75, "val": 9}}
    assert check_store(packed) == []


def test_statistics_are_those_of_all_training_pictures_to_the_bit(pictures, packed):
    expected, stats = compute_stats(ImageFolder(pictures, "train", size=SIZE)), PackedImages(packed, "val").stats
    assert np.array_equal(stats.mean_image, expected.mean_image)
    assert np.array_equal(stats.mean_rgb, expected.mean_rgb)
    assert np.array_equal(stats.pca.eigenvectors, expected.pca.eigenvectors)
    assert np.array_equal(stats.pca.sd, expected.pca.sd) and str(stats) == str(expected)


def test_what_a_loader_makes_of_a_store_and_of_its_folder_is_the_same(pictures, packed):
    made = []
    for images in ImageFolder(pictures, "train", size=SIZE), PackedImages(packed, "train"):
        loader = Loader(images, 16, TrainViews(10), shuffle=True, seed=3)
        assert isinstance(loader.dataset, CachedImages) is isinstance(images, ImageFolder)
        made.append([(batch.images.tobytes(), batch.labels.tobytes()) for batch in loader.epoch(1)])
    assert made[0] == made[1] and len(made[0]) == 5


def test_images_are_views_that_cannot_be_written_to(packed):
    images = PackedImages(packed)
    image = images.image(5)
    assert image.base is not None and np.shares_memory(image, images.image(5))
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        images.labels[0] = 1


def test_indices_are_those_of_a_sequence(packed):
    images = PackedImages(packed)
    assert np.array_equal(images.image(-1), images.image(74)) and images.paths[-75] == images.paths[0]
    assert np.array_equal(images.image(np.int64(40)), images.image(40))
    assert images.paths[73:] == ["train/cat/23.png", "train/cat/24.png"] and len(images.paths) == 75
    for index in 75, -76:
        with pytest.raises(IndexError):
            images.image(index)
        with pytest.raises(IndexError):
            images.paths[index]


@pytest.mark.parametrize("classes", [None, ("cat", "dog", "bee", "ape")])
def test_limit_and_classes_are_as_in_a_folder(pictures, packed, classes):
    for seed in 0, 1:
        folder = ImageFolder(pictures, "train", size=SIZE, limit=4, seed=seed, classes=classes)
        images = PackedImages(packed, "train", limit=4, seed=seed, classes=classes)
        assert images.classes == folder.classes and images.labels.tolist() == folder.labels.tolist()
        assert [str(pictures / path) for path in images.paths] == folder.paths
        assert all(np.array_equal(images.image(i), folder.image(i)) for i in range(12))


def test_what_cannot_be_opened_is_refused(packed, tmp_path):
    for given, said in [
        ({"limit": 0}, "limit must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"classes": ["ape", "ape"]}, "must differ"),
    ]:
        with pytest.raises(ArgumentError, match=said):
            PackedImages(packed, **given)
    with pytest.raises(DataError, match=r"has no split 'test', it has train, val"):
        PackedImages(packed, "test")
    with pytest.raises(DataError, match=r"must be one of the 2 known \(ape, bee\), but 1 are not: cat\."):
        PackedImages(packed, classes=("ape", "bee"))
    with pytest.raises(DataError, match="no packed store: there is no manifest.json"):
        PackedImages(tmp_path)
    (tmp_path / store.MANIFEST).write_text('{"name": "a web app"}')
    with pytest.raises(DataError, match="of something else"):
        PackedImages(tmp_path)


def test_threads_forks_and_other_processes_see_the_same(packed, monkeypatch):
    monkeypatch.setattr(store, "_MOST_MAPS", 1)  # so that threads take each other's maps away
    images = PackedImages(packed, "train", limit=20)
    expected = [images.image(i).tobytes() for i in range(60)]

    def wrong(seed):
        order = np.random.default_rng(seed).integers(0, 60, 300)
        return sum(images.image(i).tobytes() != expected[i] for i in order)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(wrong, range(4))) == [0] * 4
    again = pickle.loads(pickle.dumps(images))
    assert [again.image(i).tobytes() for i in range(60)] == expected and list(again.paths) == list(images.paths)
    child = os.fork()
    if child == 0:
        os._exit(min(wrong(9), 100))
    assert os.waitpid(child, 0)[1] == 0


def test_few_shards_are_mapped_at_a_time_and_views_outlive_their_maps(packed, monkeypatch):
    monkeypatch.setattr(store, "_MOST_MAPS", 2)
    images = PackedImages(packed)
    first = images.image(0)
    expected = first.tobytes()
    for i in (40, 70, 40, 0, 70):
        images.image(i)
        assert len(images._shards) <= 2
    assert first.tobytes() == expected


def test_opening_keeps_nothing_in_memory_for_each_picture(tmp_path):
    """A store of 300,000 pictures in 2,000 classes, whose shards are holes: as labels, names and pixels are mapped."""
    n, each, size = 300_000, 10_000, 8
    made_up(tmp_path, n, each, size, [f"n{k:08d}" for k in range(2000)])
    tracemalloc.start()
    try:
        images = PackedImages(tmp_path, "train")
        assert len(images) == n and images.paths[123_456] == "train/n/123456" and images.labels[299_999] == 1999
        assert images.image(299_999).shape == (size, size, 3)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2 * n, f"{most} bytes"  # labels as a list would take 8 bytes a picture, names as str 60


def made_up(root, n, each, size, classes):
    """A store of n pictures that are holes in sparse files; returns nothing, as packing has no part in it."""
    (root / "train").mkdir()
    labels = (np.arange(n) * len(classes) // n).astype("<i8")
    names = [b"train/n/%d" % i for i in range(n)]
    ends = np.cumsum([0, *map(len, names)]).astype("<u8")
    listed = []
    for k, start in enumerate(range(0, n, each)):
        images = min(each, n - start)
        with open(root / "train" / store.shard_name(k, False), "wb") as file:
            file.truncate(images * size * size * 3)
        listed.append([images, images * size * size * 3, 0])
    facts = {}
    for name, content in (
        (store.LABELS, labels.tobytes()),
        (store.NAMES, b"".join(names)),
        (store.NAME_ENDS, ends.tobytes()),
    ):
        (root / "train" / name).write_bytes(content)
        facts[name] = [len(content), zlib.crc32(content)]
    manifest = {
        "format": store.FORMAT, "version": store.VERSION, "classes": classes, "words": {}, "stats": None, "source": {},
        "settings": {"size": size, "fit": "scale", "background": None, "jpeg_quality": None, "limit": None},
        "splits": {"train": {"images": n, "shards": listed, "files": facts}},
    }  # fmt: skip
    manifest["checksum"] = store.manifest_checksum(manifest)
    (root / store.MANIFEST).write_text(json.dumps(manifest))


def test_jpeg_stores_hold_the_prepared_pictures_as_jpeg(pictures, tmp_path):
    pack(FolderSource(pictures), tmp_path / "s", size=SIZE, jpeg_quality=80)
    images, folder = PackedImages(tmp_path / "s"), ImageFolder(pictures, "train", size=SIZE)
    assert images.kind == "JPEG 80" and not images.in_memory and not list((tmp_path / "s").rglob("*.pixels"))
    ends = np.fromfile(tmp_path / "s" / "train" / store.JPEG_ENDS, "<u8")
    content = b"".join(path.read_bytes() for path in sorted((tmp_path / "s" / "train").glob("*.jpegs")))
    for i in range(75):
        own = tmp_path / "own.jpg"
        Image.fromarray(folder.image(i)).save(own, quality=80)
        assert content[int(ends[i]) : int(ends[i + 1])] == own.read_bytes()
        assert np.array_equal(images.image(i), prepare_image(own, SIZE)), i
    stats, expected = images.stats, compute_stats(images)
    assert np.array_equal(stats.mean_image, expected.mean_image) and np.array_equal(stats.pca.sd, expected.pca.sd)
    limited = PackedImages(tmp_path / "s", limit=2)
    assert np.array_equal(limited.image(3), images.image(list(images.paths).index(limited.paths[3])))
    assert check_store(tmp_path / "s") == []
    flip(tmp_path / "s" / "train" / "00001.jpegs", int(ends[32]) - int(ends[32]))  # its first byte: no JPEG any more
    with pytest.raises(UnreadableImageError, match=r"train/bee/07\.png"):
        PackedImages(tmp_path / "s").image(32)


# ---------------------------------------------------------------- odd files, and how pictures are fitted


def test_odd_files_are_converted_or_left_out_with_name_and_reason(tmp_path):
    rng = np.random.default_rng(1)
    here = tmp_path / "in" / "train" / "ape"
    save(here / "a_png.JPEG", (20, 30, 3), rng, format="png")
    save(here / "b_grey.jpg", (20, 30), rng)
    here.joinpath("c_cmyk.jpg").parent.mkdir(exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8), "CMYK").save(here / "c_cmyk.jpg")
    save(here / "d_good.jpg", (90, 80, 3), rng)
    (here / "e_cut.jpg").write_bytes((here / "d_good.jpg").read_bytes()[:900])
    (here / "f_empty.jpg").write_bytes(b"")
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    idat = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (here / "g_bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + idat)
    (here / "h_folder.jpg").mkdir()
    (here / "i\nescape\x1b.jpg").write_bytes(b"no picture")
    save(tmp_path / "in" / "val" / "ape" / "x.png", (20, 20, 3), rng)
    report = pack(FolderSource(tmp_path / "in"), tmp_path / "s", size=SIZE)
    images = PackedImages(tmp_path / "s")
    assert list(images.paths) == [f"train/ape/{n}" for n in ("a_png.JPEG", "b_grey.jpg", "c_cmyk.jpg", "d_good.jpg")]
    for i in range(4):
        assert np.array_equal(images.image(i), prepare_image(tmp_path / "in" / images.paths[i], SIZE))
    assert report == json.loads((tmp_path / "s" / store.REPORT).read_text())
    assert report["pictures"] == {"train": 4, "val": 1} and len(images.labels) == 4 and images.stats.count == 4
    reasons = {entry["picture"].split("/")[-1]: entry["reason"] for entry in report["left_out"]}
    assert {entry["split"] for entry in report["left_out"]} == {"train"}
    assert list(reasons) == ["e_cut.jpg", "f_empty.jpg", "g_bomb.png", "h_folder.jpg", "i\nescape\x1b.jpg"]
    for name, said in [("e_cut.jpg", "truncated"), ("f_empty.jpg", "it is empty"), ("g_bomb.png", "900000000 pixels"),
                       ("h_folder.jpg", "Is a directory"), ("i\nescape\x1b.jpg", "no JPEG, PNG")]:  # fmt: skip
        assert said in reasons[name], reasons
    assert check_store(tmp_path / "s") == []


def test_small_pictures_are_enlarged_or_placed_on_the_mean_colour(tmp_path):
    rng = np.random.default_rng(1)
    shapes = {"a": (7, 9), "b": (5, 30), "c": (31, 4), "d": (24, 40), "e": (12, 12), "f": (8, 12)}
    for name, shape in shapes.items():
        save(tmp_path / "in" / "train" / "ape" / f"{name}.png", (*shape, 3), rng)
    save(tmp_path / "in" / "val" / "ape" / "x.png", (20, 20, 3), rng)
    source = FolderSource(tmp_path / "in")
    pack(source, tmp_path / "scale", size=SIZE)
    pack(source, tmp_path / "place", size=SIZE, fit="place")
    scaled, placed = PackedImages(tmp_path / "scale"), PackedImages(tmp_path / "place")
    assert (scaled.fit, placed.fit) == ("scale", "place")
    for i, (height, width) in enumerate(shapes.values()):
        whole = np.asarray(Image.open(tmp_path / "in" / placed.paths[i]))
        as_scaled = prepare_image(tmp_path / "in" / placed.paths[i], SIZE)
        assert np.array_equal(scaled.image(i), as_scaled)
        if min(height, width) >= SIZE:
            assert np.array_equal(placed.image(i), as_scaled)
            continue
        expected = np.full((SIZE, SIZE, 3), (127, 120, 105), np.uint8)
        for row in range(SIZE):  # the slow way: pixel by pixel, from the centre
            for column in range(SIZE):
                y, x = row - round((SIZE - height) / 2), column - round((SIZE - width) / 2)
                if 0 <= y < height and 0 <= x < width:
                    expected[row, column] = whole[y, x]
        assert np.array_equal(placed.image(i), expected), (height, width)
    assert np.array_equal(placed.stats.mean_image, compute_stats(placed).mean_image)


# ---------------------------------------------------------------- kills, and all that comes between


def killed(source, root, at, after):
    """Pack in a process that is killed at its `at`-th rename or removal, before it or after; whether it ended well."""
    child = os.fork()
    if child == 0:
        try:
            seen = []

            def deadly(function):
                def call(*names):
                    seen.append(names)
                    if len(seen) == at and not after:
                        os.kill(os.getpid(), signal.SIGKILL)
                    try:
                        function(*names)
                    finally:
                        if len(seen) == at:
                            os.kill(os.getpid(), signal.SIGKILL)

                return call

            os.replace, os.unlink = deadly(os.replace), deadly(os.unlink)
            pack(source, root, size=SIZE, workers=1)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == 0


@pytest.mark.parametrize("after", [False, True])
def test_a_store_that_was_killed_at_every_file_comes_out_as_if_it_had_not_been(pictures, packed, tmp_path, after):
    source, kills = FolderSource(pictures), 0
    while not killed(source, tmp_path / "s", kills + 1, after):  # a little later each time
        kills += 1
    assert kills >= 8
    assert tree(tmp_path / "s") == tree(packed)


def test_finished_shards_are_kept_and_half_a_shard_is_made_anew(pictures, packed, tmp_path):
    root, read, marks = tmp_path / "s", [], []

    def stop_at(index):
        read.append(index)
        if index == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(Changed(pictures, stop_at), root, size=SIZE, workers=1)
    first = root / "train" / "00000.pixels"
    before = first.stat().st_mtime_ns, first.stat().st_ino
    assert not (root / "train" / "00001.pixels").exists() and not list(root.rglob("*.tmp"))
    with pytest.raises(DataError, match="is not finished: pack it on"):
        PackedImages(root)
    read.clear()
    lines = []
    pack(
        Changed(pictures, read.append), root, size=SIZE, workers=1, tell=lines.append,
        progress=lambda *counts: marks.append(counts),
    )  # fmt: skip
    assert sorted(read) == list(range(32, 75)) and (first.stat().st_mtime_ns, first.stat().st_ino) == before
    assert "32 of 84 pictures are packed already: going on" in lines
    assert marks[0] == (32, 84) and marks[-1] == (84, 84) and marks == sorted(marks)
    assert tree(root) == tree(packed)


def test_an_interrupted_call_leaves_no_thread_behind(pictures, tmp_path):
    def interrupted(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(FolderSource(pictures), tmp_path / "s", size=SIZE, progress=interrupted, workers=3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minigrad-pack")]
    assert not (tmp_path / "s" / LOCK).exists()


def test_the_end_waits_for_a_thread_that_no_pool_knows_of(pictures, tmp_path):
    """Ctrl-C may come between a thread's start and its being noted; nothing is to be written when pack has returned."""
    begun = threading.Event()

    def slow(index):
        begun.set()
        time.sleep(0.1)

    (tmp_path / "train").mkdir()
    settings = {"size": SIZE, "jpeg_quality": None, "background": None}
    work = shards.Shards(Changed(pictures, slow), tmp_path, settings)
    stopped = []

    def pack_one():
        try:
            work.pack(shards.Task("train", 0, np.arange(30)))
        except shards.StoppedError:
            stopped.append(True)

    thread = threading.Thread(target=pack_one)
    thread.start()
    assert begun.wait(60)
    work.end()
    assert list((tmp_path / "train").iterdir()) == []
    thread.join()
    assert stopped == [True]


def test_the_number_of_threads_changes_nothing(pictures, packed, tmp_path):
    pack(FolderSource(pictures), tmp_path / "s", size=SIZE, workers=5)
    assert tree(tmp_path / "s") == tree(packed)


def test_a_finished_store_is_not_packed_again(pictures, packed, copy):
    (copy / "train" / "00000.part").write_bytes(b"left by a process that was killed while it tidied up")
    report = pack(Changed(pictures, lambda index: 1 / 0), copy, size=SIZE)
    assert report["pictures"] == {"train": 75, "val": 9} and tree(copy) == tree(packed)


def test_a_damaged_part_is_made_anew(pictures, packed, tmp_path):
    root = tmp_path / "s"
    assert not killed(
        FolderSource(pictures), root, 13, after=True
    )  # a rename and two removals each: the plan, 2 shards, 2 parts
    part = root / "train" / "00001.part"
    part.write_bytes(part.read_bytes()[:-50])
    with open(root / "train" / "00000.pixels", "ab") as file:
        file.write(b"more")
    pack(FolderSource(pictures), root, size=SIZE)
    assert tree(root) == tree(packed)


def test_a_full_disk_ends_it_and_the_same_call_goes_on(pictures, packed, tmp_path, monkeypatch):
    seen = []

    def full(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # for folders it is nothing that is lost
            seen.append(descriptor)
            if len(seen) != 4:
                return
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PackingError, match="No space left on device: free space there.*the same call goes on with it"):
        pack(FolderSource(pictures), tmp_path / "s", size=SIZE)
    pack(FolderSource(pictures), tmp_path / "s", size=SIZE)
    assert tree(tmp_path / "s") == tree(packed)


def test_a_disk_that_cannot_be_read_is_not_taken_for_a_broken_picture(pictures, packed, tmp_path):
    def fails(index):
        if index == 50:
            raise UnreadableImageError("x.png", "Input/output error") from OSError(errno.EIO, "Input/output error")

    with pytest.raises(PackingError, match="cannot read 'x.png': Input/output error. That is not the picture's fault"):
        pack(Changed(pictures, fails), tmp_path / "s", size=SIZE, workers=1)

    def gone(index):
        raise UnreadableImageError("x.png", "no such file") from OSError(errno.ENOENT, "no such file")

    with pytest.raises(PackingError, match=r"of 32 pictures, from 'train/.*' on, not one can be read \(no such file\)"):
        pack(Changed(pictures, gone), tmp_path / "s", size=SIZE, workers=1)
    pack(FolderSource(pictures), tmp_path / "s", size=SIZE)
    assert tree(tmp_path / "s") == tree(packed)


def test_a_source_that_vanishes_ends_it_and_a_picture_that_is_not_there_does_not(pictures, packed, tmp_path):
    def vanishes(index):  # from the middle of the second shard on, those that were there before too
        seen.append(index)
        if len(seen) > 50:
            raise UnreadableImageError("x.png", "no such file") from OSError(errno.ENOENT, "no such file")

    seen = []
    with pytest.raises(PackingError, match="bring the source back"):
        pack(Changed(pictures, vanishes), tmp_path / "s", size=SIZE, workers=1)
    pack(FolderSource(pictures), tmp_path / "s", size=SIZE)
    assert tree(tmp_path / "s") == tree(packed)

    def three_missing(index):
        if index in (0, 40, 74):
            raise UnreadableImageError("x.png", "no such file") from OSError(errno.ENOENT, "no such file")

    report = pack(Changed(pictures, three_missing), tmp_path / "t", size=SIZE)
    assert report["pictures"] == {"train": 72, "val": 9} and len(report["left_out"]) == 3


def test_a_split_without_a_readable_picture_is_refused(tmp_path):
    save(tmp_path / "in" / "train" / "ape" / "x.png", (20, 20, 3), np.random.default_rng(0))
    (tmp_path / "in" / "val" / "ape").mkdir(parents=True)
    (tmp_path / "in" / "val" / "ape" / "y.jpg").write_bytes(b"text")
    with pytest.raises(DataError, match="not one of the pictures of val can be read: .*it begins with"):
        pack(FolderSource(tmp_path / "in"), tmp_path / "s", size=SIZE)


# ---------------------------------------------------------------- folders that are not to be touched


def test_what_holds_something_else_is_left_as_it_is(pictures, packed, tmp_path):
    source = FolderSource(pictures)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"holds something else \(thesis.txt\), and is left as it is"):
        pack(source, tmp_path / "other", size=SIZE)
    assert [path.read_text() for path in (tmp_path / "other").iterdir()] == ["years of work"]
    with pytest.raises(DataError, match="must be a folder: NotADirectoryError"):
        pack(source, tmp_path / "other" / "thesis.txt", size=SIZE)
    before = tree(packed)
    for given, said in [
        ({"size": SIZE + 1}, "size 12 there, 13 now"),
        ({"size": SIZE, "fit": "place"}, 'fit "scale" there, "place" now'),
        ({"size": SIZE, "jpeg_quality": 90}, "jpeg_quality null there, 90 now"),
        ({"size": SIZE, "limit": 3}, "limit null there, 3 now; other pictures or classes"),
    ]:
        with pytest.raises(DataError, match=f"is a store of something else: .*{said}.*left as it is"):
            pack(source, packed, **given)
    assert tree(packed) == before


def test_other_pictures_are_refused_half_way_too(pictures, tmp_path):
    assert not killed(FolderSource(pictures), tmp_path / "s", 7, after=True)
    (tmp_path / "s" / LOCK).unlink()  # which the killed process has left, and the next would remove
    before = tree(tmp_path / "s")
    for change in "name", "label", "class":
        source = FolderSource(pictures)
        if change == "name":
            source.splits["val"].names[3] = "val/bee/other.png"
        elif change == "label":
            source.splits["val"].labels[3] = 2
        else:
            source.classes = ("ape", "wasp", "cat")
        with pytest.raises(DataError, match="other pictures or classes .75 of train, 9 of val there"):
            pack(source, tmp_path / "s", size=SIZE)
    assert tree(tmp_path / "s") == before


def test_two_processes_on_one_store(pictures, tmp_path):
    (tmp_path / "s").mkdir()
    with files.holding(tmp_path / "s" / LOCK, "process 7 on elsewhere"):
        with pytest.raises(DataError, match="is being packed by process 7 on elsewhere"):
            pack(FolderSource(pictures), tmp_path / "s", size=SIZE)
    assert list((tmp_path / "s").iterdir()) == []
    holders = []
    pack(
        FolderSource(pictures), tmp_path / "s", size=SIZE,
        progress=lambda done, total: holders.append((tmp_path / "s" / LOCK).read_text()),
    )  # fmt: skip
    assert set(holders) == {f"process {os.getpid()} on {os.uname().nodename}"}


def test_the_room_on_the_disk_is_looked_at_before(pictures, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    with pytest.raises(DataError, match=r"84 pictures need .* \(\d+ bytes\) in .* and 5.0 kB \(5000 bytes\) are free"):
        pack(FolderSource(pictures), tmp_path / "s", size=SIZE)
    assert not (tmp_path / "s").exists()
    needed = 84 * (SIZE * SIZE * 3 + 100) + 3 * 4 * SIZE * SIZE * 3
    for free, enough in (needed - 1, False), (needed, True):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        if enough:
            pack(FolderSource(pictures), tmp_path / "s", size=SIZE)
        else:
            with pytest.raises(DataError, match="are free"):
                pack(FolderSource(pictures), tmp_path / "s", size=SIZE)
    monkeypatch.undo()
    assert sum(path.stat().st_size for path in (tmp_path / "s").glob("*/*")) <= needed


@pytest.mark.parametrize(
    "given, said",
    [({"size": 0}, "size"), ({"fit": "crop"}, "fit must be 'scale' or 'place'"), ({"limit": 0}, "limit"),
     ({"jpeg_quality": 101}, "jpeg_quality"), ({"workers": 0}, "workers")],
)  # fmt: skip
def test_arguments_of_pack(pictures, tmp_path, given, said):
    with pytest.raises(ArgumentError, match=f"pack: {said}"):
        pack(FolderSource(pictures), tmp_path / "s", **given)
    assert not (tmp_path / "s").exists()


def test_a_source_whose_labels_do_not_fit_is_refused(pictures, tmp_path):
    for labels, said in [(np.arange(8), "9 pictures and 8 labels in 0..7"), (np.arange(9), "9 labels in 0..8")]:
        source = FolderSource(pictures)
        source.splits["val"].labels = labels
        with pytest.raises(DataError, match=f"a label in 0..2, got .*{said}"):
            pack(source, tmp_path / "s", size=SIZE)


# ---------------------------------------------------------------- damage, and other versions


def test_newer_formats_are_refused_by_a_word(copy, pictures):
    rewrite(copy, lambda manifest: manifest.update(version=store.VERSION + 1))
    for attempt in (lambda: PackedImages(copy), lambda: check_store(copy), lambda: open_images(copy, "train"),
                    lambda: pack(FolderSource(pictures), copy, size=SIZE)):  # fmt: skip
        with pytest.raises(DataError, match=r"has format 2, and this minigrad reads formats up to 1: take a newer"):
            attempt()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "minigrad packed images"}', "[" * 100_000])
def test_a_damaged_manifest_is_named(copy, content, pictures):
    (copy / store.MANIFEST).write_text(content)
    with pytest.raises(DataError, match="damaged|of something else"):
        PackedImages(copy)
    with pytest.raises(DataError, match="damaged|of something else"):
        pack(FolderSource(pictures), copy, size=SIZE)


def test_a_manifest_that_was_changed_is_refused(copy):
    path = copy / store.MANIFEST
    path.write_text(path.read_text().replace('"bee"', '"bug"'))
    with pytest.raises(DataError, match="manifest.json has been changed since it was written"):
        PackedImages(copy)


@pytest.mark.parametrize("name", ["train/00001.pixels", f"val/{store.LABELS}", f"val/{store.NAMES}", store.STATS])
def test_every_changed_byte_is_found_and_its_file_named(copy, name):
    flip(copy / name, 57)
    assert check_store(copy) == [f"{name} has another checksum than when it was written: its content has changed"]


def test_missing_and_cut_files_are_found_on_opening_too(copy):
    (copy / "train" / "00002.pixels").unlink()
    with open(copy / "val" / "00000.pixels", "rb+") as file:
        file.truncate(100)
    with pytest.raises(DataError, match=r"damaged: train/00002.pixels is missing"):
        PackedImages(copy)
    with pytest.raises(DataError, match=r"damaged: val/00000.pixels has 100 bytes in place of 3888"):
        PackedImages(copy, "val")
    faults = check_store(copy)
    assert len(faults) == 2 and faults[0].startswith("train/00002.pixels is missing")


def test_a_wrong_label_is_found_on_opening(copy):
    flip(copy / "train" / store.LABELS)
    with pytest.raises(DataError, match="train/labels.int64 has another checksum"):
        PackedImages(copy)
    PackedImages(copy, "val")


def test_parts_that_contradict_each_other_are_found(copy):
    """Files as they were written, by a program that had it wrong."""
    labels = np.fromfile(copy / "val" / store.LABELS, "<i8")
    labels[4] = 3
    (copy / "val" / store.LABELS).write_bytes(labels.tobytes())
    ends = np.fromfile(copy / "val" / store.NAME_ENDS, "<u8")
    ends[[3, 4]] = ends[[4, 3]]
    (copy / "val" / store.NAME_ENDS).write_bytes(ends.tobytes())

    def change(manifest):
        manifest["splits"]["train"]["images"] = 74
        facts = manifest["splits"]["val"]["files"]
        facts[store.LABELS][1], facts[store.NAME_ENDS][1] = zlib.crc32(labels.tobytes()), zlib.crc32(ends.tobytes())

    rewrite(copy, change)
    assert check_store(copy) == [
        "train: the shards hold 75 pictures, not 74",
        "train: 75 labels for 74 pictures",
        "train: the places of 74 pictures in names.utf8 are not in order, from 0 to 1200",
        "val: 1 labels are outside 0..2, the first is 3, of picture 4",
        "val: the places of 9 pictures in names.utf8 are not in order, from 0 to 126",
        "stats.npz is of 75 images (12, 12, 3), not of those here",
    ]


def test_a_shard_that_vanishes_later_is_named(copy):
    images = PackedImages(copy)
    (copy / "train" / "00001.pixels").unlink()
    images.image(3)
    with pytest.raises(UnreadableImageError, match=r"00001.pixels.*No such file.*Check the disk"):
        images.image(40)


@pytest.fixture
def many_shards(monkeypatch, tmp_path):
    """A store of 40 shards for a process that maps 8 of them at a time, and may hold 24 more files open."""
    resource = pytest.importorskip("resource")
    rng = np.random.default_rng(1)
    for i in range(80):
        save(tmp_path / "pictures" / "train" / "ape" / f"{i:02d}.png", (4, 4, 3), rng)
    save(tmp_path / "pictures" / "val" / "ape" / "1.png", (4, 4, 3), rng)
    monkeypatch.setattr(packing, "_LEAST_IN_SHARD", 2)
    monkeypatch.setattr(store, "_MOST_MAPS", 8)
    pack(FolderSource(tmp_path / "pictures"), tmp_path / "store", size=4, workers=1)
    assert len(list((tmp_path / "store" / "train").glob("*.pixels"))) == 40
    images = PackedImages(tmp_path / "store")
    probe = os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free
    os.close(probe)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 24, before[1]))
    yield images
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_part_of_a_store_of_many_shards_loses_no_picture(many_shards):
    part, other = random_split(many_shards, (0.9, 0.1))
    assert part.in_memory and len(part) == 72
    loader = Loader(part, 16, CenterView(4), workers=2)
    for _ in range(2):
        assert sum(len(batch.labels) for batch in loader) == 72 and not len(loader.report)


def test_where_a_process_may_open_no_more_files_it_ends_and_loses_no_picture(many_shards):
    loader = Loader(CachedImages(many_shards), 16, CenterView(4), workers=0)  # which keeps views, and so all the maps
    with pytest.raises(DataError, match=r"cannot map '.*\.pixels': .*Too many open files.*ulimit -n") as caught:
        list(loader)
    assert not isinstance(caught.value, UnreadableImageError) and not len(loader.report)


# ---------------------------------------------------------------- whichever lies there


def test_open_images_takes_stores_and_folders(pictures, packed, tmp_path):
    images = open_images(packed, "val", size=SIZE, limit=2, seed=1, classes=["cat", "bee", "ape"])
    folder = open_images(pictures, "val", size=SIZE, limit=2, seed=1, classes=["cat", "bee", "ape"])
    assert isinstance(images, PackedImages) and isinstance(folder, ImageFolder)
    assert images.labels.tolist() == folder.labels.tolist() and folder.size == SIZE
    with pytest.raises(DataError, match="are 12 x 12, and 256 x 256 are needed: pack them at that size"):
        open_images(packed, "train")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / store.UNFINISHED).write_text(json.dumps({"format": store.FORMAT}))
    with pytest.raises(DataError, match="is not finished"):
        open_images(tmp_path / "s", "train")
    with pytest.raises(DataError, match="does not exist"):
        open_images(tmp_path / "nothing", "train")


def test_prepare_bytes_is_prepare_image(pictures):
    path = pictures / "train" / "ape" / "11.png"
    assert np.array_equal(prepare_bytes(path.read_bytes(), "x", 10), prepare_image(path, 10))
    with pytest.raises(UnreadableImageError, match=r"cannot read image 'a\\nb': UnidentifiedImageError: .*it is empty"):
        prepare_bytes(b"", "a\nb", 10)


def test_products_of_white_pictures_are_exact():
    image = np.full((256, 256, 3), 255, np.uint8)
    assert shards._products(image).tolist() == [[255 * 255 * 65536] * 3] * 3
